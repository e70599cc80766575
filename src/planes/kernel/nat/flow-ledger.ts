import type { TrafficTotals } from '../../../flows/flow.js';
import { Traffic, arrivalRow, trafficRow } from '../../../flows/traffic.js';
import { PROTOCOLS, ipAddress, type Protocol } from '../../../model/address.js';
import type { Limits } from '../../../model/configuration.js';
import type { PlaneEvent } from '../../../model/events.js';
import type { FlowEndReason } from '../../../model/flow.js';
import type { Clock } from '../../../runtime/clock.js';
import type { OtherFlowCount, PlaneCounters, TableUse, TrafficCounters } from '../../contract.js';
import type { ConntrackEntry } from '../../netfilter/conntrack.js';
import {
  MirroredFlows,
  TCP,
  UDP,
  countTraffic,
  failureEvidence,
  flowKey,
  flowRecord,
  isClosed,
  isSame,
  naturalEnd,
  newFlow,
  type KernelFlowEntry,
  type MirroredFlow,
} from './mirrored-flow.js';
import type { StateHistory } from './state-history.js';

export interface FlowLedgerDeps {
  readonly clock: Clock;
  readonly history: StateHistory;
  readonly emit: (event: PlaneEvent) => void;
}

/** A flow that is counted, but not listed: there are too many. */
interface Unlisted {
  readonly totals: TrafficTotals;
  round: number;
}

/** How a flow came to be known. `adopted`: it was there before this process. `missed`: its beginning was not told. */
type Discovery = 'told' | 'adopted' | 'missed';

/** Keeps account of the kernel's flows: which there are, and totals since the start. */
export class FlowLedger {
  readonly #deps: FlowLedgerDeps;
  readonly #flowEvents: boolean;
  readonly #traffic = new Traffic();
  readonly #flows = new MirroredFlows();
  readonly #unlisted = new Map<number, Unlisted>();
  readonly #other = new OtherFlows();
  readonly #listed: Record<Protocol, number> = { tcp: 0, udp: 0 };
  #lastId = 0;
  #round = 0;
  /** Flows that went while they were being listed: the list may have them. */
  #goneMeanwhile: Set<number> | undefined;

  constructor(deps: FlowLedgerDeps, { flowEvents }: { readonly flowEvents: boolean }) {
    this.#deps = deps;
    this.#flowEvents = flowEvents;
  }

  get flows(): Pick<MirroredFlows, 'page' | 'size'> {
    return this.#flows;
  }

  get traffic(): Pick<Traffic, 'allTraffic' | 'allArrivals'> {
    return this.#traffic;
  }

  get other(): Pick<OtherFlows, 'counts'> {
    return this.#other;
  }

  /** Live flows of TCP and UDP. */
  get size(): number {
    return this.#flows.size + this.#unlisted.size;
  }

  get unlisted(): number {
    return this.#unlisted.size;
  }

