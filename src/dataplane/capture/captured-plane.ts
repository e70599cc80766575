import type { Configuration } from '../../model/configuration.js';
import { BalancerError, errorMessage } from '../../model/errors.js';
import type { KernelChanged, PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import type { KernelReport } from '../../model/kernel-report.js';
import type { PortInUse } from '../../runtime/listening-ports.js';
import type { Clock } from '../../runtime/clock.js';
import type { ApplyReport, FlowPage, FlowQuery, PlaneCounters, StopReport, UdpStop } from '../data-plane.js';
import type { HandOverPlane, ListeningSocket, UdpFlowState } from '../hand-over.js';
import { cannotAdd, listenFailed } from '../listen-report.js';
import { wantsPort } from './capture-inputs.js';
import { captureMode, type DecidedCapture } from './capture-plan.js';
import { Steering, type Wanted, type SetupKeeper } from './steering.js';

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

export interface CapturedPlaneOptions extends DecidedCapture {
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
    const { plan, why } = this.#options;
    return { ...this.#keeper.report(), mode: captureMode(plan), why };
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
    const { plan, workers } = this.#options;
    const what =
      plan.tcp === 'tproxy' ? 'Capture by tproxy' : workers > 1 ? 'Capture with several workers' : undefined;
    if (what === undefined) return undefined;
    return `${what} cannot be handed over to another process: restart this one, or use dataPlane.capture.mode "dnat-map" with one worker`;
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
