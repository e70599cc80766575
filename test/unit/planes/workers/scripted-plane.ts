import type { CapShares, CapUses } from '../../../../src/flows/caps.js';
import type {
  ApplyReport,
  FlowPage,
  FlowQuery,
  ListeningSocket,
  PlaneCounters,
  StopReport,
  UdpFlowState,
  UdpStop,
  WorkerPlane,
} from '../../../../src/planes/contract.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import type { ForwardingState } from '../../../../src/model/forwarding.js';
import { NO_COUNTERS } from '../../../../src/planes/workers/counters.js';
import { aRow, anArrival } from '../../status/counters-fixtures.js';

/** Counters of a plane that has been reached so many times and has so many flows. */
export function countersOf(arrivals: number, flowsActive = 0): PlaneCounters {
  const tcp = { used: flowsActive, limit: 100 };
  return {
    ...NO_COUNTERS,
    traffic: [aRow({ flowsOpened: arrivals, flowsActive, flowsEnded: { closed: arrivals - flowsActive } })],
    arrivals: [anArrival({ arrivals })],
    table: { ...NO_COUNTERS.table, tcp },
    eventLoopDelaySeconds: [0.001],
    listeners: { hub: { open: 5, wanted: 5 } },
  };
}

/** A plane that does at once what it is told, unless the test holds it back. */
export class ScriptedPlane implements WorkerPlane {
  /** Every call, as `apply 3`. */
  readonly calls: string[] = [];
  present: PlaneCounters = countersOf(0);
  live = 0;
  /** What it was last allowed, by cap. */
  readonly shares = new Map<string, number>();
  uses: CapUses = new Map();
  startFailure: Error | undefined;
  /** What a start answers beside the revision, if not the usual. */
  listening: Partial<ApplyReport> = {};
  /** Flows in pages, by cursor. */
  pages: readonly FlowPage[] | undefined;
  prepareFailure: Error | undefined;
  applyFailure: Error | undefined;
  stopFailure: Error | undefined;
  /** While true, start, counters and stop stay unanswered. */
  frozen = false;
  #release: (() => void)[] = [];
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();

  async start(state: ForwardingState): Promise<ApplyReport> {
    this.calls.push(`start ${state.revision}`);
    await this.#thaw();
    if (this.startFailure !== undefined) throw this.startFailure;
    return { ...report(state), ...this.listening };
  }

  async prepare(state: ForwardingState): Promise<void> {
    this.calls.push(`prepare ${state.revision}`);
    await this.#thaw();
    if (this.prepareFailure !== undefined) throw this.prepareFailure;
  }

  async apply(state: ForwardingState): Promise<ApplyReport> {
    this.calls.push(`apply ${state.revision}`);
    await this.#thaw();
    if (this.applyFailure !== undefined) throw this.applyFailure;
    return report(state);
  }

  inherited: readonly ListeningSocket[] = [];
  inheritedFlows: readonly UdpFlowState[] = [];
  /** What it lends, and what a freeze tells of. */
  lent: readonly ListeningSocket[] = [];
  frozenFlows: readonly UdpFlowState[] = [];

  inherit(sockets: readonly ListeningSocket[]): Promise<void> {
    this.inherited = sockets;
    return Promise.resolve();
  }

  inheritFlows(flows: readonly UdpFlowState[]): void {
    this.inheritedFlows = flows;
  }

  lend(onSocket: (socket: ListeningSocket) => void): Promise<void> {
    this.calls.push('lend');
    for (const socket of this.lent) onSocket(socket);
    return Promise.resolve();
  }

  freezeUdp(): Promise<readonly UdpFlowState[]> {
    this.calls.push('freeze');
    return Promise.resolve(this.frozenFlows);
  }

  thawUdp(): Promise<void> {
    this.calls.push('thaw');
    return Promise.resolve();
  }

  async flows(query: FlowQuery): Promise<FlowPage> {
    this.calls.push(`flows ${query.limit}`);
    await this.#thaw();
    return this.pages?.[query.after ?? 0] ?? { flows: [], next: 9 };
  }

  async counters(): Promise<PlaneCounters> {
    this.calls.push('counters');
    const { present } = this;
    await this.#thaw();
    return present;
  }

  async answer(): Promise<void> {
    this.calls.push('answer');
    await this.#thaw();
  }

  allow(shares: CapShares): void {
    for (const [name, share] of shares) this.shares.set(name, share.share);
  }

  capUses(): CapUses {
    return this.uses;
  }

  flowCount(): number {
    return this.live;
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async stop(deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    this.calls.push(`stop ${deadlineMs} ${udp}`);
    await this.#thaw();
    if (this.stopFailure !== undefined) throw this.stopFailure;
    return { finished: 3, reset: 1 };
  }

  emit(...events: readonly PlaneEvent[]): void {
    for (const listener of this.#listeners) listener(events);
  }

  /** Answers all that waits. */
  thaw(): void {
    this.frozen = false;
    for (const release of this.#release.splice(0)) release();
  }

  #thaw(): Promise<void> {
    return this.frozen ? new Promise((resolve) => this.#release.push(resolve)) : Promise.resolve();
  }
}

function report({ revision }: ForwardingState): ApplyReport {
  return { revision, listeners: { tcp: 2, udp: 1 }, failures: [] };
}