  /** `told`: a flow has begun. `limits`: of so many each is known by itself, and what comes on top is only counted. */
  begin(entry: ConntrackEntry, limits: Limits, discovery: Discovery = 'told'): void {
    const protocol = protocolOf(entry);
    if (protocol === undefined) {
      const backend = this.#deps.history.backend(entry.mark);
      if (backend !== undefined) this.#other.begin(flowKey(entry), entry.protocol, backend.id, this.#round);
      return;
    }
    const key = flowKey(entry);
    if (this.#unlisted.has(key)) return;
    const known = this.#flows.get(key);
    if (known !== undefined) {
      // A list may tell of it before the event does.
      if (isSame(known, entry)) return;
      this.#remove(known, 'closed');
    }
    const { history } = this.#deps;
    const placement =
      discovery === 'adopted' ? history.adopt(entry, protocol) : history.place(entry, protocol);
    if (placement === undefined) return;
    const totals = this.#traffic.of(placement.rule.name, placement.backend.id, protocol);
    totals.flowsActive++;
    if (discovery !== 'adopted') this.#countNew(entry, totals);
    if (this.#listed[protocol] >= (protocol === 'tcp' ? limits.tcpFlows : limits.udpFlows)) {
      this.#unlisted.set(key, { totals, round: this.#round });
      return;
    }
    const ids = { id: ++this.#lastId, round: this.#round };
    const flow = newFlow(entry, placement, { ...ids, totals, nowMs: this.#deps.clock.wallMs() });
    countTraffic(flow, entry);
    this.#listed[protocol]++;
    this.#flows.add(flow);
    if (this.#flowEvents && discovery !== 'adopted') {
      const nowMs = this.#deps.clock.wallMs();
      this.#deps.emit({ type: 'flow-started', atMs: nowMs, flow: flowRecord(flow, nowMs) });
    }
  }

  /** A flow has gone. */
  end(entry: ConntrackEntry): void {
    const key = flowKey(entry);
    this.#goneMeanwhile?.add(key);
    const flow = this.#flows.get(key);
    if (flow !== undefined) {
      countTraffic(flow, entry);
      this.#remove(flow, this.#endOf(entry, flow.totals));
      this.#tellFailure(entry, flow.totals.backendId);
      return;
    }
    const unlisted = this.#unlisted.get(key);
    if (unlisted === undefined) {
      this.#other.end(key);
      return;
    }
    this.#unlisted.delete(key);
    this.#countEnd(unlisted.totals, this.#endOf(entry, unlisted.totals));
    this.#tellFailure(entry, unlisted.totals.backendId);
  }

  /** All flows are about to be listed. */
  beginRound(): void {
    this.#round++;
    this.#goneMeanwhile = new Set();
  }

  /** A flow of the list. `discovery`: what it is if it is not known yet. */
  see(entry: KernelFlowEntry, limits: Limits, discovery: Exclude<Discovery, 'told'>): void {
    const key = flowKey(entry);
    const flow = this.#flows.get(key);
    if (flow !== undefined) {
      flow.round = this.#round;
      countTraffic(flow, entry);
      this.#follow(flow, entry);
      this.#update(flow, entry);
      if (isClosed(entry.state)) this.#remove(flow, this.#endOf(entry, flow.totals));
      return;
    }
    const unlisted = this.#unlisted.get(key);
    if (unlisted !== undefined) unlisted.round = this.#round;
    else if (this.#other.see(key, this.#round)) return;
    else if (!isClosed(entry.state) && this.#goneMeanwhile?.has(key) !== true) {
      this.begin(entry, limits, discovery);
      const added = this.#flows.get(key);
      if (added !== undefined) this.#update(added, entry);
    }
  }

  /**
   * The list was whole. What was not in it is gone; where that will be `told`, not before another list lacks it too.
   *
   * @returns how many are missing for the first time.
   */
  endRound(ends: 'told' | 'not-told'): number {
    this.#goneMeanwhile = undefined;
    const oldest = ends === 'told' ? this.#round - 1 : this.#round;
    let missing = 0;
    for (const flow of this.#flows.all()) {
      if (flow.round < oldest) this.#remove(flow, this.#vanished(flow.totals));
      else if (flow.round < this.#round) missing++;
    }
    for (const [key, { totals, round }] of this.#unlisted) {
      if (round >= oldest) continue;
      this.#unlisted.delete(key);
      this.#countEnd(totals, this.#vanished(totals));
    }
    this.#other.endRound(oldest);
    return missing;
  }

  /** The list was cut off, and says nothing of what it lacks. */
  abandonRound(): void {
    this.#goneMeanwhile = undefined;
    this.#round--;
  }

  /** Live flows go on under the new names of their rules. */
  rename(names: ReadonlyMap<string, string>): void {
    if ([...names].every(([before, after]) => before === after)) return;
    const renamed = (totals: TrafficTotals): TrafficTotals => {
      const { backendId, protocol } = totals;
      const name = names.get(totals.rule);
      if (name === undefined || name === totals.rule) return totals;
      const other = this.#traffic.of(name, backendId, protocol);
      totals.flowsActive--;
      other.flowsActive++;
      return other;
    };
    for (const flow of this.#flows.all()) flow.totals = renamed(flow.totals);
    for (const [key, { totals, round }] of this.#unlisted) {
      this.#unlisted.set(key, { totals: renamed(totals), round });
    }
  }

  /** Where the kernel has placed a flow anew. */
  #follow(flow: MirroredFlow, entry: KernelFlowEntry): void {
    const { history, clock, emit } = this.#deps;
    const { rule, backendId: fromBackendId, protocol } = flow.totals;
    const backendId = history.backend(entry.mark)?.id;
    if (backendId === undefined || backendId === fromBackendId) return;
    const placement = history.place(entry, protocol);
    if (placement === undefined) return;
    const { backend, epoch, excluded } = placement;
    flow.totals.flowsActive--;
    flow.totals = this.#traffic.of(rule, backendId, protocol);
    flow.totals.flowsActive++;
    const nowMs = clock.wallMs();
    flow.totals.lastFlowAtMs = nowMs;
    const reason = placement.reason === 'pinned' ? 'pinned' : 'rebalanced';
    Object.assign(flow, { backendAddress: backend.address, epoch, excluded, reason });
    if (!this.#flowEvents) return;
    emit({ type: 'flow-moved', atMs: nowMs, flow: flowRecord(flow, nowMs), fromBackendId });
  }

  #update(flow: MirroredFlow, { state, remainingSeconds, idleMs: told }: KernelFlowEntry): void {
    flow.state = state;
    if (told !== undefined) flow.lastPacketAtMs = this.#deps.clock.wallMs() - told;
    if (told !== undefined || remainingSeconds < 0) return;
    // Other states have other times.
    const isTimed = state === 'ESTABLISHED' || state === '';
    const idleTimeoutMs = isTimed ? this.#deps.history.idleTimeoutMs(flow.totals) : undefined;
    if (idleTimeoutMs === undefined) return;
    const idleMs = Math.max(0, idleTimeoutMs - remainingSeconds * 1000);
    flow.lastPacketAtMs = this.#deps.clock.wallMs() - idleMs;
  }

  #countNew({ original }: ConntrackEntry, totals: TrafficTotals): void {
    totals.flowsOpened++;
    totals.lastFlowAtMs = this.#deps.clock.wallMs();
    this.#traffic.arrivals(totals.rule, totals.protocol).arrivals++;
    this.#traffic.countSource(totals.rule, totals.protocol, ipAddress(original.source));
  }

  #remove(flow: MirroredFlow, end: FlowEndReason): void {
    this.#flows.remove(flow);
    this.#listed[flow.totals.protocol]--;
    this.#countEnd(flow.totals, end);
    if (!this.#flowEvents) return;
    const nowMs = this.#deps.clock.wallMs();
    this.#deps.emit({ type: 'flow-ended', atMs: nowMs, flow: flowRecord(flow, nowMs), end });
  }

  #countEnd(totals: TrafficTotals, end: FlowEndReason): void {
    totals.flowsActive--;
    totals.flowsEnded[end] = (totals.flowsEnded[end] ?? 0) + 1;
    if (end === 'reset') totals.resets++;
    if (end === 'connect-failed') totals.connectFailures++;
  }

  #endOf(entry: ConntrackEntry, totals: TrafficTotals): FlowEndReason {
    if (!entry.byProgram) return naturalEnd(entry);
    return this.#deps.history.policyEnd(totals) ?? 'closed';
  }

  /** Nobody said how it went. */
  #vanished(totals: TrafficTotals): FlowEndReason {
    return this.#deps.history.policyEnd(totals) ?? (totals.protocol === 'tcp' ? 'closed' : 'idle');
  }

  #tellFailure(entry: ConntrackEntry, backendId: string): void {
    const evidence = entry.byProgram ? undefined : failureEvidence(entry);
    if (evidence === undefined) return;
    this.#deps.emit({ type: 'passive-failure', atMs: this.#deps.clock.wallMs(), backendId, evidence });
  }
}

function protocolOf({ protocol }: ConntrackEntry): Protocol | undefined {
  return protocol === TCP ? 'tcp' : protocol === UDP ? 'udp' : undefined;
}

/** What the mirror knows of the plane's counters. */
export type FlowCounters = Pick<PlaneCounters, 'traffic' | 'arrivals' | 'table' | 'kernelFlows'>;

export interface CounterParts {
  readonly ledger: Pick<FlowLedger, 'traffic' | 'other' | 'unlisted'>;
  /** Absent: nothing has begun. */
  readonly limits: Limits | undefined;
  readonly conntrack: TableUse | undefined;
  readonly gaps: number;
}

/** Copies of all totals. */
export function flowCounters({ ledger, limits, conntrack, gaps }: CounterParts): FlowCounters {
  const traffic = ledger.traffic.allTraffic().map(trafficRow);
  const [tcp, udp] = PROTOCOLS.map((protocol): TableUse => {
    // What is above these limits is not listed, but forwarded all the same.
    const limit = (protocol === 'tcp' ? limits?.tcpFlows : limits?.udpFlows) ?? 0;
    return { used: activeOf(traffic, protocol), limit };
  });
  const none = { used: 0, limit: 0 };
  return {
    traffic,
    arrivals: ledger.traffic.allArrivals().map(arrivalRow),
    table: { tcp: tcp ?? none, udp: udp ?? none, embryonic: none },
    kernelFlows: {
      ...(conntrack === undefined ? {} : { conntrack }),
      ...{ otherFlows: ledger.other.counts(), unlisted: ledger.unlisted, gaps },
    },
  };
}

function activeOf(traffic: readonly TrafficCounters[], protocol: Protocol): number {
  let active = 0;
  for (const entry of traffic) if (entry.protocol === protocol) active += entry.flowsActive;
  return active;
}

interface Tally {
  readonly backendId: string;
  readonly protocol: number;
  opened: number;
  active: number;
}

/** Counts flows of ICMP, GRE, ESP ... by backend and protocol. They are not listed: a flow has ports, as it is shown. */
export class OtherFlows {
  readonly #live = new Map<number, { readonly tally: Tally; round: number }>();
  readonly #tallies = new Map<string, Tally>();

  begin(key: number, protocol: number, backendId: string, round: number): void {
    if (this.see(key, round)) return;
    const name = `${protocol} ${backendId}`;
    let tally = this.#tallies.get(name);
    if (tally === undefined) this.#tallies.set(name, (tally = { backendId, protocol, opened: 0, active: 0 }));
    tally.opened++;
    tally.active++;
    this.#live.set(key, { tally, round });
  }

  /** False: there is no such flow. */
  see(key: number, round: number): boolean {
    const flow = this.#live.get(key);
    if (flow !== undefined) flow.round = round;
    return flow !== undefined;
  }

  end(key: number): void {
    const flow = this.#live.get(key);
    if (flow === undefined) return;
    flow.tally.active--;
    this.#live.delete(key);
  }

  /** Those that were not seen in this round are gone. */
  endRound(round: number): void {
    for (const [key, flow] of this.#live) if (flow.round < round) this.end(key);
  }

  counts(): readonly OtherFlowCount[] {
    return Array.from(this.#tallies.values(), (tally) => ({ ...tally }));
  }
}
