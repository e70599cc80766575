import { isWildcard, type IpAddress, type Protocol } from '../../model/address.js';
import type { Configuration } from '../../model/configuration.js';
import { errorCode, errorMessage } from '../../model/errors.js';
import type { ListenFailure } from '../../model/events.js';
import type { Clock } from '../../runtime/clock.js';
import type { EventQueue } from '../../flows/event-queue.js';
import type { RuleSlot } from '../../flows/flow.js';
import {
  cannotAdd,
  type ApplyReport,
  type PlaneCounters,
  type PortGate,
  type UdpFlowState,
} from '../contract.js';
import type { HandoverState, Inherited } from './handover-state.js';
import {
  EndpointMap,
  mostListeners,
  planListeners,
  shortageAdvice,
  socketBudget,
  udpEndpoints,
  type ListenerBinding,
  type ListenerPlan,
  type OwnAddresses,
  type PlanShare,
} from './listen-plan.js';

/** A listening socket. Its flows are not its own: they end through the flow manager. */
export interface Listener {
  readonly binding: ListenerBinding;
  /** Takes new flows from now on, those that came since it was bound first. Idempotent; not after `close`. */
  serve(): void;
  /**
   * Takes no new flows from now on. TCP: the listening socket closes. UDP: datagrams of existing flows and their
   * replies still pass, for they use this socket; it closes with its last flow. Clients that came before `serve` are
   * turned away. Idempotent.
   */
  close(): void;
  /** Closes the socket whatever flows are left on it. */
  destroy(): void;
  /** Node's own object under the socket, which another process may get; undefined where there is none. */
  rawHandle(): object | undefined;
  /** UDP: see HandOverPlane.freezeUdp. TCP has no such flows. */
  freeze?(): readonly UdpFlowState[];
  thaw?(): void;
}

export interface ListenerFactory {
  /** Resolves once the socket is bound; new flows wait for `serve`. Rejects with the system's error (`EADDRINUSE`, `EACCES`, ...). */
  open(binding: ListenerBinding, inherited: Inherited): Promise<Listener>;
}

export interface ListenerManagerDeps {
  readonly clock: Clock;
  readonly events: Pick<EventQueue, 'push'>;
  readonly factories: Readonly<Record<Protocol, ListenerFactory>>;
  /** Sockets and flows of the process before this one. */
  readonly handover: Pick<HandoverState, 'take'>;
  readonly ownAddresses: OwnAddresses;
  /** The rules of a configuration as flows and listeners hold them. */
  readonly slotsFor: (configuration: Configuration) => readonly RuleSlot[];
  /** Finds out which local addresses lead there, while there are ports left to ask with. Never rejects. */
  readonly learnRoutes: (destinations: readonly IpAddress[]) => Promise<void>;
  /** Runs work when no other change of what is listened on is under way. */
  readonly inTurn: (work: () => Promise<void>) => Promise<void>;
  /**
   * Asked before each TCP port, and notified when its socket is closed, where other workers share it.
   * @default no one is asked
   */
  readonly tcpGate?: PortGate | undefined;
}

export interface ListenerManagerOptions {
  readonly share: PlanShare;
  readonly workers: number;
  /** Files and sockets that this process may have open. @default no limit */
  readonly descriptorLimit?: number | undefined;
}

/** No permission, no descriptors: trying again changes nothing. */
const LASTING_FAILURES: ReadonlySet<string> = new Set(['EACCES', 'EMFILE']);

/** One takes a socket, open for some 50 us; far more than there are routes. */
const MOST_ROUTES_ASKED = 1024;

/** How often ports that could not be bound are tried again. */
const RETRY_LISTEN_MS = 10_000;

/** Other workers close a shared socket within the time that it takes them to hear of it. */
const MAKE_ROOM_MS = 3000;

/** How often a socket that was just closed, here or in another worker, is tried again. */
const AGAIN_MS = 20;

/** Sockets bound at a time; enough to be quick, few enough to keep the event loop turning. */
const OPEN_BATCH = 256;

