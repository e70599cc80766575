import type { Protocol } from '../../model/address.js';
import { BalancerError, errorMessage } from '../../model/errors.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import type {
  ApplyReport,
  FlowPage,
  FlowQuery,
  HandOverPlane,
  ListeningSocket,
  PlaneCounters,
  StopReport,
  UdpFlowState,
  UdpStop,
} from '../contract.js';
import { NO_COUNTERS, mergeCounters, totalsOnly } from './merge-counters.js';
import type { WorkerLauncher, WorkerProcess } from './process.js';
import { RemotePlane, notStartedWithin, startLimitMs, workerLost, type WorkerOptions } from './rpc.js';

/** A worker that has lived this long was no failed start: the next death is replaced at once. */
const STABLE_MS = 30_000;

/** A worker that does not answer so long after a stop's deadline, or does not exit so long after its answer, is killed. */
const EXIT_GRACE_MS = 2000;

/** An apply that waits for a replacement. */
interface Waiting {
  readonly resolve: (report: ApplyReport) => void;
  readonly reject: (error: BalancerError) => void;
}

interface Life {
  readonly process: WorkerProcess;
  readonly plane: RemotePlane;
  readonly startedAtMs: number;
}

/**
 * A data plane in a child process that is replaced when it dies. Its flows die with it, which is told by a
 * `worker-lost` event; totals go on from where they were last read.
 */
export class SupervisedPlane implements HandOverPlane {
  readonly #clock: Clock;
  readonly #launch: WorkerLauncher;
  readonly #options: WorkerOptions;
  readonly #backoff = new Backoff({ firstMs: 50, maxMs: 5000 });
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  #life: Life | undefined;
  #state: ForwardingState | undefined;
  #stopping = false;
  #cancelRestart: () => void = () => undefined;
  #workersLost = 0;
  /** Totals of dead workers, and the last reading of the live one. */
  #inherited: PlaneCounters | undefined;
  #lastCounters: PlaneCounters | undefined;
  readonly #waiting: Waiting[] = [];
  #stopped: Promise<StopReport> | undefined;

  constructor(deps: { readonly clock: Clock; readonly launch: WorkerLauncher }, options: WorkerOptions) {
    this.#clock = deps.clock;
    this.#launch = deps.launch;
    this.#options = options;
  }

  async start(state: ForwardingState): Promise<ApplyReport> {
    this.#state = state;
    const life = this.#life ?? this.#beginLife();
    try {
      const report = await this.#startPlane(life, state);
      void this.#watch(life);
      return report;
    } catch (error) {
      this.#stopping = true;
      life.process.kill();
      await life.process.exited;
      throw error;
    }
  }

