import type { IpAddress } from '../model/address.js';
import type { DropReason } from '../model/events.js';
import type { Protocol } from '../model/five-tuple.js';
import type { FlowEndReason } from '../model/flow.js';
import type { Flow } from './flow.js';
import { hashAddress, SourceSketch } from './source-sketch.js';

/** Running totals of one (rule, backend, protocol). */
export interface TrafficTotals {
  readonly rule: string;
  readonly backendId: string;
  readonly protocol: Protocol;
  flowsOpened: number;
  flowsActive: number;
  /** Wall clock; 0: none yet. */
  lastFlowAtMs: number;
  readonly flowsEnded: Partial<Record<FlowEndReason, number>>;
  bytesToBackend: number;
  packetsToBackend: number;
  bytesToClient: number;
  packetsToClient: number;
  connectRetries: number;
  connectFailures: number;
  resets: number;
}

type TotalsByProtocol = Partial<Record<Protocol, TrafficTotals>>;

/** Running totals of one (rule, protocol) before a backend is chosen. */
export interface ArrivalTotals {
  readonly rule: string;
  readonly protocol: Protocol;
  arrivals: number;
  readonly drops: Partial<Record<DropReason, number>>;
  /** Undefined until the first flow. */
  sources: SourceSketch | undefined;
}

/**
 * Totals since the start. Bytes and packets are counted once, on the flow; they reach the totals when the flow ends,
 * moves, or when somebody asks.
 */
export class Traffic {
  /** By rule, backend, protocol: joining them to one key would cost every new flow several strings. */
  readonly #traffic = new Map<string, Map<string, TotalsByProtocol>>();
  readonly #arrivals = new Map<string, Partial<Record<Protocol, ArrivalTotals>>>();

  of(rule: string, backendId: string, protocol: Protocol): TrafficTotals {
    let byBackend = this.#traffic.get(rule);
    if (byBackend === undefined) {
      byBackend = new Map<string, TotalsByProtocol>();
      this.#traffic.set(rule, byBackend);
    }
    let byProtocol = byBackend.get(backendId);
    if (byProtocol === undefined) byBackend.set(backendId, (byProtocol = {}));
    return (byProtocol[protocol] ??= {
      rule,
      backendId,
      protocol,
      flowsOpened: 0,
      flowsActive: 0,
      lastFlowAtMs: 0,
      flowsEnded: {},
      bytesToBackend: 0,
      packetsToBackend: 0,
      bytesToClient: 0,
      packetsToClient: 0,
      connectRetries: 0,
      connectFailures: 0,
      resets: 0,
    });
  }

  arrivals(rule: string, protocol: Protocol): ArrivalTotals {
    let byProtocol = this.#arrivals.get(rule);
    if (byProtocol === undefined) this.#arrivals.set(rule, (byProtocol = {}));
    return (byProtocol[protocol] ??= { rule, protocol, arrivals: 0, drops: {}, sources: undefined });
  }

  countDrop(rule: string, protocol: Protocol, reason: DropReason): void {
    const { drops } = this.arrivals(rule, protocol);
    drops[reason] = (drops[reason] ?? 0) + 1;
  }

  /** Notes the client of a new flow. */
  countSource(rule: string, protocol: Protocol, source: IpAddress): void {
    const totals = this.arrivals(rule, protocol);
    (totals.sources ??= new SourceSketch()).add(hashAddress(source));
  }

  /** Counts a live flow for another rule from now on: its own, under another name. What it carried so far stays. */
  rename(flow: Flow, rule: string): void {
    const { placement, tuple } = flow;
    if (placement === undefined) return;
    this.settle(flow);
    this.of(flow.rule.name, placement.backendId, tuple.protocol).flowsActive--;
    this.of(rule, placement.backendId, tuple.protocol).flowsActive++;
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
    return [...this.#traffic.values()].flatMap((byBackend) =>
      [...byBackend.values()].flatMap((byProtocol) => Object.values(byProtocol)),
    );
  }

  allArrivals(): readonly ArrivalTotals[] {
    return [...this.#arrivals.values()].flatMap((byProtocol) => Object.values(byProtocol));
  }
}

/** A row of totals as whoever asks gets it. */
export function trafficRow({ lastFlowAtMs, ...totals }: TrafficTotals): Omit<
  TrafficTotals,
  'lastFlowAtMs'
> & {
  readonly lastFlowAtMs?: number;
} {
  const copy = { ...totals, flowsEnded: { ...totals.flowsEnded } };
  return lastFlowAtMs === 0 ? copy : { ...copy, lastFlowAtMs };
}

/** As trafficRow, of arrivals. */
export function arrivalRow({ sources, ...totals }: ArrivalTotals): Omit<ArrivalTotals, 'sources'> & {
  readonly sourceSketch?: Uint8Array;
} {
  const copy = { ...totals, drops: { ...totals.drops } };
  return sources === undefined ? copy : { ...copy, sourceSketch: sources.registers.slice() };
}