type OnOpen = (listener: Listener) => void;

/** A wanted socket that could not be opened, and the system's error code. */
interface Unopened {
  readonly binding: ListenerBinding;
  readonly code: string;
}

/** A configuration, and the sockets it wants of this worker. */
interface Planned {
  readonly configuration: Configuration;
  readonly plan: ListenerPlan;
}

/** What is open for a configuration that is not in force yet. */
interface Staged extends Planned {
  readonly open: EndpointMap<Listener>;
  /** Only own listeners that go are in their way. */
  readonly obstructed: ListenerBinding[];
}

/** All listening sockets of a worker, kept equal to what the configuration wants. Sockets that stay are never closed. */
export class ListenerManager {
  readonly #deps: ListenerManagerDeps;
  readonly #options: ListenerManagerOptions;
  readonly #open = new EndpointMap<Listener>();
  /** Of sockets that the gate has let through. */
  readonly #claims = new Set<ListenerBinding>();
  #present: Planned | undefined;
  #staged: Staged | undefined;
  /** Undefined: what is open, or the plan, has changed since. */
  #census: PlaneCounters['listeners'] | undefined;
  /** Of the present plan, also those that another worker reports. */
  #failures: readonly Unopened[] = [];
  /** As the configuration before was left: to go back to it must not fail for what was missing then already. */
  #formerFailures: readonly Unopened[] = [];
  #isUdpPlanned: (address: string, port: number) => boolean = () => false;
  /** For good: what is just being opened is closed again, and is no failure. */
  #closed = false;
  #cancelRetry: () => void = () => undefined;