  async inherit(sockets: readonly ListeningSocket[]): Promise<void> {
    await (this.#life ?? this.#beginLife()).plane.inherit(sockets);
  }

  /** A worker that is replaced later has none of them. */
  inheritFlows(flows: readonly UdpFlowState[]): void {
    this.#life?.plane.inheritFlows(flows);
  }

  async lend(onSocket: (socket: ListeningSocket) => void, only?: Protocol): Promise<void> {
    return this.#living().lend(onSocket, only);
  }

  async freezeUdp(): Promise<readonly UdpFlowState[]> {
    return this.#living().freezeUdp();
  }

  /** A worker that has been replaced since reads already. */
  async thawUdp(): Promise<void> {
    await this.#life?.plane.thawUdp();
  }

  /** See WorkerPlane.prepare; does nothing where there is no worker now. */
  async prepareIfAlive(state: ForwardingState): Promise<void> {
    try {
      await this.#life?.plane.prepare(state);
    } catch (error) {
      if (!isWorkerLost(error)) throw error;
    }
  }

  /** As apply, but resolves with undefined where there is no worker now: its successor starts with this state. */
  async applyIfAlive(state: ForwardingState): Promise<ApplyReport | undefined> {
    const before = this.#state;
    this.#state = state;
    try {
      return await this.#life?.plane.apply(state);
    } catch (error) {
      if (isWorkerLost(error)) return undefined;
      this.#state = before;
      throw error;
    }
  }

  /** In the gap between two workers it waits for the next. */
  async apply(state: ForwardingState): Promise<ApplyReport> {
    const before = this.#state;
    const isKnown = before?.configuration.digest === state.configuration.digest;
    if (isKnown || this.#life !== undefined) {
      const report = await this.applyIfAlive(state);
      if (report !== undefined) return report;
      if (isKnown) return this.#replaced();
      this.#state = before;
    }
    // A start takes what it can get, but another configuration is taken over whole or not at all.
    await this.#replaced();
    return this.apply(state);
  }

  async flows(query: FlowQuery): Promise<FlowPage> {
    try {
      return (await this.#life?.plane.flows(query)) ?? { flows: [] };
    } catch (error) {
      if (isWorkerLost(error)) return { flows: [] };
      throw error;
    }
  }

  async counters(): Promise<PlaneCounters> {
    const life = this.#life;
    try {
      const own = await life?.plane.counters();
      // A late answer of a worker that is buried by now must not count beside what was inherited from it.
      if (own !== undefined && life === this.#life) {
        this.#lastCounters = own;
        return this.#total(own);
      }
    } catch (error) {
      if (!isWorkerLost(error)) throw error;
    }
    // Dead, but not buried yet: its last reading stands for it.
    return this.#total(this.#lastCounters === undefined ? undefined : totalsOnly(this.#lastCounters));
  }

  async answer(): Promise<void> {
    await this.flows({ limit: 1 });
  }

  flowCount(): number {
    return this.#life?.plane.flowCount() ?? 0;
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async stop(deadlineMs: number, udp: UdpStop = 'lame-duck'): Promise<StopReport> {
    this.#stopping = true;
    this.#cancelRestart();
    for (const { reject } of this.#waiting.splice(0)) reject(workerLost());
    const life = this.#life;
    if (life === undefined) return { finished: 0, reset: 0 };
    const lost = life.plane.flowCount();
    const asked = life.plane.stop(deadlineMs, udp).catch(() => ({ finished: 0, reset: lost }));
    // A frozen worker keeps no deadline.
    const cancelKill = this.#clock.setTimer(deadlineMs + EXIT_GRACE_MS, () => life.process.kill());
    // A second stop only shortens the deadline: the worker may be gone before it can answer both.
    this.#stopped ??= this.#end(life, asked);
    const report = await this.#stopped;
    cancelKill();
    return report;
  }

  async #end(life: Life, asked: Promise<StopReport>): Promise<StopReport> {
    const report = await asked;
    const cancelKill = this.#clock.setTimer(EXIT_GRACE_MS, () => life.process.kill());
    await life.process.exited;
    cancelKill();
    return report;
  }

  #living(): RemotePlane {
    if (this.#life === undefined) throw workerLost();
    return this.#life.plane;
  }

  #beginLife(): Life {
    const process = this.#launch();
    const plane = new RemotePlane(process.channel, this.#options);
    plane.subscribe((events) => this.#emit(events));
    const life = { process, plane, startedAtMs: this.#clock.monotonicMs() };
    this.#life = life;
    return life;
  }

  async #watch(life: Life, failure?: string): Promise<void> {
    const exit = await life.process.exited;
    if (this.#stopping) return;
    this.#life = undefined;
    const inherited = [this.#inherited, this.#lastCounters].filter((part) => part !== undefined);
    if (inherited.length > 0) this.#inherited = totalsOnly(mergeCounters(inherited));
    this.#lastCounters = undefined;
    if (this.#clock.monotonicMs() - life.startedAtMs >= STABLE_MS) this.#backoff.reset();
    this.#replace(failure === undefined ? exit : `${exit}: ${failure}`, life.plane.flowCount());
  }

  async #restart(): Promise<void> {
    const state = this.#state;
    if (state === undefined || this.#stopping) return;
    let life: Life;
    try {
      life = this.#beginLife();
    } catch (error) {
      // No memory for another process, for one; there may be some later.
      this.#replace(`Cannot be launched: ${errorMessage(error)}`, 0);
      return;
    }
    let failure: string | undefined;
    try {
      // Revisions that come while it starts go to it directly: it serves them after its start.
      const report = await this.#startPlane(life, state);
      for (const { resolve } of this.#waiting.splice(0)) resolve(report);
    } catch (error) {
      // A worker that cannot listen is as good as dead; #watch tries again with the next back-off.
      if (!isWorkerLost(error)) failure = errorMessage(error);
      life.process.kill();
    }
    void this.#watch(life, failure);
  }

  /** Rejects, and the worker is killed, if it takes too long. */
  #startPlane({ plane, process }: Life, state: ForwardingState): Promise<ApplyReport> {
    const limitMs = startLimitMs(state);
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.setTimer(limitMs, () => {
        reject(notStartedWithin(limitMs));
        process.kill();
      });
      plane.start(state).finally(cancel).then(resolve, reject);
    });
  }

  /** The report of the next worker that has started. */
  #replaced(): Promise<ApplyReport> {
    if (this.#stopping) return Promise.reject(workerLost());
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Tells the loss and has the next worker launched after the back-off. */
  #replace(evidence: string, flowsLost: number): void {
    this.#workersLost++;
    const { worker } = this.#options;
    this.#emit([{ type: 'worker-lost', atMs: this.#clock.wallMs(), worker, evidence, flowsLost }]);
    this.#cancelRestart = this.#clock.setTimer(this.#backoff.nextMs(), () => void this.#restart());
  }

  #total(own: PlaneCounters | undefined): PlaneCounters {
    const parts = [this.#inherited, own].filter((part) => part !== undefined);
    const sum = parts.length === 0 ? NO_COUNTERS : mergeCounters(parts);
    return { ...sum, workersLost: this.#workersLost };
  }

  #emit(events: readonly PlaneEvent[]): void {
    for (const listener of this.#listeners) listener(events);
  }
}

function isWorkerLost(error: unknown): boolean {
  return error instanceof BalancerError && error.code === 'LB_WORKER_LOST';
}
