import type { DropReason } from '../model/events.js';
import type { Protocol } from '../model/five-tuple.js';
import type { FlowEndReason } from '../model/flow.js';
import type { Flow } from './flow.js';

/** Running totals of one (rule, backend, protocol). */
export interface TrafficTotals {
  readonly rule: string;
  readonly backendId: string;
  readonly protocol: Protocol;
  flowsOpened: number;
  flowsActive: number;
  readonly flowsEnded: Partial<Record<FlowEndReason, number>>;
  bytesToBackend: number;
  packetsToBackend: number;
  bytesToClient: number;
  packetsToClient: number;
  connectRetries: number;
  connectFailures: number;
  resets: number;
}

/** Running totals of one (rule, protocol) before a backend is chosen. */
export interface ArrivalTotals {
  readonly rule: string;
  readonly protocol: Protocol;
  arrivals: number;
  readonly drops: Partial<Record<DropReason, number>>;
}

/**
 * Totals since the start. Bytes and packets are counted once, on the flow; they reach the totals when the flow ends,
 * moves, or when somebody asks.
 */
export class Traffic {
  readonly #traffic = new Map<string, TrafficTotals>();
  readonly #arrivals = new Map<string, ArrivalTotals>();

  of(rule: string, backendId: string, protocol: Protocol): TrafficTotals {
    const key = `${rule}|${backendId}|${protocol}`;
    let totals = this.#traffic.get(key);
    if (totals === undefined) {
      totals = {
        rule,
        backendId,
        protocol,
        flowsOpened: 0,
        flowsActive: 0,
        flowsEnded: {},
        bytesToBackend: 0,
        packetsToBackend: 0,
        bytesToClient: 0,
        packetsToClient: 0,
        connectRetries: 0,
        connectFailures: 0,
        resets: 0,
      };
      this.#traffic.set(key, totals);
    }
    return totals;
  }

  arrivals(rule: string, protocol: Protocol): ArrivalTotals {
    const key = `${rule}|${protocol}`;
    let totals = this.#arrivals.get(key);
    if (totals === undefined) {
      totals = { rule, protocol, arrivals: 0, drops: {} };
      this.#arrivals.set(key, totals);
    }
    return totals;
  }

  countDrop(rule: string, protocol: Protocol, reason: DropReason): void {
    const { drops } = this.arrivals(rule, protocol);
    drops[reason] = (drops[reason] ?? 0) + 1;
  }

  /** Adds what the flow has carried since it was last settled to its present backend's totals. */
  settle(flow: Flow): void {
    if (flow.placement === undefined) return;
    const totals = this.of(flow.rule.name, flow.placement.backendId, flow.tuple.protocol);
    totals.bytesToBackend += flow.bytesToBackend - flow.settledBytesToBackend;
    totals.packetsToBackend += flow.packetsToBackend - flow.settledPacketsToBackend;
    totals.bytesToClient += flow.bytesToClient - flow.settledBytesToClient;
    totals.packetsToClient += flow.packetsToClient - flow.settledPacketsToClient;
    flow.settledBytesToBackend = flow.bytesToBackend;
    flow.settledPacketsToBackend = flow.packetsToBackend;
    flow.settledBytesToClient = flow.bytesToClient;
    flow.settledPacketsToClient = flow.packetsToClient;
  }

  allTraffic(): readonly TrafficTotals[] {
    return [...this.#traffic.values()];
  }

  allArrivals(): readonly ArrivalTotals[] {
    return [...this.#arrivals.values()];
  }
}
