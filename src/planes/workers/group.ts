import { capsOf } from '../../flows/caps.js';
import { ipAddress, type IpAddress } from '../../model/address.js';
import type { DropReason, ListeningChanged, Overload, PlaneEvent } from '../../model/events.js';
import type { ForwardingState } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import { SerialQueue } from '../../runtime/queue.js';
import {
  isDeaf,
  listenFailed,
  type ApplyReport,
  type FlowPage,
  type FlowQuery,
  type HandOverPlane,
  type ListeningSocket,
  type PlaneCounters,
  type PlaneOptions,
  type StopReport,
  type UdpFlowState,
  type UdpStop,
} from '../contract.js';
import { mergeCounters } from './counters.js';
import type { WorkerApi } from './host.js';
import { LimitBroker, SharedPortArbiter, type PortTrial } from './limit-broker.js';
import type { WorkerLauncher } from './process.js';
import { workerLost } from './rpc.js';
import { WorkerSupervisor, type WorkerPeers } from './supervisor.js';

export interface WorkerGroupDeps {
  readonly clock: Clock;
  /** Starts workers; where they share their TCP sockets, such as can. */
  readonly launch: WorkerLauncher;
  /** Done in this process, before the first worker listens on a port. */
  readonly tryTcpPort: PortTrial;
  /** Which worker has a UDP address and port. */
  readonly ownerOf: (address: IpAddress, port: number) => number;
  /** Which worker alone has a TCP address and port. Absent: all have it. */
  readonly tcpOwnerOf?: (address: IpAddress, port: number) => number;
}

export interface WorkerGroupOptions extends PlaneOptions {
  /** 1 or more. */
  readonly workers: number;
}

/**
 * One data plane over one or several data workers, each of which is replaced when it dies. TCP sockets are shared by all, or
 * belong to one worker, as UDP sockets do, and to its replacement after it. Caps hold over all workers, see LimitBroker;
 * those per client address hold in each.
 */
export class WorkerGroup implements HandOverPlane {
  readonly #workers: readonly WorkerSupervisor[];
  readonly #limits: LimitBroker;
  readonly #ports: SharedPortArbiter;
  readonly #ownerOf: WorkerGroupDeps['ownerOf'];
  readonly #tcpOwnerOf: WorkerGroupDeps['tcpOwnerOf'];
  readonly #events: GroupEvents;
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  #state: ForwardingState | undefined;
  readonly #applies = new SerialQueue();

