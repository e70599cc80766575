import type { CapturePlan } from '../../model/capture.js';
import type { Configuration } from '../../model/configuration.js';
import { BalancerError, errorMessage } from '../../model/errors.js';
import type { KernelChanged, PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { KernelReport } from '../../model/kernel-report.js';
import type { Clock } from '../../runtime/clock.js';
import {
  cannotAdd,
  listenFailed,
  type ApplyReport,
  type FlowPage,
  type FlowQuery,
  type HandOverPlane,
  type ListenFailure,
  type ListeningSocket,
  type PlaneCounters,
  type StopReport,
  type UdpFlowState,
  type UdpStop,
} from '../contract.js';
import { replaceTableText, routingText, type KernelSetup } from '../netfilter/setup.js';
import { sameEntry } from '../netfilter/routing.js';
import { captureInputs, wantsPort, type CaptureInputs, type PortInUse } from './ports-in-use.js';
import { captureSetup } from './table.js';

/** As the userspace plane tries again what it could not bind. */
const RETRY_TAKEN_MS = 10_000;

/** Told by the keeper of a setup when it has done something to the kernel, or could not. */
export type OnKernelChange = (change: KernelChanged['change'], evidence?: string) => void;

/** Held while the instance has something in the kernel. */
export interface NameLock {
  /** Rejects with `LB_INSTANCE_RUNNING` where another process has it. */
  take(): Promise<void>;
  takeWhenFree(): void;
  release(): void;
}

export interface CapturedPlaneDeps {
  readonly clock: Clock;
  /** Serves what is steered to it; has the same plan. Owned. */
  readonly inner: HandOverPlane;
  readonly createKeeper: (onChange: OnKernelChange) => SetupKeeper;
  readonly lock: NameLock;
  readonly portsInUse: () => Promise<readonly PortInUse[]>;
  readonly ownSockets: () => Promise<ReadonlySet<string>>;
}

export interface CapturedPlaneOptions {
  readonly plan: CapturePlan;
  /** Data workers. */
  readonly workers: number;
}

/**
 * A data plane whose ports the kernel steers to a few sockets. The inner plane has the sockets and the flows; this one
 * keeps the kernel in step with it, and what is steered with what is served.
 *
 * Routes and addresses come before the sockets that need them. What is steered comes before a start's sockets, since
 * nobody serves then, and after those of an apply or of a start in the place of another process. On a stop it goes last: new flows are refused as soon as the
 * sockets are closed, and those that there are need the routes, and with tproxy the table, until they end.
 */
export class CapturedPlane implements HandOverPlane {
  readonly #deps: CapturedPlaneDeps;
  readonly #options: CapturedPlaneOptions;
  readonly #keeper: SetupKeeper;
  readonly #steering: Steering;
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  #state: ForwardingState | undefined;
  #inherits = false;
  /** Whether what is in the kernel under the instance's name is this process's to take away. */
  #owns = false;
  #stopped: Promise<StopReport> | undefined;
  #cancelRetry: () => void = () => undefined;
  /** Start, applies and what is tried again run one after another. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(deps: CapturedPlaneDeps, options: CapturedPlaneOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#keeper = deps.createKeeper((change, evidence) => this.#changed(change, evidence));
    this.#steering = new Steering({ ...deps, keeper: this.#keeper }, options.plan);
  }

  /** Rejects, with nothing left in the kernel, with `LB_INSTANCE_RUNNING`, `LB_LISTEN_FAILED` or `LB_KERNEL_...`. */
  start(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(() => (this.#inherits ? this.#startInPlace(state) : this.#startAnew(state)));
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      const { inner } = this.#deps;
      const before = this.#state;
      const isKnown = before?.configuration.digest === state.configuration.digest;
      if (isKnown || before === undefined || this.#stopped !== undefined) {
        const report = await inner.apply(state);
        this.#state = state;
        return this.#whole(report);
      }
      const wanted = await this.#steering.look(state.configuration);
      assertAddable(wanted, before.configuration);
      await this.#steering.check(wanted);
      await this.#steering.prepare(wanted);
      const report = await inner.apply(state);
      try {
        await this.#steering.install(wanted);
      } catch (error) {
        await inner.apply(before).catch(() => undefined);
        throw error;
      }
      this.#state = state;
      return this.#whole(report);
    });
  }

  flows(query: FlowQuery): Promise<FlowPage> {
    return this.#deps.inner.flows(query);
  }

  /** A frontend to which nothing is steered has no open listener, whatever sockets there are. */
  async counters(): Promise<PlaneCounters> {
    const counters = await this.#deps.inner.counters();
    if (this.#keeper.report().state === 'in-place') return counters;
    const listeners = Object.entries(counters.listeners).map(
      ([name, { wanted }]) => [name, { open: 0, wanted }] as const,
    );
    return { ...counters, listeners: Object.fromEntries(listeners) };
  }

  answer(): Promise<void> {
    return this.#deps.inner.answer();
  }

  flowCount(): number {
    return this.#deps.inner.flowCount();
  }

  kernelReport(): KernelReport {
    const mode = `capture dnat-map, udp ${this.#options.plan.udp}`;
    return { ...this.#keeper.report(), mode, why: 'The configuration asks for capture' };
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    const unsubscribe = this.#deps.inner.subscribe(listener);
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
      unsubscribe();
    };
  }

  /** With `udp: 'at-once'` a successor serves on by what is in the kernel, so it stays. */
  stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    this.#cancelRetry();
    const inner = this.#deps.inner.stop(deadlineMs, udp);
    if (udp === 'at-once' && this.#stopped === undefined) {
      this.#owns = false;
      void this.#takeAway();
      this.#stopped = inner;
    }
    this.#stopped ??= this.#end(inner);
    return this.#stopped;
  }

  whyNoHandOver(): string | undefined {
    if (this.#options.workers <= 1) return undefined;
    return 'Capture with several workers cannot be handed over to another process: restart this one, or use one worker';
  }

  async lend(onSocket: (socket: ListeningSocket) => void): Promise<void> {
    const why = this.whyNoHandOver();
    if (why !== undefined) throw new BalancerError(why, { code: 'LB_RESTART_NEEDED', source: 'usage' });
    await this.#deps.inner.lend(onSocket);
  }

  /** From here on the successor writes to the kernel. */
  freezeUdp(): Promise<readonly UdpFlowState[]> {
    return this.#inTurn(async () => {
      await this.#steering.pause();
      return this.#deps.inner.freezeUdp();
    });
  }

  thawUdp(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#deps.inner.thawUdp();
      // What fails was told by the keeper, and is tried again.
      if (this.#stopped === undefined) await this.#steering.resume().catch(() => undefined);
    });
  }

  inherit(sockets: readonly ListeningSocket[]): Promise<void> {
    this.#inherits = true;
    return this.#deps.inner.inherit(sockets);
  }

  inheritFlows(flows: readonly UdpFlowState[]): void {
    this.#deps.inner.inheritFlows(flows);
  }

  async #startAnew(state: ForwardingState): Promise<ApplyReport> {
    const { inner, lock } = this.#deps;
    await lock.take();
    this.#owns = true;
    try {
      const wanted = await this.#steering.look(state.configuration);
      if (wanted.isEmpty && wanted.failures.length > 0) throw listenFailed(wanted.failures);
      await this.#steering.install(wanted);
      const report = await inner.start(state);
      this.#state = state;
      return this.#whole(report);
    } catch (error) {
      await inner.stop(0).catch(() => undefined);
      await this.#takeAway();
      throw error;
    }
  }

  /** What the process before has put in the kernel serves until this one's is there, which may take a second. */
  async #startInPlace(state: ForwardingState): Promise<ApplyReport> {
    const { inner, lock } = this.#deps;
    const report = await inner.start(state);
    lock.takeWhenFree();
    this.#owns = true;
    this.#state = state;
    void this.#retry();
    return report;
  }

  async #end(inner: Promise<StopReport>): Promise<StopReport> {
    try {
      return await inner;
    } finally {
      // An apply that is under way must not put it back.
      await this.#queue;
      await this.#takeAway();
    }
  }

  /** Idempotent. What another process serves by is left to it. */
  async #takeAway(): Promise<void> {
    // The keeper has told what it could not take away.
    if (this.#owns) await this.#keeper.remove().catch(() => undefined);
    else await this.#keeper.letGo();
    this.#owns = false;
    this.#deps.lock.release();
  }

  #whole(report: ApplyReport): ApplyReport {
    const { failures } = this.#steering;
    this.#retryLater();
    return failures.length === 0 ? report : { ...report, failures: [...report.failures, ...failures] };
  }

  #retryLater(): void {
    this.#cancelRetry();
    const isDone = this.#steering.isInstalled && this.#steering.failures.length === 0;
    if (isDone || this.#stopped !== undefined) return;
    this.#cancelRetry = this.#deps.clock.setTimer(RETRY_TAKEN_MS, () => void this.#retry());
  }

  /** Ports that others have may be free by now, and what could not be installed may be possible. */
  async #retry(): Promise<void> {
    await this.#inTurn(async () => {
      const state = this.#state;
      if (state === undefined || this.#stopped !== undefined) return;
      await this.#steering.refresh(state.configuration).catch((error: unknown) => {
        this.#changed('failed', errorMessage(error));
      });
      this.#retryLater();
    });
  }

  #changed(change: KernelChanged['change'], evidence: string | undefined): void {
    const event: KernelChanged = {
      ...{ type: 'kernel-changed', atMs: this.#deps.clock.wallMs(), change, report: this.kernelReport() },
      ...(evidence === undefined ? {} : { evidence }),
    };
    for (const listener of this.#listeners) listener([event]);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(work);
    this.#queue = turn.catch(() => undefined);
    return turn;
  }
}

