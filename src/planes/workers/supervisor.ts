import type { Protocol } from '../../model/address.js';
import { errorMessage, type BalancerError } from '../../model/errors.js';
import type { PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding.js';
import { Backoff } from '../../runtime/backoff.js';
import type { Clock } from '../../runtime/clock.js';
import type { PeerProcess } from '../../runtime/peer.js';
import type {
  ApplyReport,
  FlowPage,
  FlowQuery,
  ListeningSocket,
  PlaneCounters,
  StopReport,
  UdpFlowState,
  UdpStop,
  WorkerOptions,
} from '../contract.js';
import { NO_COUNTERS, mergeCounters, totalsOnly } from './counters.js';
import { EXIT_GRACE_MS, WORKER_DEADLINES, type ControlApi, type WorkerApi } from './host.js';
import type { WorkerLauncher } from './process.js';
import { expose, isWorkerLost, remote, workerLost } from './rpc.js';

/** A worker that has lived this long was no failed start: the next death is replaced at once. */
const STABLE_MS = 30_000;

/** What a worker asks of the group it belongs to. */
export interface WorkerPeers extends Pick<ControlApi, 'pulse' | 'claim' | 'release'> {
  /** The worker's process has exited. */
  left(): void;
}

export interface WorkerSupervisorDeps {
  readonly clock: Clock;
  readonly launch: WorkerLauncher;
  /** Called before a worker starts. */
  readonly join: (worker: WorkerApi) => WorkerPeers;
  readonly onEvents: (events: readonly PlaneEvent[]) => void;
}

/** An apply that waits for a replacement. */
interface Waiting {
  readonly resolve: (report: ApplyReport) => void;
  readonly reject: (error: BalancerError) => void;
}

interface Life {
  readonly process: PeerProcess;
  readonly worker: WorkerApi;
  readonly launchedAtMs: number;
  /** Rejects with `LB_WORKER_LOST` where the start fails. Until then it is asked for nothing else. */
  serving?: Promise<unknown>;
  hasStarted: boolean;
  /** As of its last pulse. */
  flows: number;
  /** Why it was killed: it left a call unanswered. */
  failure?: BalancerError;
}

/**
 * One data worker: a plane in a child process that is replaced when it dies or leaves a call unanswered. Its flows die
 * with it, which a `worker-lost` event reports; totals continue from the last reading.
 */
export class WorkerSupervisor {
  readonly #deps: WorkerSupervisorDeps;
  readonly #options: WorkerOptions;
  readonly #backoff = new Backoff({ firstMs: 50, maxMs: 5000 });
  #life: Life | undefined;
  #state: ForwardingState | undefined;
  #udpFlows: readonly UdpFlowState[] = [];
  #onLent: (socket: ListeningSocket) => void = (socket) => socket.release();
  #stopping = false;
  #cancelRestart: () => void = () => undefined;
  #workersLost = 0;
  /** Totals of dead workers, and the last reading of the live one. */
  #inherited: PlaneCounters | undefined;
  #lastCounters: PlaneCounters | undefined;
  readonly #waiting: Waiting[] = [];
  #stopped: Promise<StopReport> | undefined;

  constructor(deps: WorkerSupervisorDeps, options: WorkerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  async start(state: ForwardingState): Promise<ApplyReport> {
    this.#state = state;
    const life = this.#life ?? this.#launch();
    try {
      const report = await this.#startWorker(life, state);
      void this.#watch(life);
      return report;
    } catch (error) {
      this.#stopping = true;
      life.process.kill();
      await life.process.exited;
      throw life.failure ?? error;
    }
  }

  async inherit(sockets: readonly ListeningSocket[]): Promise<void> {
    const { worker } = this.#life ?? this.#launch();
    for (const socket of sockets) worker.inherit(socket);
    await worker.inherited();
  }

  /** A worker that is replaced later has none of them. */
  inheritFlows(flows: readonly UdpFlowState[]): void {
    this.#udpFlows = flows;
  }

  /** `only`: sockets of this protocol. */
  async lend(onSocket: (socket: ListeningSocket) => void, only?: Protocol): Promise<void> {
    this.#onLent = onSocket;
    return this.#living().lend(only);
  }

  async freezeUdp(): Promise<readonly UdpFlowState[]> {
    return this.#living().freezeUdp();
  }

  /** A worker that has been replaced since reads already. */
  async thawUdp(): Promise<void> {
    await this.#life?.worker.thawUdp();
  }

  /** See WorkerPlane.prepare; does nothing where there is no worker now. */
  async prepare(state: ForwardingState): Promise<void> {
    await this.#whenServing((worker) => worker.prepare(state));
  }

  /** Resolves with undefined where there is no worker now: its successor starts with this state. */
  async apply(state: ForwardingState): Promise<ApplyReport | undefined> {
    const before = this.#state;
    this.#state = state;
    try {
      return await this.#whenServing((worker) => worker.apply(state));
    } catch (error) {
      this.#state = before;
      throw error;
    }
  }

  /** The report of the next worker that has started. Rejects with `LB_WORKER_LOST` where there will be none. */
  replaced(): Promise<ApplyReport> {
    if (this.#stopping) return Promise.reject(workerLost());
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  async flows(query: FlowQuery): Promise<FlowPage> {
    return (await unlessLost(this.#serving()?.flows(query))) ?? { flows: [] };
  }

  async counters(): Promise<PlaneCounters> {
    const life = this.#life;
    const own = await unlessLost(this.#serving()?.counters());
    // A late answer of a worker that is gone by now must not count beside what was inherited from it.
    if (own !== undefined && life === this.#life) {
      this.#lastCounters = own;
      return this.#total(own);
    }
    // Dead, but its exit is not known yet: its last reading stands for it.
    return this.#total(this.#lastCounters === undefined ? undefined : totalsOnly(this.#lastCounters));
  }

  flowCount(): number {
    return this.#life?.flows ?? 0;
  }

  async stop(deadlineMs: number, udp: UdpStop): Promise<StopReport> {
    this.#stopping = true;
    this.#cancelRestart();
    for (const { reject } of this.#waiting.splice(0)) reject(workerLost());
    const life = this.#life;
    if (life === undefined) return { finished: 0, reset: 0 };
    const lost = life.flows;
    const asked = life.worker.stop(deadlineMs, udp).catch(() => ({ finished: 0, reset: lost }));
    // A second stop only shortens the deadline: the worker may be gone before it can answer both.
    this.#stopped ??= this.#end(life, asked);
    return this.#stopped;
  }

  async #end(life: Life, asked: Promise<StopReport>): Promise<StopReport> {
    const report = await asked;
    const cancelKill = this.#deps.clock.setTimer(EXIT_GRACE_MS, () => life.process.kill());
    await life.process.exited;
    cancelKill();
    return report;
  }

  #living(): WorkerApi {
    if (this.#life === undefined) throw workerLost();
    return this.#life.worker;
  }

  #launch(): Life {
    const { clock, launch, join, onEvents } = this.#deps;
    const process = launch();
    const worker = remote<WorkerApi>(process.channel, WORKER_DEADLINES, {
      clock,
      onOverdue: (error) => {
        life.failure ??= error;
        process.kill();
      },
    });
    const life: Life = { process, worker, launchedAtMs: clock.monotonicMs(), hasStarted: false, flows: 0 };
    const peers = join(worker);
    expose<ControlApi>(process.channel, {
      events: onEvents,
      claim: (ends) => peers.claim(ends),
      release: (end) => peers.release(end),
      pulse: (pulse) => {
        life.flows = pulse.flows;
        peers.pulse(pulse);
      },
      lent: (socket) => this.#onLent(socket),
    });
    void process.exited.then(() => peers.left());
    this.#life = life;
    return life;
  }

  async #startWorker(life: Life, state: ForwardingState): Promise<ApplyReport> {
    const starting = life.worker.start(state, this.#options, this.#udpFlows);
    this.#udpFlows = [];
    life.serving = starting.catch(() => {
      throw workerLost();
    });
    // Only those who wait for it need to know.
    life.serving.catch(() => undefined);
    const report = await starting;
    life.hasStarted = true;
    return report;
  }

  /** Undefined between two workers, and while one starts. */
  #serving(): WorkerApi | undefined {
    return this.#life?.hasStarted === true ? this.#life.worker : undefined;
  }

  /** Undefined where there is no worker now, or where it dies first. */
  #whenServing<T>(call: (worker: WorkerApi) => Promise<T>): Promise<T | undefined> {
    const life = this.#life;
    return unlessLost(life?.serving?.then(() => call(life.worker)));
  }

  async #watch(life: Life): Promise<void> {
    const exit = await life.process.exited;
    if (this.#stopping) return;
    this.#life = undefined;
    const inherited = [this.#inherited, this.#lastCounters].filter((part) => part !== undefined);
    if (inherited.length > 0) this.#inherited = totalsOnly(mergeCounters(inherited));
    this.#lastCounters = undefined;
    if (this.#deps.clock.monotonicMs() - life.launchedAtMs >= STABLE_MS) this.#backoff.reset();
    this.#replace(life.failure === undefined ? exit : `${exit}: ${life.failure.message}`, life.flows);
  }

  async #restart(): Promise<void> {
    const state = this.#state;
    if (state === undefined || this.#stopping) return;
    let life: Life;
    try {
      life = this.#launch();
    } catch (error) {
      // No memory for another process, for example; there may be some later.
      this.#replace(`Cannot be launched: ${errorMessage(error)}`, 0);
      return;
    }
    try {
      // Revisions that arrive while it starts go to it directly: it serves them after its start.
      const report = await this.#startWorker(life, state);
      for (const { resolve } of this.#waiting.splice(0)) resolve(report);
    } catch (error) {
      // A worker that cannot listen is as good as dead; #watch tries again after the next back-off.
      if (!isWorkerLost(error)) life.failure ??= error as BalancerError;
      life.process.kill();
    }
    void this.#watch(life);
  }

  /** Reports the loss and has the next worker launched after the back-off. */
  #replace(evidence: string, flowsLost: number): void {
    const { clock, onEvents } = this.#deps;
    const { worker } = this.#options;
    this.#workersLost++;
    onEvents([{ type: 'worker-lost', atMs: clock.wallMs(), worker, evidence, flowsLost }]);
    this.#cancelRestart = clock.setTimer(this.#backoff.nextMs(), () => void this.#restart());
  }

  #total(own: PlaneCounters | undefined): PlaneCounters {
    const parts = [this.#inherited, own].filter((part) => part !== undefined);
    const sum = parts.length === 0 ? NO_COUNTERS : mergeCounters(parts);
    return { ...sum, workersLost: this.#workersLost };
  }
}

/** Undefined where there is no worker, or where it died before it answered. */
async function unlessLost<T>(call: Promise<T> | undefined): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (isWorkerLost(error)) return undefined;
    throw error;
  }
}
