import { BalancerError, errorMessage } from '../../model/errors.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding-state.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import type {
  ApplyReport,
  DataPlane,
  FlowPage,
  FlowQuery,
  PlaneCounters,
  StopReport,
  UdpStop,
} from '../data-plane.js';
import { mergeCounters, totalsOnly } from './merge-counters.js';
import { RemotePlane } from './remote-plane.js';
import type { WorkerLauncher, WorkerProcess } from './worker-launcher.js';
import type { WorkerOptions } from './worker-protocol.js';

/** A worker that has lived this long was no failed start: the next death is replaced at once. */
const STABLE_MS = 30_000;

/** After its plane has stopped, a worker that does not exit by itself is killed. */
const EXIT_GRACE_MS = 2000;

interface Life {
  readonly process: WorkerProcess;
  readonly plane: RemotePlane;
  readonly startedAtMs: number;
}

/**
 * A data plane in a child process that is replaced when it dies. Its flows die with it, which is told by a
 * `worker-lost` event; totals go on from where they were last read.
 */
export class SupervisedPlane implements DataPlane {
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
  readonly #waiting: ((report: ApplyReport) => void)[] = [];

  constructor(deps: { readonly clock: Clock; readonly launch: WorkerLauncher }, options: WorkerOptions) {
    this.#clock = deps.clock;
    this.#launch = deps.launch;
    this.#options = options;
  }

  async start(state: ForwardingState): Promise<ApplyReport> {
    this.#state = state;
    const life = this.#beginLife();
    try {
      const report = await life.plane.start(state);
      void this.#watch(life);
      return report;
    } catch (error) {
      this.#stopping = true;
      life.process.kill();
      await life.process.exited;
      throw error;
    }
  }

  async apply(state: ForwardingState): Promise<ApplyReport> {
    this.#state = state;
    try {
      if (this.#life !== undefined) return await this.#life.plane.apply(state);
    } catch (error) {
      if (!isWorkerLost(error)) throw error;
    }
    // The replacement starts with the newest state there is by then.
    return new Promise((resolve) => this.#waiting.push(resolve));
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
    try {
      const own = await this.#life?.plane.counters();
      if (own !== undefined) this.#lastCounters = own;
      return this.#total(own);
    } catch (error) {
      if (isWorkerLost(error)) return this.#total(undefined);
      throw error;
    }
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
    const life = this.#life;
    if (life === undefined) return { finished: 0, reset: 0 };
    const lost = life.plane.flowCount();
    const report = await life.plane.stop(deadlineMs, udp).catch(() => ({ finished: 0, reset: lost }));
    const cancelKill = this.#clock.setTimer(EXIT_GRACE_MS, () => life.process.kill());
    await life.process.exited;
    cancelKill();
    return report;
  }

  #beginLife(): Life {
    const process = this.#launch();
    const plane = new RemotePlane(process.channel, this.#options);
    plane.subscribe((events) => this.#emit(events));
    const life = { process, plane, startedAtMs: this.#clock.monotonicMs() };
    this.#life = life;
    return life;
  }

  async #watch(life: Life): Promise<void> {
    const evidence = await life.process.exited;
    if (this.#stopping) return;
    this.#life = undefined;
    this.#bury(life, evidence);
    if (this.#clock.monotonicMs() - life.startedAtMs >= STABLE_MS) this.#backoff.reset();
    this.#cancelRestart = this.#clock.setTimer(this.#backoff.nextMs(), () => void this.#restart());
  }

  async #restart(): Promise<void> {
    const state = this.#state;
    if (state === undefined || this.#stopping) return;
    const life = this.#beginLife();
    try {
      let report = await life.plane.start(state);
      // Revisions that came while it started are not lost on it.
      while (this.#state !== undefined && this.#state.revision > report.revision) {
        report = await life.plane.apply(this.#state);
      }
      for (const resolve of this.#waiting.splice(0)) resolve(report);
    } catch (error) {
      // A worker that cannot listen is as good as dead; #watch tries again with the next back-off.
      if (!isWorkerLost(error)) life.process.kill();
    }
    void this.#watch(life);
  }

  #bury(life: Life, evidence: string): void {
    this.#workersLost++;
    const inherited = [this.#inherited, this.#lastCounters].filter((part) => part !== undefined);
    if (inherited.length > 0) this.#inherited = totalsOnly(mergeCounters(inherited));
    this.#lastCounters = undefined;
    this.#emit([
      {
        type: 'worker-lost',
        atMs: this.#clock.wallMs(),
        worker: this.#options.worker,
        evidence,
        flowsLost: life.plane.flowCount(),
      },
    ]);
  }

  #total(own: PlaneCounters | undefined): PlaneCounters {
    const parts = [this.#inherited, own].filter((part) => part !== undefined);
    const sum = parts.length === 0 ? NOTHING : mergeCounters(parts);
    return { ...sum, workersLost: this.#workersLost };
  }

  #emit(events: readonly PlaneEvent[]): void {
    for (const listener of this.#listeners) listener(events);
  }
}

const NOTHING: PlaneCounters = {
  traffic: [],
  arrivals: [],
  table: { tcp: { used: 0, limit: 0 }, udp: { used: 0, limit: 0 }, embryonic: { used: 0, limit: 0 } },
  connectSeconds: {},
  sourcePorts: [],
  eventLoopDelaySeconds: [],
  listeners: {},
  workersLost: 0,
};

function isWorkerLost(error: unknown): boolean {
  if (error instanceof BalancerError) return error.code === 'LB_WORKER_LOST';
  throw new TypeError(`Not an error of the data plane: ${errorMessage(error)}`, { cause: error });
}