/** As when binding: what was missing before may stay missing. */
function assertAddable({ failures }: Wanted, before: Configuration): void {
  const added = failures.filter((failure) => !wantsPort(before, failure));
  if (added.length > 0) throw cannotAdd(added);
}

/** What a plane is told of what it keeps in the kernel; the rest of a KernelReport is its own. */
export type KernelStanding = Omit<KernelReport, 'mode' | 'why'>;

/** Keeps one setup in the kernel: the Reconciler, or a test's. */
export interface SetupKeeper {
  /** Rejects with a BalancerError where the kernel would refuse it. */
  check(setup: KernelSetup): Promise<void>;
  /** Whole or not at all; keeps it there from then on. What the instance has left there before goes. */
  install(setup: KernelSetup): Promise<void>;
  /** Takes everything out of the kernel, and stops. */
  remove(): Promise<void>;
  /** Stops, and leaves everything where it is. `install` begins anew. */
  letGo(): Promise<void>;
  report(): KernelStanding;
}

export interface SteeringDeps {
  readonly keeper: SetupKeeper;
  /** See runtime/listening-ports.ts. */
  readonly portsInUse: () => Promise<readonly PortInUse[]>;
  /** Inodes of the sockets of this process and its workers. */
  readonly ownSockets: () => Promise<ReadonlySet<string>>;
}

