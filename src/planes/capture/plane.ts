import type { CapturePlan } from '../../model/capture.js';
import type { Configuration } from '../../model/configuration.js';
import { BalancerError, errorMessage } from '../../model/errors.js';
import type { KernelChanged, KernelReport, PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import { SerialQueue } from '../../runtime/queue.js';
import {
  cannotAdd,
  listenFailed,
  type ApplyReport,
  type FlowPage,
  type FlowQuery,
  type HandOverPlane,
  type ListeningSocket,
  type PlaneCounters,
  type StopReport,
  type UdpFlowState,
  type UdpStop,
} from '../contract.js';
import type { InstanceLock } from '../netfilter/instance-lock.js';
import type { OnKernelChange, Reconciler, WantOptions } from '../netfilter/reconciler.js';
import { without } from '../netfilter/routing.js';
import type { KernelSetup } from '../netfilter/setup.js';
import { captureInputs, unwanted, type CaptureInputs, type PortInUse } from './ports-in-use.js';
import { captureSetup } from './table.js';

/** As the userspace plane tries again what it could not bind. */
const RETRY_TAKEN_MS = 10_000;

export interface CapturedPlaneDeps {
  readonly clock: Clock;
  /** Serves what is steered to it; has the same plan. Owned. */
  readonly inner: HandOverPlane;
  readonly createReconciler: (
    onChange: OnKernelChange,
  ) => Pick<Reconciler, 'check' | 'want' | 'remove' | 'release' | 'report'>;
  /** Held while the instance has something in the kernel. */
  readonly lock: Pick<InstanceLock, 'take' | 'takeWhenFree' | 'release'>;
  readonly portsInUse: () => Promise<readonly PortInUse[]>;
  /** Inodes of the sockets of this process and its workers. */
  readonly ownSockets: () => Promise<ReadonlySet<string>>;
}

export interface CapturedPlaneOptions {
  readonly plan: CapturePlan;
  /** Data workers. */
  readonly workers: number;
}

/** What is to be steered for a configuration, as the machine is now. */
interface Desired extends Pick<CaptureInputs, 'failures'> {
  readonly setup: KernelSetup;
}

/**
 * A data plane whose ports the kernel steers to a few sockets. The inner plane has the sockets and the flows; this one
 * keeps the kernel in step with it, and what is steered with what is served.
 *
 * Routes and addresses come before the sockets that need them, and only ever come: flows of a frontend that is gone may
 * still need them. What is steered comes before a start's sockets, since nothing serves then, and after those of an apply
 * or of a start in the place of another process. On a stop it goes last: new flows are refused as soon as the sockets are
 * closed, and those that there are need the routes until they end.
 */
export class CapturedPlane implements HandOverPlane {
  readonly #deps: CapturedPlaneDeps;
  readonly #options: CapturedPlaneOptions;
  readonly #reconciler: ReturnType<CapturedPlaneDeps['createReconciler']>;
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  /** Start, applies and what is tried again run one after another. */
  readonly #queue = new SerialQueue();
  #state: ForwardingState | undefined;
  /** What the kernel has, or gets from the reconciler. */
  #present: Desired | undefined;
  /** Inodes of sockets that are known to be of others. */
  #others: ReadonlySet<string> = new Set();
  #inherits = false;
  /** Whether what is in the kernel under the instance's name is this process's to take away. */
  #owns = false;
  #stopped: Promise<StopReport> | undefined;
  #cancelRetry: () => void = () => undefined;

  constructor(deps: CapturedPlaneDeps, options: CapturedPlaneOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#reconciler = deps.createReconciler((change, evidence) => this.#changed(change, evidence));
  }

  /** Rejects, with nothing left in the kernel, with `LB_INSTANCE_RUNNING`, `LB_LISTEN_FAILED` or `LB_KERNEL_...`. */
  start(state: ForwardingState): Promise<ApplyReport> {
    return this.#queue.run(() => (this.#inherits ? this.#startInPlace(state) : this.#startAnew(state)));
  }

  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#queue.run(async () => {
      const { inner } = this.#deps;
      const before = this.#state;
      const isKnown = before?.configuration.digest === state.configuration.digest;
      if (isKnown || before === undefined || this.#stopped !== undefined) {
        const report = await inner.apply(state);
        this.#state = state;
        return this.#whole(report);
      }
      const desired = await this.#look(state.configuration);
      // As when binding: what was missing before may stay missing.
      const added = unwanted(desired.failures, before.configuration);
      if (added.length > 0) throw cannotAdd(added);
      await this.#reconciler.check(desired.setup);
      await this.#makeRoom(desired);
      const report = await inner.apply(state);
      try {
        await this.#steer(desired);
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
    if (this.#reconciler.report().state === 'in-place') return counters;
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
    const mode = `capture, udp ${this.#options.plan.udp}`;
    return { ...this.#reconciler.report(), mode, why: 'The configuration asks for capture' };
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    const unsubscribe = this.#deps.inner.subscribe(listener);
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
      unsubscribe();
    };
  }

  /** With `udp: 'at-once'` a successor continues with what is in the kernel, so it stays. */
  stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    this.#cancelRetry();
    const inner = this.#deps.inner.stop(deadlineMs, udp);
    if (udp === 'at-once' && this.#stopped === undefined) {
      this.#owns = false;
      void this.#takeAway();
      this.#stopped = inner;
    }
    // An apply that is under way must not put it back.
    this.#stopped ??= inner.finally(() => this.#queue.idle().then(() => this.#takeAway()));
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
    return this.#queue.run(async () => {
      await this.#reconciler.release();
      return this.#deps.inner.freezeUdp();
    });
  }

  thawUdp(): Promise<void> {
    return this.#queue.run(async () => {
      await this.#deps.inner.thawUdp();
      if (this.#stopped !== undefined || this.#present === undefined) return;
      // The reconciler reports what fails, and tries again.
      await this.#steer(this.#present, { onRefusal: 'persist' }).catch(() => undefined);
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
      const desired = await this.#look(state.configuration);
      const isEmpty = Array.from(desired.setup.sets.values()).every(({ size }) => size === 0);
      if (isEmpty && desired.failures.length > 0) throw listenFailed(desired.failures);
      await this.#steer(desired);
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
    void this.#lookAgain();
    return report;
  }

  /** Idempotent. What another process serves by is left to it. */
  async #takeAway(): Promise<void> {
    // The reconciler has reported what it could not take away.
    if (this.#owns) await this.#reconciler.remove().catch(() => undefined);
    else await this.#reconciler.release();
    this.#owns = false;
    this.#deps.lock.release();
  }

  #whole(report: ApplyReport): ApplyReport {
    this.#retryLater();
    const failures = this.#present?.failures ?? [];
    return failures.length === 0 ? report : { ...report, failures: [...report.failures, ...failures] };
  }

  #retryLater(): void {
    this.#cancelRetry();
    if (this.#present?.failures.length === 0 || this.#stopped !== undefined) return;
    this.#cancelRetry = this.#deps.clock.setTimer(RETRY_TAKEN_MS, () => void this.#lookAgain());
  }

  /** Ports that others have may be free by now. */
  async #lookAgain(): Promise<void> {
    await this.#queue.run(async () => {
      const state = this.#state;
      if (state === undefined || this.#stopped !== undefined) return;
      try {
        const desired = await this.#look(state.configuration);
        const isSame = JSON.stringify(desired.failures) === JSON.stringify(this.#present?.failures);
        if (!isSame) await this.#steer(desired, { onRefusal: 'persist' });
      } catch (error) {
        // What the kernel refuses was reported already.
        if (!(error instanceof BalancerError)) this.#changed('failed', errorMessage(error));
      }
      this.#retryLater();
    });
  }

  /** Makes the sockets possible that the inner plane will have; what is steered stays as it is. */
  async #makeRoom({ setup }: Desired): Promise<void> {
    const present = this.#present;
    if (present === undefined || without(setup.routing, present.setup.routing).length === 0) return;
    await this.#steer({ ...present, setup: withRouting(present.setup, setup) });
  }

  async #steer(desired: Desired, options: WantOptions = {}): Promise<void> {
    const before = this.#present;
    const setup = before === undefined ? desired.setup : withRouting(desired.setup, before.setup);
    this.#present = { ...desired, setup };
    try {
      await this.#reconciler.want([{ setup }], options);
    } catch (error) {
      if (options.onRefusal !== 'persist') this.#present = before;
      throw error;
    }
  }

  /**
   * What the configuration needs. The own sockets, of which there may be many, are looked at only where an unknown one
   * is in the way.
   */
  async #look(configuration: Configuration): Promise<Desired> {
    const { plan } = this.#options;
    const ports = await this.#deps.portsInUse();
    let inputs = captureInputs(configuration, plan, ports);
    if (!inputs.taken.every(({ inode }) => this.#others.has(inode))) {
      const own = await this.#deps.ownSockets();
      const others = ports.filter(({ inode }) => !own.has(inode));
      inputs = captureInputs(configuration, plan, others);
      this.#others = new Set(inputs.taken.map(({ inode }) => inode));
    }
    return { setup: captureSetup(inputs.input), failures: inputs.failures };
  }

  #changed(change: KernelChanged['change'], evidence: string | undefined): void {
    const atMs = this.#deps.clock.wallMs();
    const report = this.kernelReport();
    for (const listener of this.#listeners) {
      listener([{ type: 'kernel-changed', atMs, change, evidence, report }]);
    }
  }
}

function withRouting(setup: KernelSetup, more: KernelSetup): KernelSetup {
  return { ...setup, routing: [...setup.routing, ...without(more.routing, setup.routing)] };
}