  constructor(
    { clock, launch, tryTcpPort, ownerOf, tcpOwnerOf }: WorkerGroupDeps,
    options: WorkerGroupOptions,
  ) {
    const { workers } = options;
    this.#limits = new LimitBroker(workers);
    this.#ports = new SharedPortArbiter(tryTcpPort);
    this.#ownerOf = ownerOf;
    this.#tcpOwnerOf = tcpOwnerOf;
    this.#events = new GroupEvents(workers);
    this.#workers = Array.from({ length: workers }, (_, worker) => {
      const join = (api: WorkerApi): WorkerPeers => {
        const limits = this.#limits.join(worker, api);
        const ports = this.#ports.join(worker, api);
        const left = (): void => {
          limits.left();
          ports.left();
        };
        return { ...limits, ...ports, left };
      };
      const onEvents = (events: readonly PlaneEvent[]): void =>
        this.#relay(this.#events.merge(worker, events));
      return new WorkerSupervisor({ clock, launch, join, onEvents }, { ...options, worker });
    });
  }

  async start(state: ForwardingState): Promise<ApplyReport> {
    this.#adopt(state);
    const outcomes = await Promise.allSettled(this.#workers.map((worker) => worker.start(state)));
    this.#ports.discard();
    const reports = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    const failure = outcomes.find((outcome) => outcome.status === 'rejected');
    const report = this.#merge(state, reports);
    if (failure === undefined && !isDeaf(report)) return report;
    await this.stop(0);
    throw failure === undefined ? listenFailed(report.failures) : (failure.reason as Error);
  }

  /**
   * Does not wait for workers that are being replaced: their replacements start with the newest state. Another
   * configuration is prepared by all workers before any of them takes it over; if one cannot, all are as before.
   */
  apply(state: ForwardingState): Promise<ApplyReport> {
    return this.#applies.run(() => this.#apply(state));
  }

  async flows(query: FlowQuery): Promise<FlowPage> {
    const count = this.#workers.length;
    const flows: FlowPage['flows'][number][] = [];
    // A cursor is a worker's own cursor and its index.
    const cursor = query.after ?? 0;
    let after = Math.floor(cursor / count);
    for (let index = cursor % count; index < count; index++) {
      const page = await this.#workers[index]?.flows({ ...query, after, limit: query.limit - flows.length });
      after = 0;
      flows.push(...(page?.flows ?? []));
      if (page?.next !== undefined) return { flows, next: page.next * count + index };
      if (flows.length >= query.limit && index + 1 < count) return { flows, next: index + 1 };
    }
    return { flows };
  }

  async counters(): Promise<PlaneCounters> {
    const parts = await Promise.all(this.#workers.map((worker) => worker.counters()));
    const sum = mergeCounters(parts);
    const limits = this.#state?.configuration.limits;
    const { tcp, udp, embryonic } = sum.table;
    // The shares of the workers add up to it, but for what is on its way from one to another.
    const whole = limits && {
      tcp: { ...tcp, limit: limits.tcpFlows },
      udp: { ...udp, limit: limits.udpFlows },
      embryonic: { ...embryonic, limit: limits.embryonicFlows },
    };
    return {
      ...sum,
      table: whole ?? sum.table,
      eventLoopDelaySeconds: parts.map(({ eventLoopDelaySeconds: [own] }) => own ?? Number.NaN),
    };
  }

  flowCount(): number {
    return this.#workers.reduce((sum, worker) => sum + worker.flowCount(), 0);
  }

  async answer(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.flows({ limit: 1 })));
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async stop(deadlineMs: number, udp: UdpStop = 'lame-duck'): Promise<StopReport> {
    const reports = await Promise.all(this.#workers.map((worker) => worker.stop(deadlineMs, udp)));
    return reports.reduce((a, b) => ({ finished: a.finished + b.finished, reset: a.reset + b.reset }));
  }

  async inherit(sockets: readonly ListeningSocket[]): Promise<void> {
    const isShared = ({ protocol }: ListeningSocket): boolean =>
      protocol === 'tcp' && this.#tcpOwnerOf === undefined;
    this.#ports.inherit(sockets.filter(isShared));
    const parts = this.#workers.map((): ListeningSocket[] => []);
    for (const socket of sockets) {
      if (isShared(socket)) continue;
      const ownerOf = (socket.protocol === 'tcp' ? this.#tcpOwnerOf : undefined) ?? this.#ownerOf;
      parts[ownerOf(ipAddress(socket.address), socket.port)]?.push(socket);
    }
    await allOf(this.#workers.map((plane, worker) => plane.inherit(parts[worker] ?? [])));
  }

  inheritFlows(flows: readonly UdpFlowState[]): void {
    const ownerOf = ({ tuple }: UdpFlowState): number =>
      this.#ownerOf(tuple.destination, tuple.destinationPort);
    for (const [worker, plane] of this.#workers.entries())
      plane.inheritFlows(flows.filter((flow) => ownerOf(flow) === worker));
  }

  /** Where every worker has all TCP sockets, the first gives them. Rejects where a worker is being replaced. */
  async lend(onSocket: (socket: ListeningSocket) => void): Promise<void> {
    await allOf(
      this.#workers.map((plane, worker) =>
        worker === 0 || this.#tcpOwnerOf !== undefined ? plane.lend(onSocket) : plane.lend(onSocket, 'udp'),
      ),
    );
  }

  async freezeUdp(): Promise<readonly UdpFlowState[]> {
    return (await allOf(this.#workers.map((worker) => worker.freezeUdp()))).flat();
  }

  async thawUdp(): Promise<void> {
    await Promise.allSettled(this.#workers.map((worker) => worker.thawUdp()));
  }

  #adopt(state: ForwardingState): void {
    this.#state = state;
    this.#limits.setCaps(capsOf(state.configuration));
  }

  async #apply(state: ForwardingState): Promise<ApplyReport> {
    const before = this.#state;
    const changes = before !== undefined && before.configuration.digest !== state.configuration.digest;
    const reports = await this.#takeOver(state, changes ? before : undefined);
    if (reports.some((report) => report !== undefined)) return this.#merge(state, reports);
    // A start takes what it can get, but another configuration is taken over whole or not at all.
    if (changes) await this.#goBack(before);
    await this.#firstReplacement(changes ? before : state, reports);
    return changes ? this.#apply(state) : this.#merge(state, reports);
  }

  /** `before`: the state of another configuration, which all keep if one cannot take over the new one. */
  async #takeOver(
    state: ForwardingState,
    before: ForwardingState | undefined,
  ): Promise<(ApplyReport | undefined)[]> {
    try {
      if (before !== undefined) await allOf(this.#workers.map((worker) => worker.prepare(state)));
      this.#adopt(state);
      return await allOf(this.#workers.map((worker) => worker.apply(state)));
    } catch (error) {
      if (before !== undefined) await this.#goBack(before);
      throw error;
    }
  }

  /** Workers that have taken over or prepared another configuration are where they were again. */
  async #goBack(before: ForwardingState): Promise<void> {
    this.#adopt(before);
    await Promise.allSettled(this.#workers.map((worker) => worker.apply(before)));
  }

  /** Waits for it where no worker is left. */
  async #firstReplacement(state: ForwardingState, reports: (ApplyReport | undefined)[]): Promise<void> {
    const replaced = this.#workers.map(async (worker, index) => {
      reports[index] = (await worker.apply(state)) ?? (await worker.replaced());
    });
    await Promise.any(replaced).catch(() => {
      throw workerLost();
    });
  }

  #merge({ revision }: ForwardingState, reports: readonly (ApplyReport | undefined)[]): ApplyReport {
    for (const [worker, report] of reports.entries()) {
      if (report !== undefined) this.#events.reported(worker, report);
    }
    const failures = reports.flatMap((report) => report?.failures ?? []);
    return { revision, listeners: this.#events.listening.listeners, failures };
  }

  #relay(events: readonly PlaneEvent[]): void {
    if (events.length === 0) return;
    for (const listener of this.#listeners) listener(events);
  }
}

/** As Promise.all, but nothing is under way any more when it rejects. */
async function allOf<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/** What one worker listens on, and on how many ports it cannot. */
export interface ListeningShare {
  readonly listeners: ApplyReport['listeners'];
  readonly failures: number;
}

/** Makes the events of several workers those of one plane. It keeps what each worker last said. */
export class GroupEvents {
  readonly #listening: ListeningShare[];
  /** Workers that are overloaded, by reason. */
  readonly #overloaded = new Map<DropReason, Set<number>>();

  constructor(workers: number) {
    this.#listening = Array.from({ length: workers }, () => ({ listeners: { tcp: 0, udp: 0 }, failures: 0 }));
  }

  /** What a worker answered to a start or apply. */
  reported(worker: number, { listeners, failures }: ApplyReport): void {
    this.#listening[worker] = { listeners, failures: failures.length };
  }

  /** Of all workers. */
  get listening(): ListeningShare {
    return this.#listening.reduce((a, b) => ({
      listeners: {
        tcp: a.listeners.tcp + b.listeners.tcp,
        udp: a.listeners.udp + b.listeners.udp,
      },
      failures: a.failures + b.failures,
    }));
  }

  merge(worker: number, events: readonly PlaneEvent[]): readonly PlaneEvent[] {
    return events.flatMap((event): readonly PlaneEvent[] => {
      if (event.type === 'overload') return this.#isNews(worker, event) ? [event] : [];
      if (event.type === 'worker-lost') return [event, ...this.#relieved(worker, event.atMs)];
      if (event.type === 'listening-changed') return [this.#changed(worker, event)];
      return [event];
    });
  }

  #changed(worker: number, event: ListeningChanged): ListeningChanged {
    this.#listening[worker] = event;
    return { ...event, ...this.listening };
  }

  /** An overload starts with its first worker and ends with its last. */
  #isNews(worker: number, { phase, reason }: Overload): boolean {
    const workers = this.#overloaded.get(reason) ?? new Set();
    this.#overloaded.set(reason, workers);
    if (phase === 'started') return workers.size < workers.add(worker).size && workers.size === 1;
    return workers.delete(worker) && workers.size === 0;
  }

  /** The dead refuse nobody. */
  #relieved(worker: number, atMs: number): readonly Overload[] {
    const ended: Overload[] = [];
    for (const [reason, workers] of this.#overloaded) {
      if (workers.delete(worker) && workers.size === 0)
        ended.push({ type: 'overload', atMs, phase: 'ended', reason });
    }
    return ended;
  }
}