/** What is to be steered for a configuration, as the machine is now. */
export interface Wanted {
  readonly setup: KernelSetup;
  /** Ports that are not in it, since others have them. */
  readonly failures: readonly ListenFailure[];
  /** Whether no port at all is in it. */
  readonly isEmpty: boolean;
}

/**
 * Brings the frontends of configurations into the kernel, one after another. Routes and addresses only ever come: flows
 * of a frontend that is gone may go on over them. Calls must not overlap.
 */
export class Steering {
  readonly #deps: SteeringDeps;
  readonly #plan: CapturePlan;
  /** Inodes of sockets that are known to be of others. */
  #others: ReadonlySet<string> = new Set();
  #installed: Wanted | undefined;

  constructor(deps: SteeringDeps, plan: CapturePlan) {
    this.#deps = deps;
    this.#plan = plan;
  }

  /** Ports that others have, as when last installed. */
  get failures(): readonly ListenFailure[] {
    return this.#installed?.failures ?? [];
  }

  get isInstalled(): boolean {
    return this.#installed !== undefined;
  }

  /** What the configuration needs. */
  async look(configuration: Configuration): Promise<Wanted> {
    const { input, failures } = await this.#inputs(configuration);
    const isEmpty = input.frontends.every(
      ({ tcpPorts, udpPorts }) => tcpPorts.length + udpPorts.length === 0,
    );
    return { setup: captureSetup(input), failures, isEmpty };
  }