  constructor(deps: ListenerManagerDeps, options: ListenerManagerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Opens and serves all of the first configuration that can be opened. */
  async start(configuration: Configuration): Promise<void> {
    await this.#deps.learnRoutes(backendsOf(configuration));
    await this.#follow({ configuration, plan: this.#planOf(configuration) });
  }

  /**
   * Opens what the configuration adds to the present one, all of it or nothing, and takes no flows there yet. Rejects,
   * and nothing has changed, where that fails. Ports that the present configuration, or the previous one, could not bind
   * may be missing. Doing it again changes nothing; staging another discards it.
   */
  async stage(configuration: Configuration): Promise<void> {
    if (this.#staged?.configuration.digest === configuration.digest) return;
    this.discard();
    const plan = this.#planOf(configuration);
    const staged: Staged = { configuration, plan, open: new EndpointMap(), obstructed: [] };
    this.#staged = staged;
    await this.#deps.learnRoutes(backendsOf(configuration));
    const former = new EndpointMap<ListenerBinding>();
    for (const { binding } of this.#formerFailures) former.set(binding, binding);
    const added = this.#missing(plan).filter(
      (one) => this.#present?.plan.get(one) === undefined && former.get(one) === undefined,
    );
    // Known beforehand: thousands of sockets would be opened only to be closed again.
    const beyond = this.#takeBeyond(added);
    const failures =
      beyond.length > 0
        ? beyond
        : await this.#openBatches(added, (listener) => staged.open.set(listener.binding, listener));
    const lasting = failures.filter((failure) => {
      if (!isInUse(failure) || this.#obstructing(failure.binding, plan).length === 0) return true;
      staged.obstructed.push(failure.binding);
      return false;
    });
    if (lasting.length === 0) return;
    this.discard();
    throw cannotAdd(lasting.map(failureOf), lasting.some(isShort) ? this.#advice(configuration) : undefined);
  }

  /**
   * Puts what was staged in force. The last step that can fail closes own listeners that are in the way of staged ones;
   * where it does, it rejects and the present configuration stays. Else `adopt` is called, in one turn with everything
   * that makes listeners serve the new configuration; then what is left is opened and closed.
   */
  async commit(adopt: () => void): Promise<void> {
    const staged = this.#staged;
    if (staged === undefined) throw new TypeError('Nothing is staged');
    const failures = await this.#makeRoom(staged);
    if (failures.length > 0) {
      this.discard();
      // What was closed for it and could not be opened again is missing now.
      if (this.#present !== undefined) await this.#follow(this.#present);
      throw cannotAdd(failures.map(failureOf));
    }
    this.#formerFailures = this.#failures;
    adopt();
    await this.#follow(staged);
  }

  /** Closes what was staged and not committed. */
  discard(): void {
    const listeners = [...(this.#staged?.open.values() ?? [])];
    this.#staged = undefined;
    for (const listener of listeners) this.#close(listener);
  }

  /** Takes no new flows any more, for good. */
  close(): void {
    this.#closed = true;
    this.#cancelRetry();
    this.discard();
    for (const listener of this.#open.values()) {
      listener.close();
      this.#release(listener.binding);
    }
  }

  destroy(): void {
    this.close();
    for (const listener of this.#open.values()) listener.destroy();
    this.#open.clear();
    this.#census = undefined;
  }

  /** Sockets that are open, serving or not yet. */
  get openSockets(): number {
    return this.#open.size + (this.#staged?.open.size ?? 0);
  }

  /** What is open and serves. */
  all(): readonly Listener[] {
    return [...this.#open.values()];
  }

  /** Of the sockets that this worker tells of. */
  report(revision: number): ApplyReport {
    const open = (protocol: Protocol): number =>
      this.all().filter(({ binding }) => binding.protocol === protocol && binding.reportedElsewhere !== true)
        .length;
    return {
      revision,
      listeners: { tcp: open('tcp'), udp: open('udp') },
      failures: this.#failures.filter(({ binding }) => binding.reportedElsewhere !== true).map(failureOf),
    };
  }

  /** By frontend name, sockets that this worker tells of. Asked every second, and counted only after changes. */
  census(): PlaneCounters['listeners'] {
    return (this.#census ??= this.#count());
  }

  #count(): PlaneCounters['listeners'] {
    const census = new Map<string, { open: number; wanted: number }>();
    for (const binding of this.#present?.plan.values() ?? []) {
      if (binding.reportedElsewhere === true) continue;
      const isOpen = this.#open.get(binding) !== undefined;
      for (const name of frontendsOf(binding)) {
        const entry = census.get(name) ?? { open: 0, wanted: 0 };
        census.set(name, entry);
        entry.wanted++;
        if (isOpen) entry.open++;
      }
    }
    return Object.fromEntries(census);
  }

  /** Whether some worker listens on this UDP endpoint. One alone knows all UDP sockets as its own. */
  isUdpElsewhere(address: string, port: number): boolean {
    return this.#isUdpPlanned(address, port);
  }

  #planOf(configuration: Configuration): ListenerPlan {
    const { slotsFor, ownAddresses } = this.#deps;
    return planListeners(configuration, slotsFor(configuration), ownAddresses, this.#options.share);
  }

  /**
   * Serves the plan: at once where a listener is open or staged, so that no flow meets a stale rule; closes what it does
   * not have, and opens all of what it has that can be.
   */
  async #follow({ configuration, plan }: Planned): Promise<void> {
    this.#present = { configuration, plan };
    this.#census = undefined;
    if (this.#options.workers > 1) this.#isUdpPlanned = udpEndpoints(configuration, this.#deps.ownAddresses);
    const staged = [...(this.#staged?.open.values() ?? [])];
    this.#staged = undefined;
    for (const listener of staged) this.#open.set(listener.binding, listener);
    for (const listener of this.all()) {
      const wanted = plan.get(listener.binding);
      if (wanted === undefined) {
        this.#close(listener);
        continue;
      }
      listener.binding.slot = wanted.slot;
      listener.binding.captured = wanted.captured;
    }
    for (const listener of staged) listener.serve();
    this.#failures = await this.#openAll(this.#missing(plan));
    this.#retry();
  }

  /** An address may arrive later (VRRP) and a port may be freed; a missing permission stays missing. */
  #retry(): void {
    this.#cancelRetry();
    if (this.#closed || this.#failures.every(({ code }) => LASTING_FAILURES.has(code))) return;
    this.#cancelRetry = this.#deps.clock.setTimer(RETRY_LISTEN_MS, () => {
      void this.#deps.inTurn(() => this.#tryAgain());
    });
  }

  async #tryAgain(): Promise<void> {
    if (this.#closed || this.#present === undefined) return;
    // What is staged must not be served yet.
    if (this.#staged !== undefined) {
      this.#retry();
      return;
    }
    const { configuration } = this.#present;
    const failuresBefore = this.report(0).failures.length;
    await this.start(configuration);
    const { listeners, failures } = this.report(0);
    if (failures.length === failuresBefore) return;
    this.#deps.events.push({
      type: 'listening-changed',
      atMs: this.#deps.clock.wallMs(),
      worker: this.#options.share.worker,
      listeners,
      failures: failures.length,
    });
  }

  #missing(plan: ListenerPlan): ListenerBinding[] {
    return [...plan.values()].filter((binding) => this.#open.get(binding) === undefined);
  }

  /** Listeners that are in the way of a binding, one of them or it being on all addresses, but are not in the plan. */
  #obstructing({ protocol, address, port }: ListenerBinding, plan: ListenerPlan): readonly Listener[] {
    return [...this.#open.onPort(port)].filter(
      ({ binding }) =>
        binding.protocol === protocol &&
        binding.address.family === address.family &&
        (isWildcard(address) || isWildcard(binding.address)) &&
        plan.get(binding) === undefined,
    );
  }

  /**
   * Opens what was staged but for own listeners in its way (of a wildcard address where now a single one is served, or
   * the other way round), closing those first: no flows are taken there in between. Where one cannot be opened, those
   * that were closed are opened again.
   */
  async #makeRoom({ plan, open, obstructed }: Staged): Promise<readonly Unopened[]> {
    const closed: ListenerBinding[] = [];
    for (const batch of batchesOf(obstructed)) {
      for (const listener of new Set(batch.flatMap((one) => this.#obstructing(one, plan)))) {
        closed.push(listener.binding);
        this.#close(listener);
      }
      const failures = await this.#openPatiently(batch, (listener) => open.set(listener.binding, listener));
      if (failures.length === 0) continue;
      this.discard();
      await this.#openPatiently(closed, (listener) => this.#serve(listener));
      return failures;
    }
    return [];
  }

  async #openAll(missing: ListenerBinding[]): Promise<readonly Unopened[]> {
    const failures: Unopened[] = [];
    let wanted = missing;
    for (;;) {
      const beyond = this.#takeBeyond(wanted);
      const failed = await this.#openBatches(wanted, (listener) => this.#serve(listener));
      for (const failure of failed) failures.push(failure);
      // What could not be bound leaves its place to the next port; a real want of descriptors leaves none.
      if (beyond.length === 0 || failed.length === 0 || failed.some(isShort)) return [...beyond, ...failures];
      wanted = beyond.map(({ binding }) => binding);
    }
  }

  #serve(listener: Listener): void {
    this.#census = undefined;
    this.#open.set(listener.binding, listener);
    listener.serve();
  }

  /** Takes away, and gives back, what the limit leaves no room for. */
  #takeBeyond(missing: ListenerBinding[]): Unopened[] {
    // Low ports first, each over both protocols: what is beyond the limit is missing for both.
    missing.sort((a, b) => a.port - b.port);
    const most = mostListeners(this.#options.descriptorLimit);
    const room = Math.max(0, most - this.openSockets);
    return missing.splice(room).map((binding) => ({ binding, code: 'EMFILE' }));
  }

  /** In the order given. `onOpen` is called as soon as one is open. */
  async #openBatches(bindings: readonly ListenerBinding[], onOpen: OnOpen): Promise<Unopened[]> {
    const failures: Unopened[] = [];
    for (const batch of batchesOf(bindings)) {
      if (this.#closed) break;
      const outcomes = await Promise.all(batch.map((binding) => this.#openOne(binding, onOpen)));
      for (const failure of outcomes) if (failure !== undefined) failures.push(failure);
    }
    return failures;
  }

  /** As #openBatches; where other workers share sockets, one that is in use is tried again for a while. */
  async #openPatiently(bindings: readonly ListenerBinding[], onOpen: OnOpen): Promise<Unopened[]> {
    const { clock, tcpGate } = this.#deps;
    const untilMs = clock.monotonicMs() + (tcpGate === undefined ? 0 : MAKE_ROOM_MS);
    let failures = await this.#openBatches(bindings, onOpen);
    while (failures.some(isInUse) && clock.monotonicMs() < untilMs && !this.#closed) {
      await new Promise<void>((resolve) => clock.setTimer(AGAIN_MS, resolve));
      const again = failures.filter(isInUse).map(({ binding }) => binding);
      const lasting = failures.filter((failure) => !isInUse(failure));
      failures = [...lasting, ...(await this.#openBatches(again, onOpen))];
    }
    return failures;
  }

  async #openOne(binding: ListenerBinding, onOpen: OnOpen): Promise<Unopened | undefined> {
    const { factories, handover, tcpGate } = this.#deps;
    const { protocol, address, port } = binding;
    if (protocol === 'tcp' && tcpGate !== undefined) {
      const refusal = await tcpGate.claim(address.text, port);
      if (refusal !== undefined) return { binding, code: refusal };
      this.#claims.add(binding);
    }
    try {
      const listener = await factories[protocol].open(binding, handover.take(binding));
      if (this.#closed) {
        listener.destroy();
        this.#release(binding);
      } else onOpen(listener);
      return undefined;
    } catch (error) {
      this.#release(binding);
      return { binding, code: errorCode(error) ?? errorMessage(error) };
    }
  }

  #close(listener: Listener): void {
    this.#census = undefined;
    if (this.#open.get(listener.binding) === listener) this.#open.delete(listener.binding);
    listener.close();
    this.#release(listener.binding);
  }

  /** Its listening socket is closed. */
  #release(binding: ListenerBinding): void {
    if (this.#claims.delete(binding)) this.#deps.tcpGate?.release(binding.address.text, binding.port);
  }

  /** Undefined where the configuration would fit once the present one has gone. */
  #advice(configuration: Configuration): string | undefined {
    const { share, workers, descriptorLimit: limit } = this.#options;
    const { capture, tcpPorts = 'shared' } = share;
    const request = { configuration, workers, limit, ownAddresses: this.#deps.ownAddresses, capture };
    const { shortage } = socketBudget({ ...request, tcpPorts });
    if (shortage === undefined) return undefined;
    const isOtherForm = workers > 1 && tcpPorts !== socketBudget(request).tcpPorts;
    const help = shortageAdvice(shortage);
    return isOtherForm ? `${help}; a restart or upgrade would give each TCP port to one worker` : help;
  }
}

function backendsOf({ backendPools }: Configuration): readonly IpAddress[] {
  return backendPools
    .flatMap(({ backends }) => backends.map(({ address }) => address))
    .slice(0, MOST_ROUTES_ASKED);
}

function failureOf({ binding, code }: Unopened): ListenFailure {
  const { slot, protocol, address, port } = binding;
  return { rule: slot.rule.name, protocol, address: address.text, port, errorCode: code };
}

function isShort({ code }: Unopened): boolean {
  return code === 'EMFILE';
}

function isInUse({ code }: Unopened): boolean {
  return code === 'EADDRINUSE';
}

function* batchesOf(bindings: readonly ListenerBinding[]): Generator<readonly ListenerBinding[]> {
  for (let start = 0; start < bindings.length; start += OPEN_BATCH) {
    yield bindings.slice(start, start + OPEN_BATCH);
  }
}

/** Names of those that a socket serves: a captured TCP socket serves all of its family. */
function frontendsOf({ captured, slot, address }: ListenerBinding): readonly string[] {
  if (captured?.protocol !== 'tcp') return [slot.rule.frontend.name];
  return captured.frontends.all
    .filter(({ frontend }) => frontend.address.family === address.family)
    .map(({ frontend }) => frontend.name);
}
