import { isWildcard, type IpAddress, type Protocol } from '../../model/address.js';
import type { Configuration, Frontend } from '../../model/configuration.js';
import { errorCode, errorMessage } from '../../model/errors.js';
import { portSetContains, type PortSet } from '../../model/ports.js';
import type { Clock } from '../../runtime/clock.js';
import {
  cannotAdd,
  type ApplyReport,
  type ListenFailure,
  type PlaneCounters,
  type PortGate,
} from '../contract.js';
import type { EventQueue } from './flow-manager.js';
import {
  isPlanned,
  ownFailures,
  planListeners,
  plannedBinding,
  plannedUdpPorts,
  socketGroup,
  type ListenerPlan,
  type PlanShare,
} from './listen-plan.js';
import type { Listener, ListenerBinding, ListenerFactory } from './listener.js';
import { mostListeners, shortageAdvice, socketBudget } from './node-handles.js';

export interface ListeningDeps {
  readonly clock: Clock;
  readonly events: EventQueue;
  readonly listeners: ListenerSet;
  /** The machine's own addresses of a family. */
  readonly ownAddresses: (family: 4 | 6) => readonly IpAddress[];
  /** Finds out which local addresses lead there, while there are ports left to ask with. Never rejects. */
  readonly learnRoutes: (destinations: readonly IpAddress[]) => Promise<void>;
  /** Runs work when no other change of what is listened on is under way. */
  readonly inTurn: (work: () => Promise<void>) => Promise<void>;
}

export interface ListeningOptions {
  readonly share: PlanShare;
  readonly workers: number;
  /** Descriptors that this process may have open. @default no limit */
  readonly descriptorLimit?: number | undefined;
}

/** No permission, no descriptors: trying again changes nothing. */
const LASTING_FAILURES: ReadonlySet<string> = new Set(['EACCES', 'EMFILE']);

/** One takes a socket, open for some 50 us. */
const MOST_ROUTES_ASKED = 1024;

/** How often ports that could not be bound are tried again. */
const RETRY_LISTEN_MS = 10_000;

/** What a worker listens on, configuration after configuration, and what it cannot listen on. */
export class Listening {
  readonly #deps: ListeningDeps;
  readonly #options: ListeningOptions;
  #plan: ListenerPlan = new Map();
  /** Of the plan, also those that another worker reports. */
  #failures: readonly ListenFailure[] = [];
  /** As the configuration before was left: to go back to it must not fail for what was missing then already. */
  #formerFailures: readonly ListenFailure[] = [];
  #prepared: { readonly digest: string; readonly plan: ListenerPlan } | undefined;
  /** By address, of all workers together. */
  #udpPorts: ReadonlyMap<string, PortSet> = new Map();
  #configuration: Configuration | undefined;
  #closed = false;
  #cancelRetry: () => void = () => undefined;