  /** Rejects with a BalancerError where the kernel would refuse it. Changes nothing. */
  async check({ setup }: Wanted): Promise<void> {
    await this.#deps.keeper.check(setup);
  }

  /** Makes the sockets of the data plane possible that it will have; what is steered stays as it is. */
  async prepare({ setup }: Wanted): Promise<void> {
    const present = this.#installed;
    if (present === undefined || setup.routing.every((entry) => hasEntry(present.setup, entry))) return;
    await this.install({ ...present, setup: withRouting(present.setup, setup) });
  }

  async install(wanted: Wanted): Promise<void> {
    const setup =
      this.#installed === undefined ? wanted.setup : withRouting(wanted.setup, this.#installed.setup);
    await this.#deps.keeper.install(setup);
    this.#installed = { ...wanted, setup };
  }

  /** Leaves the kernel to another process; `resume` takes it back. */
  async pause(): Promise<void> {
    await this.#deps.keeper.letGo();
  }

  async resume(): Promise<void> {
    if (this.#installed !== undefined) await this.install(this.#installed);
  }

  /** Looks whether others have come or gone, and steers accordingly. */
  async refresh(configuration: Configuration): Promise<void> {
    const found = await this.look(configuration);
    const isSame = this.isInstalled && JSON.stringify(found.failures) === JSON.stringify(this.failures);
    if (!isSame) await this.install(found);
  }

  /** Looks through the own sockets, of which there may be many, only where something new is in the way. */
  async #inputs(configuration: Configuration): Promise<CaptureInputs> {
    const ports = await this.#deps.portsInUse();
    const inputs = captureInputs(configuration, this.#plan, ports);
    if (inputs.taken.every(({ inode }) => this.#others.has(inode))) return inputs;
    const own = await this.#deps.ownSockets();
    const others = ports.filter(({ inode }) => !own.has(inode));
    const without = captureInputs(configuration, this.#plan, others);
    this.#others = new Set(without.taken.map(({ inode }) => inode));
    return without;
  }
}

type Entry = KernelSetup['routing'][number];

function hasEntry({ routing }: KernelSetup, entry: Entry): boolean {
  return routing.some((other) => sameEntry(other, entry));
}

function withRouting(setup: KernelSetup, more: KernelSetup): KernelSetup {
  return {
    ...setup,
    routing: [...setup.routing, ...more.routing.filter((entry) => !hasEntry(setup, entry))],
  };
}

/** Elements of a set that are shown where not all are. */
const SHOWN = 4;

/**
 * A setup as nft reads it, with the commands for routes and addresses as comments. Not `full`: the first elements of
 * each set, and how many there are. Pure.
 */
export function setupText(setup: KernelSetup, { full }: { readonly full: boolean }): string {
  const text = replaceTableText(setup);
  const table = full ? text : text.split('\n').flatMap(abbreviated).join('\n');
  const routing = routingText(setup).replace(/^(?=.)/gm, '# ');
  return `# Run first, where it is not there yet:\n${routing}#\n# The table, by nft -f:\n${table}`;
}

/** `add element inet haports tcp4-hub { 1 : 240.7.0.1, ... }` */
function abbreviated(line: string): readonly string[] {
  const match = /^(add element .*?\{ )(.*) \}$/.exec(line);
  if (match === null) return [line];
  const [, head = '', list = ''] = match;
  const elements = list.split(', ');
  if (elements.length <= SHOWN) return [line];
  return [
    `${head}${elements.slice(0, SHOWN).join(', ')} }`,
    `# ... and ${elements.length - SHOWN} more of these`,
  ];
}