  constructor(deps: ListeningDeps, options: ListeningOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Opens what the configuration adds to the present one, without serving anybody there yet. Rejects, and nothing has
   * changed, where that fails. Doing it again changes nothing; preparing another undoes it.
   */
  async prepare(configuration: Configuration): Promise<void> {
    const { digest } = configuration;
    if (this.#prepared?.digest === digest) return;
    const plan = this.#planOf(configuration);
    this.#prepared = { digest, plan };
    await this.#deps.learnRoutes(backendsOf(configuration));
    const wasMissing = new Set(this.#formerFailures.map(endOf));
    const failures = await this.#deps.listeners.prepare(plan, (binding) =>
      wasMissing.has(endOf({ ...binding, address: binding.address.text })),
    );
    this.#check(failures, configuration);
  }

  /** The last step that can fail, see ListenerSet.handOver: to be followed by `adopt` at once. */
  async handOver(): Promise<void> {
    const failures = await this.#deps.listeners.handOver();
    // What was closed for it and could not be opened again is missing now.
    if (failures.length > 0) await this.follow();
    this.#check(failures);
  }

  abandon(): void {
    this.#prepared = undefined;
    this.#deps.listeners.abandon();
  }

  /** Listeners that stay serve this configuration from now on. */
  adopt(configuration: Configuration): void {
    const { digest, plan } = this.#prepared ?? {};
    this.#prepared = undefined;
    this.#formerFailures = this.#failures;
    this.#setPlan(configuration, digest === configuration.digest ? plan : undefined);
    this.#deps.listeners.rebind(this.#plan);
  }

  /** Closes what the adopted configuration does not have, opens and serves all of what it has that can be. */
  async follow(): Promise<void> {
    if (this.#configuration !== undefined) await this.#deps.learnRoutes(backendsOf(this.#configuration));
    this.#failures = await this.#deps.listeners.apply(this.#plan);
    this.#retry();
  }

  /** Takes no new flows any more. */
  close(): void {
    this.#closed = true;
    this.#cancelRetry();
    this.#prepared = undefined;
    this.#deps.listeners.close();
  }

  destroy(): void {
    this.close();
    this.#deps.listeners.destroy();
  }

  /** What is open and serves. */
  listeners(): readonly Listener[] {
    return this.#deps.listeners.all();
  }

  report(revision: number): ApplyReport {
    const { listeners } = this.#deps;
    return {
      revision,
      listeners: { tcp: listeners.count('tcp'), udp: listeners.count('udp') },
      failures: ownFailures(this.#plan, this.#failures),
    };
  }

  census(): PlaneCounters['listeners'] {
    return this.#deps.listeners.census();
  }

  /** Whether some worker listens on this UDP endpoint. One alone knows all UDP sockets as its own. */
  isUdpElsewhere(address: string, port: number): boolean {
    return portSetContains(this.#udpPorts.get(address) ?? [], port);
  }

  #setPlan(configuration: Configuration, plan = this.#planOf(configuration)): void {
    this.#configuration = configuration;
    this.#plan = plan;
    if (this.#options.workers > 1) {
      this.#udpPorts = plannedUdpPorts(configuration, this.#deps.ownAddresses);
    }
  }

  #planOf(configuration: Configuration): ListenerPlan {
    return planListeners(configuration, this.#deps.ownAddresses, this.#options.share);
  }

  #check(failures: readonly ListenFailure[], configuration?: Configuration): void {
    if (failures.length === 0) return;
    this.#prepared = undefined;
    const isShort = failures.some(({ errorCode }) => errorCode === 'EMFILE');
    throw cannotAdd(failures, isShort ? this.#advice(configuration) : undefined);
  }

  /** Undefined where the configuration would fit once the present one has gone. */
  #advice(configuration: Configuration | undefined): string | undefined {
    if (configuration === undefined) return undefined;
    const { share, workers, descriptorLimit: limit } = this.#options;
    const { capture, tcpPorts } = share;
    const { ownAddresses } = this.#deps;
    const request = { configuration, workers, limit, ownAddresses, ...(capture && { capture }) };
    const { shortage } = socketBudget({ ...request, tcpPorts: tcpPorts ?? 'shared' });
    if (shortage === undefined) return undefined;
    const isOtherForm = workers > 1 && tcpPorts !== socketBudget(request).tcpPorts;
    const help = shortageAdvice(shortage);
    return isOtherForm ? `${help}; a restart or upgrade would give each TCP port to one worker` : help;
  }

  /** An address may arrive later (VRRP) and a port may be freed; a missing permission stays missing. */
  #retry(): void {
    this.#cancelRetry();
    if (this.#closed || this.#failures.every(({ errorCode }) => LASTING_FAILURES.has(errorCode))) return;
    this.#cancelRetry = this.#deps.clock.setTimer(RETRY_LISTEN_MS, () => {
      void this.#deps.inTurn(() => this.#followAgain());
    });
  }

  async #followAgain(): Promise<void> {
    const configuration = this.#configuration;
    if (this.#closed || configuration === undefined) return;
    // What is prepared must not be served yet.
    if (this.#prepared !== undefined) {
      this.#retry();
      return;
    }
    const failuresBefore = ownFailures(this.#plan, this.#failures).length;
    this.#setPlan(configuration);
    await this.follow();
    const { listeners, failures } = this.report(0);
    if (failures.length === failuresBefore) return;
    const { clock, events } = this.#deps;
    events.push({
      type: 'listening-changed',
      atMs: clock.wallMs(),
      worker: this.#options.share.worker,
      listeners,
      failures: failures.length,
    });
  }
}

/** The first of them: far more than there are routes. */
function backendsOf({ backendPools }: Configuration): readonly IpAddress[] {
  return backendPools
    .flatMap(({ backends }) => backends.map(({ address }) => address))
    .slice(0, MOST_ROUTES_ASKED);
}

function endOf({ protocol, address, port }: Pick<ListenFailure, 'protocol' | 'address' | 'port'>): string {
  return `${protocol} ${address} ${port}`;
}

export interface ListenerSetDeps {
  readonly clock: Clock;
  readonly factories: Readonly<Record<Protocol, ListenerFactory>>;
}

export interface ListenerSetOptions {
  /** Files and sockets this process may have open. @default no limit */
  readonly descriptorLimit?: number;
  /** How long others that share sockets with this process may take to close one that goes everywhere. @default 0 */
  readonly handOverMs?: number;
}

/** What is open for a plan that has not been applied yet. */
interface Prepared {
  readonly plan: ListenerPlan;
  readonly listeners: OpenListeners;
  /** Only own listeners that go are in their way. */
  obstructed: readonly ListenerBinding[];
}

/** All listening sockets of a worker, kept equal to a plan. Sockets that stay are never closed. */
export class ListenerSet {
  readonly #opening: ListenerOpening;
  readonly #most: number;
  readonly #handOverMs: number;
  readonly #open = new OpenListeners();
  #plan: ListenerPlan = new Map();
  #prepared: Prepared | undefined;

  constructor(
    { clock, factories }: ListenerSetDeps,
    { descriptorLimit, handOverMs = 0 }: ListenerSetOptions = {},
  ) {
    this.#opening = new ListenerOpening(factories, clock);
    this.#most = mostListeners(descriptorLimit);
    this.#handOverMs = handOverMs;
  }

  /** Hands listeners that stay their new rule, closes those that go, opens what is missing. What can be is prepared. */
  async apply(plan: ListenerPlan): Promise<readonly ListenFailure[]> {
    this.#plan = plan;
    const prepared = [...(this.#prepared?.listeners.all() ?? [])];
    this.#prepared = undefined;
    for (const listener of prepared) this.#open.add(listener);
    this.rebind(plan);
    for (const listener of prepared) listener.serve();
    for (const [listener, wanted] of this.#open.against(plan)) {
      if (wanted === undefined) this.#close(listener);
    }
    return this.#openAll(this.#open.missing(plan), (listener) => {
      this.#open.add(listener);
      listener.serve();
    });
  }

  /**
   * Opens what a plan adds to the present one, all of it or nothing, and serves nobody there before the plan is
   * applied. What the present plan wanted in vain, or what is excused, it leaves to apply. Resolves with what is in the
   * way.
   */
  async prepare(
    plan: ListenerPlan,
    isExcused: (binding: ListenerBinding) => boolean = () => false,
  ): Promise<readonly ListenFailure[]> {
    this.abandon();
    const prepared: Prepared = { plan, listeners: new OpenListeners(), obstructed: [] };
    this.#prepared = prepared;
    const added = this.#open
      .missing(plan)
      .filter((binding) => !isPlanned(this.#plan, binding) && !isExcused(binding));
    // Known beforehand: thousands of sockets would be opened only to be closed again.
    const beyond = this.#takeBeyond(added);
    const failures =
      beyond.length > 0
        ? beyond.map(beyondLimit)
        : await this.#opening.open(added, (listener) => prepared.listeners.add(listener));
    const isObstructed = (failure: ListenFailure): boolean => {
      const binding = isInUse(failure) ? plannedBinding(plan, failure) : undefined;
      return binding !== undefined && this.#open.obstructing(binding, plan).length > 0;
    };
    const lasting = failures.filter((failure) => !isObstructed(failure));
    if (lasting.length > 0) this.abandon();
    else prepared.obstructed = failures.flatMap((failure) => plannedBinding(plan, failure) ?? []);
    return lasting;
  }

  /**
   * Opens what was prepared but for own listeners in its way (of a wildcard address where now a single one is served,
   * or the other way round), closing those first: nobody is served there in between. All or nothing, as prepare.
   */
  async handOver(): Promise<readonly ListenFailure[]> {
    const prepared = this.#prepared;
    if (prepared === undefined) return [];
    const closed: ListenerBinding[] = [];
    for (const batch of batchesOf(prepared.obstructed)) {
      const inTheWay = new Set(batch.flatMap((one) => this.#open.obstructing(one, prepared.plan)));
      for (const listener of inTheWay) {
        closed.push(listener.binding);
        this.#close(listener);
      }
      const failures = await this.#opening.openPatiently(batch, this.#handOverMs, (listener) =>
        prepared.listeners.add(listener),
      );
      if (failures.length === 0) continue;
      this.abandon();
      await this.#opening.openPatiently(closed, this.#handOverMs, (listener) => {
        this.#open.add(listener);
        listener.serve();
      });
      return failures;
    }
    prepared.obstructed = [];
    return [];
  }

  /** Closes what was prepared and not applied. */
  abandon(): void {
    const listeners = this.#prepared?.listeners;
    this.#prepared = undefined;
    for (const listener of listeners?.all() ?? []) listener.close();
  }

  /** Only hands listeners that stay their new rule: synchronous, so that no flow meets a stale one. */
  rebind(plan: ListenerPlan): void {
    for (const [{ binding }, wanted] of this.#open.against(plan)) {
      if (wanted === undefined) continue;
      binding.rule = wanted.rule;
      binding.ruleIndex = wanted.ruleIndex;
      binding.frontend = wanted.frontend;
      if (wanted.captured !== undefined) binding.captured = wanted.captured;
    }
  }

  /** Takes no new flows on any socket, for good: what is just being opened is closed again. */
  close(): void {
    this.#opening.end();
    this.abandon();
    for (const listener of this.#open.all()) listener.close();
  }

  destroy(): void {
    this.#opening.end();
    this.abandon();
    for (const listener of this.#open.all()) listener.destroy();
    this.#open.clear();
  }

  all(): readonly Listener[] {
    return [...this.#open.all()];
  }

  /** Sockets open that this worker tells of. */
  count(protocol: Protocol): number {
    let count = 0;
    for (const { binding } of this.#open.all()) {
      if (binding.protocol === protocol && binding.reportedElsewhere !== true) count++;
    }
    return count;
  }

  /** By frontend name, sockets that this worker tells of. */
  census(): Record<string, { open: number; wanted: number }> {
    const census = new Map<string, { open: number; wanted: number }>();
    for (const [key, group] of this.#plan) {
      const open = this.#open.group(key);
      for (const [port, binding] of group) {
        if (binding.reportedElsewhere === true) continue;
        for (const { name } of frontendsOf(binding)) {
          const entry = census.get(name) ?? { open: 0, wanted: 0 };
          census.set(name, entry);
          entry.wanted++;
          if (open?.has(port) === true) entry.open++;
        }
      }
    }
    return Object.fromEntries(census);
  }

  async #openAll(
    missing: ListenerBinding[],
    onOpen: (listener: Listener) => void,
  ): Promise<readonly ListenFailure[]> {
    const failures: ListenFailure[] = [];
    let wanted = missing;
    for (;;) {
      const beyond = this.#takeBeyond(wanted);
      const failed = await this.#opening.open(wanted, onOpen);
      for (const failure of failed) failures.push(failure);
      // What could not be bound leaves its place to the next port; a real want of descriptors leaves none.
      if (beyond.length === 0 || failed.length === 0 || failed.some(isShort))
        return [...beyond.map(beyondLimit), ...failures];
      wanted = beyond;
    }
  }

  /** Takes away, and gives back, what the limit leaves no room for. */
  #takeBeyond(missing: ListenerBinding[]): ListenerBinding[] {
    // Low ports first, each over both protocols: what is beyond the limit is missing for both.
    missing.sort((a, b) => a.port - b.port);
    const room = Math.max(0, this.#most - this.#open.size - (this.#prepared?.listeners.size ?? 0));
    return missing.splice(room);
  }

  #close(listener: Listener): void {
    this.#open.delete(listener);
    listener.close();
  }
}

function beyondLimit(binding: ListenerBinding): ListenFailure {
  return failureOf(binding, 'EMFILE');
}

function isShort({ errorCode }: ListenFailure): boolean {
  return errorCode === 'EMFILE';
}

/** Those that a socket serves: a captured TCP socket serves all of its family. */
function frontendsOf({ captured, frontend, address }: ListenerBinding): readonly Frontend[] {
  if (captured?.protocol !== 'tcp') return [frontend];
  return captured.ends
    .all()
    .map((ports) => ports.frontend)
    .filter((served) => served.address.family === address.family);
}

/** Sockets bound at a time; enough to be quick, few enough to keep the event loop turning. */
const OPEN_BATCH = 256;

/** How often a socket that was just closed, here or in another worker, is tried again. */
const AGAIN_MS = 20;

export interface Opened {
  readonly listeners: readonly Listener[];
  readonly failures: readonly ListenFailure[];
}

/** Opens sockets in batches, in the order given, until it is told to end. */
export class ListenerOpening {
  readonly #factories: Readonly<Record<Protocol, ListenerFactory>>;
  readonly #clock: Clock;
  #ended = false;

  constructor(factories: Readonly<Record<Protocol, ListenerFactory>>, clock: Clock) {
    this.#factories = factories;
    this.#clock = clock;
  }

  /** For good: what is just being opened is closed again, and is no failure. */
  end(): void {
    this.#ended = true;
  }

  /** `onOpen` is called as soon as one is open. */
  async open(
    bindings: readonly ListenerBinding[],
    onOpen: (listener: Listener) => void,
  ): Promise<readonly ListenFailure[]> {
    const failures: ListenFailure[] = [];
    for (const batch of batchesOf(bindings)) {
      if (this.#ended) break;
      const outcomes = await Promise.all(batch.map((binding) => this.#openOne(binding, onOpen)));
      for (const failure of outcomes) if (failure !== undefined) failures.push(failure);
    }
    return failures;
  }

  /** As open; what is in use by somebody is tried again for so long. */
  async openPatiently(
    bindings: readonly ListenerBinding[],
    patienceMs: number,
    onOpen: (listener: Listener) => void,
  ): Promise<readonly ListenFailure[]> {
    const untilMs = this.#clock.monotonicMs() + patienceMs;
    let failures = await this.open(bindings, onOpen);
    while (failures.some(isInUse) && this.#clock.monotonicMs() < untilMs && !this.#ended) {
      await new Promise<void>((resolve) => this.#clock.setTimer(AGAIN_MS, resolve));
      const again = bindings.filter((binding) =>
        failures.some((failure) => isInUse(failure) && isOf(failure, binding)),
      );
      const lasting = failures.filter((failure) => !isInUse(failure));
      failures = [...lasting, ...(await this.open(again, onOpen))];
    }
    return failures;
  }

  async #openOne(
    binding: ListenerBinding,
    onOpen: (listener: Listener) => void,
  ): Promise<ListenFailure | undefined> {
    try {
      const listener = await this.#factories[binding.protocol].open(binding);
      if (this.#ended) listener.destroy();
      else onOpen(listener);
      return undefined;
    } catch (error) {
      return failureOf(binding, errorCode(error) ?? errorMessage(error));
    }
  }
}

export function failureOf({ rule, protocol, address, port }: ListenerBinding, code: string): ListenFailure {
  return { rule: rule.name, protocol, address: address.text, port, errorCode: code };
}

export function isInUse({ errorCode: code }: ListenFailure): boolean {
  return code === 'EADDRINUSE';
}

/** In slices of OPEN_BATCH. */
export function* batchesOf(bindings: readonly ListenerBinding[]): Generator<readonly ListenerBinding[]> {
  for (let start = 0; start < bindings.length; start += OPEN_BATCH) {
    yield bindings.slice(start, start + OPEN_BATCH);
  }
}

function isOf(failure: ListenFailure, { protocol, address, port }: ListenerBinding): boolean {
  return failure.protocol === protocol && failure.port === port && failure.address === address.text;
}

/** Listeners that are open, by where they listen. */
export class OpenListeners {
  readonly #groups = new Map<string, Map<number, Listener>>();

  get size(): number {
    let size = 0;
    for (const group of this.#groups.values()) size += group.size;
    return size;
  }

  /** By port, those of one group of a plan. */
  group(key: string): ReadonlyMap<number, Listener> | undefined {
    return this.#groups.get(key);
  }

  /** Each with what the plan wants there, or undefined. Listeners may be closed and deleted on the way. */
  *against(plan: ListenerPlan): Generator<readonly [Listener, ListenerBinding | undefined]> {
    for (const [key, group] of this.#groups) {
      const wanted = plan.get(key);
      for (const [port, listener] of group) yield [listener, wanted?.get(port)];
    }
  }

  add(listener: Listener): void {
    const { protocol, address, port } = listener.binding;
    const key = socketGroup(protocol, address);
    const group = this.#groups.get(key) ?? new Map<number, Listener>();
    this.#groups.set(key, group);
    group.set(port, listener);
  }

  delete({ binding: { protocol, address, port } }: Listener): void {
    this.#groups.get(socketGroup(protocol, address))?.delete(port);
  }

  clear(): void {
    this.#groups.clear();
  }

  *all(): Generator<Listener> {
    for (const group of this.#groups.values()) yield* group.values();
  }

  /** What the plan has and is not open. */
  missing(plan: ListenerPlan): ListenerBinding[] {
    const missing: ListenerBinding[] = [];
    for (const [key, group] of plan) {
      const open = this.#groups.get(key);
      for (const [port, binding] of group) if (open?.has(port) !== true) missing.push(binding);
    }
    return missing;
  }

  /** Those that are in the way of a binding, one of them or it being on all addresses, but are not in the plan. */
  obstructing({ protocol, address, port }: ListenerBinding, plan: ListenerPlan): readonly Listener[] {
    const found: Listener[] = [];
    for (const group of this.#groups.values()) {
      const listener = group.get(port);
      if (listener === undefined || isPlanned(plan, listener.binding)) continue;
      const { protocol: ownProtocol, address: ownAddress } = listener.binding;
      if (ownProtocol !== protocol || ownAddress.family !== address.family) continue;
      if (isWildcard(address) || isWildcard(ownAddress)) found.push(listener);
    }
    return found;
  }
}

/** A factory that asks the gate before it opens a socket, and tells it when the socket is closed. */
export function gatedListeners(factory: ListenerFactory, gate: PortGate): ListenerFactory {
  return {
    async open(binding) {
      const { address, port } = binding;
      const refusal = await gate.claim(address.text, port);
      if (refusal !== undefined) {
        throw Object.assign(new Error(`Cannot listen on ${address.text} port ${port}`), { code: refusal });
      }
      try {
        return new GatedListener(await factory.open(binding), gate);
      } catch (error) {
        gate.release(address.text, port);
        throw error;
      }
    },
  };
}

class GatedListener implements Listener {
  readonly #listener: Listener;
  readonly #gate: PortGate;
  #claimed = true;

  constructor(listener: Listener, gate: PortGate) {
    this.#listener = listener;
    this.#gate = gate;
  }

  get binding(): ListenerBinding {
    return this.#listener.binding;
  }

  serve(): void {
    this.#listener.serve();
  }

  close(): void {
    this.#listener.close();
    this.#release();
  }

  destroy(): void {
    this.#listener.destroy();
    this.#release();
  }

  rawHandle(): object | undefined {
    return this.#listener.rawHandle?.();
  }

  #release(): void {
    if (!this.#claimed) return;
    this.#claimed = false;
    this.#gate.release(this.binding.address.text, this.binding.port);
  }
}
