import { AnsweringPorts, forwardsOnePort } from '../../../flows/answering-ports.js';
import { EventQueue } from '../../../flows/event-queue.js';
import type { TrafficTotals } from '../../../flows/flow.js';
import { Traffic } from '../../../flows/traffic.js';
import {
  PROTOCOL_NUMBER,
  formatEndpoint,
  ipAddress,
  type FiveTuple,
  type Protocol,
} from '../../../model/address.js';
import type { Configuration, Limits } from '../../../model/configuration.js';
import type { PlaneEvent } from '../../../model/events.js';
import type { FlowEndReason, FlowRecord, FlowState } from '../../../model/flow.js';
import type { ForwardingState } from '../../../model/forwarding.js';
import { inTime, type Clock } from '../../../runtime/clock.js';
import type { Files } from '../../../runtime/files.js';
import type { Picker } from '../../../selection/picker.js';
import type { FlowPage, FlowQuery, OtherFlowCount, PlaneCounters } from '../../contract.js';
import {
  Conntrack,
  copied,
  markFilter,
  protocolOf,
  type ConntrackEntry,
  type EntrySource,
} from '../../netfilter/conntrack.js';
import type { Tools } from '../../netfilter/tools.js';
import { FloatingEntries } from '../ebpf/floating-flows.js';
import { ConntrackUse, missingAccounts } from '../machine.js';
import { INSTANCE_MASK, markTag, type KernelProgram } from '../program.js';
import { Placements, type EndingFlows, type PlacementRecord } from './placements.js';

/** A flow that is counted: its totals, and the last listing that had it or that began before it. */
interface CountedFlow {
  totals: TrafficTotals | OtherTotals;
  round: number;
}

/** A flow of TCP or UDP that is listed as well. */
interface TrackedFlow extends CountedFlow {
  totals: TrafficTotals;
  /** Unique in the process, and growing. */
  readonly id: number;
  /** Text: an address object for each flow would take most of the memory. */
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly backendPort: number;
  readonly openedAtMs: number;
  mark: number;
  /** Epoch in which it was placed. */
  since: number;
  hasMoved: boolean;
  /** Undefined until it is asked for. */
  placement: PlacementRecord | undefined;
  /** As conntrack names it; '' without one. */
  state: string;
  lastPacketAtMs: number;
  bytesToBackend: number;
  packetsToBackend: number;
  bytesToClient: number;
  packetsToClient: number;
}

/** Of flows without ports, which are never listed: a flow has ports, as it is shown. */
type OtherTotals = { -readonly [Key in keyof OtherFlowCount]: OtherFlowCount[Key] };

/** How a flow came to be known. `adopted`: it was there before this process. `missed`: its beginning was not reported. */
type Discovery = 'reported' | 'adopted' | 'missed';

export interface ConntrackFlowsDeps {
  readonly clock: Clock;
  readonly tools: Tools;
  /** Reads the sysctls of conntrack. */
  readonly files: Files;
  readonly picker: Picker;
  /** Where the flows are read from. @default conntrack, by the instance's marks */
  readonly source?: EntrySource;
}

export interface ConntrackFlowsOptions {
  /** Whether flow-started, flow-ended and flow-moved are wanted. */
  readonly flowEvents: boolean;
}

/** Callers wait no longer than that for the newest figures: they then get those of before. */
const PATIENCE_MS = 300;

/**
 * The flows that the kernel has: by conntrack, or by the flow map where there is no conntrack. Nothing here is on the
 * path of a packet. Beginnings and ends are followed only while something consumes them (see `areConsumed`); without, a
 * flow is found, and missed, when flows are listed. Bytes, states and idle times are read, and placements explained, when
 * asked for.
 */
export class ConntrackFlows {
  readonly #deps: ConntrackFlowsDeps;
  readonly #conntrack: Conntrack;
  readonly #flowEvents: boolean;
  readonly #events: EventQueue;
  /** Of TCP: a refused UDP datagram leaves no trace in conntrack. */
  readonly #answering: AnsweringPorts;
  readonly #placements: Placements;
  readonly #use: ConntrackUse;
  readonly #refresh: Refresh;
  readonly #traffic = new Traffic();
  /** By key, in the order in which they came: pages are read by id while others come and go. */
  readonly #flows = new Map<number, CountedFlow>();
  readonly #otherTotals = new Map<string, OtherTotals>();
  readonly #listed: Record<Protocol, number> = { tcp: 0, udp: 0 };
  /** Flows of TCP and UDP above the limits. */
  #unlisted = 0;
  #source: EntrySource | undefined;
  #program: KernelProgram | undefined;
  #limits: Limits | undefined;
  #lastId = 0;
  #round = 0;
  /** Flows that went while they were being listed: the list may have them. */
  #goneMeanwhile: Set<number> | undefined;
  #discovery: Exclude<Discovery, 'reported'> = 'adopted';
  /** There while beginnings and ends are followed. */
  #feed: { readonly begun: Promise<void>; readonly stop: () => void } | undefined;
  #gaps = 0;

  constructor(deps: ConntrackFlowsDeps, { flowEvents }: ConntrackFlowsOptions) {
    this.#deps = deps;
    this.#flowEvents = flowEvents;
    this.#conntrack = new Conntrack(deps);
    this.#events = new EventQueue(deps.clock);
    this.#answering = new AnsweringPorts(deps.clock.monotonicMs());
    this.#placements = new Placements(deps.picker);
    this.#use = new ConntrackUse(deps, (event) => this.#events.push(event));
    this.#refresh = new Refresh(deps.clock, () => this.#list());
  }

  /**
   * The program that identifies flows from now on. Call it before each change of the kernel. From the first call on flows are
   * followed where that is wanted, so that none is missed.
   */
  update(state: ForwardingState, program: KernelProgram): void {
    const { configuration } = state;
    this.#rename(this.#placements.adopt(state, program));
    this.#program = program;
    this.#limits = configuration.limits;
    this.#source ??= this.#deps.source ?? this.#sourceOf(program);
    if (this.#flowEvents || areConsumed(configuration)) {
      this.#feed ??= this.#follow(this.#source);
    } else {
      this.#feed?.stop();
      this.#feed = undefined;
    }
  }

  /** Learns what is there already, once `update` was called. Never rejects. */
  async start(): Promise<void> {
    if (this.#source === undefined) throw new TypeError('There is no forwarding state yet');
    await Promise.all([this.#feed?.begun, this.#use.start()]);
    await this.#refresh.now();
    this.#discovery = 'missed';
  }

  /** What is unknown about flows because of a sysctl, one sentence each. Never rejects. */
  async shortcomings(): Promise<readonly string[]> {
    if (this.#source?.follow === undefined) return [];
    return missingAccounts(this.#deps.files, { followed: this.#feed !== undefined });
  }

  /** From now on, flows of that kind that a program deletes have ended for that reason; until the next `update`. */
  ending(flows: EndingFlows, reason: FlowEndReason): void {
    this.#placements.ending(flows, reason);
  }

  /** The first page is of now, the next ones continue from there. */
  async page(query: FlowQuery): Promise<FlowPage> {
    if (query.after === undefined) await this.#refreshed();
    const flows: FlowRecord[] = [];
    const { after = 0 } = query;
    for (const flow of this.#flows.values()) {
      if (!isListed(flow) || flow.id < after || !matchesQuery(flow, query)) continue;
      if (flows.length === query.limit) return { flows, next: flow.id };
      flows.push(this.#record(flow));
    }
    return { flows };
  }

  async freshen(): Promise<void> {
    await this.#refresh.now();
  }

  /** Totals of now: what is older than a second is read again. */
  async counters(): Promise<Pick<PlaneCounters, 'traffic' | 'arrivals' | 'table' | 'kernelFlows'>> {
    await this.#refreshed();
    const traffic = this.#traffic.rows();
    const active = (protocol: Protocol): number =>
      traffic.reduce((sum, row) => sum + (row.protocol === protocol ? row.flowsActive : 0), 0);
    // What is above these limits is not listed, but forwarded all the same.
    const { tcpFlows = 0, udpFlows = 0 } = this.#limits ?? {};
    const { use: conntrack } = this.#use;
    return {
      traffic,
      arrivals: this.#traffic.arrivalRows(),
      table: {
        tcp: { used: active('tcp'), limit: tcpFlows },
        udp: { used: active('udp'), limit: udpFlows },
        embryonic: { used: 0, limit: 0 },
      },
      kernelFlows: {
        ...(conntrack && { conntrack }),
        otherFlows: Array.from(this.#otherTotals.values(), (totals) => ({ ...totals })),
        unlisted: this.#unlisted,
        gaps: this.#gaps,
      },
    };
  }

  /** Live flows of TCP and UDP. */
  count(): number {
    return this.#listed.tcp + this.#listed.udp + this.#unlisted;
  }

  /** Entries with that mark, of any protocol, as conntrack has them now; undefined: it could not be found out. */
  async countOf(mark: number): Promise<number | undefined> {
    let count = 0;
    const failure = await this.#conntrack.list(markFilter(mark, 0xffffffff), (entries) => {
      count += entries.length;
    });
    return failure === undefined ? count : undefined;
  }

  /** Batches of flow-started, flow-moved, flow-ended, passive-failure and table-pressure. */
  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    return this.#events.subscribe(listener);
  }

  /** Reports what it knows, and looks no more. Idempotent. */
  stop(): Promise<void> {
    this.#feed?.stop();
    this.#refresh.stop();
    this.#use.stop();
    this.#events.flush();
    return Promise.resolve();
  }

  /** The mode never changes in a process. */
  #sourceOf({ instance, options }: KernelProgram): EntrySource {
    if (options.mode === 'floating-l2' || options.mode === 'floating-routed') {
      return new FloatingEntries(this.#deps.tools, () => this.#program);
    }
    const filter = markFilter(markTag(instance), INSTANCE_MASK);
    return {
      follow: (follower) => this.#conntrack.follow(filter, follower),
      list: async (onEntries) => (await this.#conntrack.list(filter, onEntries)) === undefined,
    };
  }

  #follow(source: EntrySource): { readonly begun: Promise<void>; readonly stop: () => void } {
    if (source.follow === undefined) return { begun: Promise.resolve(), stop: () => undefined };
    let begin: (() => void) | undefined;
    const begun = new Promise<void>((resolve) => (begin = resolve));
    const isFirst = this.#discovery === 'adopted';
    const stop = source.follow({
      onEntries: (entries) => {
        for (const entry of entries) {
          if (entry.event === 'new') this.#begin(entry, 'reported');
          else if (entry.event === 'gone') this.#end(entry);
        }
      },
      onGap: () => {
        if (begin === undefined) this.#gaps++;
        // What came and went while flows were not followed was missed.
        if (begin === undefined || !isFirst) this.#refresh.outdated();
        begin?.();
        begin = undefined;
      },
    });
    return { begun, stop };
  }

  async #refreshed(): Promise<void> {
    if (this.#source === undefined) return;
    await inTime(this.#refresh.soon(), PATIENCE_MS, this.#deps.clock).catch(() => undefined);
  }

  /** Whether all flows could be listed. */
  async #list(): Promise<boolean> {
    const source = this.#source;
    if (source === undefined) return false;
    this.#round++;
    this.#goneMeanwhile = new Set();
    const isWhole = await source.list((entries) => {
      for (const entry of entries) this.#see(entry);
    });
    this.#goneMeanwhile = undefined;
    // A list that was cut off says nothing of what it lacks.
    if (!isWhole) this.#round--;
    else this.#dropUnseen();
    return isWhole;
  }

  /**
   * What the list did not have is gone. Where ends are reported, only once another list lacks it too: to list is what has
   * the kernel remove flows whose time is up, and their ends are on their way.
   */
  #dropUnseen(): void {
    const isFollowed = this.#feed !== undefined && this.#source?.follow !== undefined;
    const oldest = isFollowed ? this.#round - 1 : this.#round;
    let isMissing = false;
    for (const [key, flow] of this.#flows) {
      if (flow.round < oldest) this.#remove(key, flow);
      else isMissing ||= flow.round < this.#round;
    }
    if (isMissing) this.#refresh.outdated();
  }

  /** A flow of a list. */
  #see(entry: ConntrackEntry): void {
    const key = flowKey(entry);
    let flow = this.#flows.get(key);
    if (flow === undefined) {
      if (isClosed(entry.state) || this.#goneMeanwhile?.has(key) === true) return;
      this.#begin(entry, this.#discovery);
      flow = this.#flows.get(key);
      if (flow !== undefined && isListed(flow)) this.#noteState(flow, entry);
      return;
    }
    flow.round = this.#round;
    this.#noteAnswer(flow, entry);
    if (!isListed(flow)) return;
    countTraffic(flow, entry);
    this.#noteMove(flow, entry);
    this.#noteState(flow, entry);
    if (isClosed(entry.state)) this.#remove(key, flow, entry);
  }

  /** Of so many flows as `limits` says each is known by itself; what comes on top is only counted. */
  #begin(entry: ConntrackEntry, discovery: Discovery): void {
    const { original, mark } = entry;
    const backend = this.#placements.backend(mark);
    if (backend === undefined) return;
    const key = flowKey(entry);
    const known = this.#flows.get(key);
    if (known !== undefined) {
      // A listing may have shown it before the event.
      if (!isListed(known) || isSame(known, entry)) return;
      this.#remove(key, known, 'closed');
    }
    const round = this.#round;
    const protocol = protocolOf(entry);
    if (protocol === undefined) {
      const totals = this.#totalsOf(entry.protocol, backend.id);
      totals.opened++;
      totals.active++;
      this.#flows.set(key, { totals, round });
      return;
    }
    const { source, sourcePort, destination, destinationPort } = original;
    const tuple = this.#tuple(protocol, original);
    const rule = this.#placements.ruleOf(tuple, backend);
    const totals = this.#traffic.of(rule.name, backend.id, protocol);
    const nowMs = this.#deps.clock.wallMs();
    totals.flowsActive++;
    if (discovery !== 'adopted') {
      totals.flowsOpened++;
      totals.lastFlowAtMs = nowMs;
      this.#traffic.arrivals(rule.name, protocol).arrivals++;
      this.#traffic.countSource(rule.name, protocol, tuple.source);
    }
    const { tcpFlows = 0, udpFlows = 0 } = this.#limits ?? {};
    if (this.#listed[protocol] >= (protocol === 'tcp' ? tcpFlows : udpFlows)) {
      this.#unlisted++;
      this.#flows.set(key, { totals, round });
      return;
    }
    const flow: TrackedFlow = {
      ...{ id: ++this.#lastId, totals, round },
      ...{ source: copied(source), sourcePort, destination: copied(destination), destinationPort },
      backendPort: destinationPort + rule.portOffset,
      openedAtMs: nowMs - (entry.ageSeconds ?? 0) * 1000,
      ...{ mark, since: this.#placements.epoch, hasMoved: false, placement: undefined },
      ...{ state: entry.state, lastPacketAtMs: nowMs },
      ...{ bytesToBackend: 0, packetsToBackend: 0, bytesToClient: 0, packetsToClient: 0 },
    };
    countTraffic(flow, entry);
    this.#listed[protocol]++;
    this.#flows.set(key, flow);
    if (this.#flowEvents && discovery !== 'adopted') {
      this.#events.push({ type: 'flow-started', atMs: nowMs, flow: this.#record(flow) });
    }
  }

  /** A flow has gone. */
  #end(entry: ConntrackEntry): void {
    const key = flowKey(entry);
    this.#goneMeanwhile?.add(key);
    const flow = this.#flows.get(key);
    if (flow === undefined) return;
    if (isListed(flow)) countTraffic(flow, entry);
    this.#noteAnswer(flow, entry);
    const end = this.#remove(key, flow, entry);
    if (end === 'refused') {
      const { backendId } = flow.totals;
      this.#events.push({ type: 'port-refused', atMs: this.#deps.clock.wallMs(), backendId });
    }
    if (entry.byProgram || end !== 'connect-failed') return;
    // As the userspace plane words it.
    const evidence = entry.state === 'CLOSE' ? 'ECONNREFUSED' : 'connect timeout';
    const { backendId } = flow.totals;
    this.#events.push({ type: 'passive-failure', atMs: this.#deps.clock.wallMs(), backendId, evidence });
  }

  #totalsOf(protocol: number, backendId: string): OtherTotals {
    const name = `${protocol} ${backendId}`;
    const totals = this.#otherTotals.get(name) ?? { backendId, protocol, opened: 0, active: 0 };
    this.#otherTotals.set(name, totals);
    return totals;
  }

  /** `last`: how it went, or conntrack's last entry of it; absent: that was not reported. Returns why it ended. */
  #remove(key: number, flow: CountedFlow, last?: ConntrackEntry | 'closed'): FlowEndReason | undefined {
    this.#flows.delete(key);
    const { totals } = flow;
    if ('active' in totals) {
      totals.active--;
      return undefined;
    }
    const end = last === 'closed' ? last : this.#endOf(totals, last);
    countEnd(totals, end);
    if (!isListed(flow)) {
      this.#unlisted--;
      return end;
    }
    this.#listed[totals.protocol]--;
    if (this.#flowEvents) {
      const atMs = this.#deps.clock.wallMs();
      this.#events.push({ type: 'flow-ended', atMs, flow: this.#record(flow), end });
    }
    return end;
  }

  /** The kernel may have placed a flow anew. */
  #noteMove(flow: TrackedFlow, { mark }: ConntrackEntry): void {
    if (mark === flow.mark) return;
    const { rule, backendId: fromBackendId, protocol } = flow.totals;
    const backendId = this.#placements.backend(mark)?.id;
    if (backendId === undefined || backendId === fromBackendId) return;
    const nowMs = this.#deps.clock.wallMs();
    flow.totals.flowsActive--;
    flow.totals = this.#traffic.of(rule, backendId, protocol);
    flow.totals.flowsActive++;
    flow.totals.lastFlowAtMs = nowMs;
    Object.assign(flow, { mark, since: this.#placements.epoch, hasMoved: true, placement: undefined });
    if (!this.#flowEvents) return;
    this.#events.push({ type: 'flow-moved', atMs: nowMs, flow: this.#record(flow), fromBackendId });
  }

  #noteState(flow: TrackedFlow, { state, remainingSeconds, idleMs }: ConntrackEntry): void {
    flow.state = state;
    const nowMs = this.#deps.clock.wallMs();
    if (idleMs !== undefined) flow.lastPacketAtMs = nowMs - idleMs;
    // Other states have other timeouts.
    else if (remainingSeconds >= 0 && (state === 'ESTABLISHED' || state === '')) {
      const timeoutMs = this.#placements.idleTimeoutMs(flow.totals);
      if (timeoutMs === undefined) return;
      flow.lastPacketAtMs = nowMs - Math.max(0, timeoutMs - remainingSeconds * 1000);
    }
  }

  /** Live flows stay, under the new names of their rules. */
  #rename(names: ReadonlyMap<string, string>): void {
    if ([...names].every(([before, after]) => before === after)) return;
    for (const flow of this.#flows.values()) {
      if ('active' in flow.totals) continue;
      const { rule, backendId, protocol } = flow.totals;
      const name = names.get(rule);
      if (name === undefined || name === rule) continue;
      flow.totals.flowsActive--;
      flow.totals = this.#traffic.of(name, backendId, protocol);
      flow.totals.flowsActive++;
    }
  }

  /** As it is shown and logged. */
  #record(flow: TrackedFlow): FlowRecord {
    const { id, totals, openedAtMs, hasMoved } = flow;
    const { rule, backendId, protocol } = totals;
    const tuple = this.#tuple(protocol, flow);
    const placement = (flow.placement ??= this.#placements.explain(tuple, backendId, flow.since));
    const address = this.#placements.backend(flow.mark)?.address;
    return {
      ...{ id, tuple, rule, backendId },
      backendEndpoint: address === undefined ? '' : formatEndpoint(address, flow.backendPort),
      state: TCP_STATES.get(flow.state)?.[0] ?? 'established',
      ...placement,
      reason: hasMoved && placement.reason !== 'pinned' ? 'rebalanced' : placement.reason,
      openedAtMs,
      // The kernel counts what is left of a timeout in whole seconds: no flow is idle for longer than it lives.
      idleMs: Math.max(0, this.#deps.clock.wallMs() - Math.max(flow.lastPacketAtMs, openedAtMs)),
      bytesToBackend: flow.bytesToBackend,
      packetsToBackend: flow.packetsToBackend,
      bytesToClient: flow.bytesToClient,
      packetsToClient: flow.packetsToClient,
    };
  }

  #tuple(
    protocol: Protocol,
    ends: Pick<TrackedFlow, 'source' | 'sourcePort' | 'destination' | 'destinationPort'>,
  ): FiveTuple {
    return {
      protocol,
      source: ipAddress(ends.source),
      sourcePort: ends.sourcePort,
      destination: this.#placements.address(ends.destination),
      destinationPort: ends.destinationPort,
    };
  }

  #endOf(totals: TrafficTotals, last: ConntrackEntry | undefined): FlowEndReason {
    if (last?.byProgram === false) {
      const end = naturalEnd(last);
      return end === 'connect-failed' && this.#isRefusal(totals, last) ? 'refused' : end;
    }
    const unknown = last !== undefined || totals.protocol === 'tcp' ? 'closed' : 'idle';
    return this.#placements.policyEnd(totals) ?? unknown;
  }

  #noteAnswer({ totals }: CountedFlow, { protocol, unreplied, reply }: ConntrackEntry): void {
    if (unreplied || protocol !== PROTOCOL_NUMBER.tcp) return;
    this.#answering.add(totals.backendId, reply.sourcePort, this.#deps.clock.monotonicMs());
  }

  /** Whether the backend refused one of many ports, which had not been open: see FlowManager.refused. */
  #isRefusal({ rule, backendId }: TrafficTotals, { state, reply }: ConntrackEntry): boolean {
    const own = this.#placements.rule(rule);
    if (state !== 'CLOSE' || own === undefined || forwardsOnePort(own)) return false;
    return !this.#answering.has(backendId, reply.sourcePort, this.#deps.clock.monotonicMs());
  }
}

function isListed(flow: CountedFlow): flow is TrackedFlow {
  return 'id' in flow;
}

/** What a flow is known by. Ids have 32 bits: of 100,000 flows two may well have the same. */
function flowKey({ id, original }: Pick<ConntrackEntry, 'id' | 'original'>): number {
  return id * 0x10000 + original.sourcePort;
}

/** Whether they have one five-tuple, given that they have one key. */
function isSame(flow: TrackedFlow, { original }: ConntrackEntry): boolean {
  return (
    flow.source === original.source &&
    flow.destination === original.destination &&
    flow.destinationPort === original.destinationPort
  );
}

function matchesQuery({ source, sourcePort, totals }: TrackedFlow, query: FlowQuery): boolean {
  return (
    (query.sourcePort ?? sourcePort) === sourcePort &&
    (query.source ?? source) === source &&
    (query.protocol ?? totals.protocol) === totals.protocol &&
    (query.rule ?? totals.rule) === totals.rule &&
    (query.backendId ?? totals.backendId) === totals.backendId
  );
}

/** What is counted of a flow, and what of conntrack's entry tells it. */
const COUNTED = [
  ['bytesToBackend', 'original', 'bytes'],
  ['packetsToBackend', 'original', 'packets'],
  ['bytesToClient', 'reply', 'bytes'],
  ['packetsToClient', 'reply', 'packets'],
] as const;

/** Adopts what the kernel has counted, into the totals too. Where the kernel stops counting, nothing is lost. */
function countTraffic(flow: TrackedFlow, entry: ConntrackEntry): void {
  for (const [key, direction, unit] of COUNTED) {
    const counted = entry[direction][unit];
    if (counted <= flow[key]) continue;
    flow.totals[key] += counted - flow[key];
    flow[key] = counted;
  }
}

function countEnd(totals: TrafficTotals, end: FlowEndReason): void {
  totals.flowsActive--;
  totals.flowsEnded[end] = (totals.flowsEnded[end] ?? 0) + 1;
  if (end === 'reset') totals.resets++;
  if (end === 'connect-failed') totals.connectFailures++;
}

/** Whether both ends are done with it, although the kernel remembers it for a while. */
function isClosed(state: string): boolean {
  return state === 'TIME_WAIT' || state === 'CLOSE';
}

/** States of TCP, as conntrack names them: how such a flow is shown, and why it went if no program has deleted it. */
const TCP_STATES: ReadonlyMap<string, readonly [shown: FlowState, end: FlowEndReason]> = new Map([
  ['SYN_SENT', ['embryonic', 'embryonic-timeout']],
  ['SYN_SENT2', ['embryonic', 'embryonic-timeout']],
  ['SYN_RECV', ['embryonic', 'embryonic-timeout']],
  ['ESTABLISHED', ['established', 'idle']],
  ['FIN_WAIT', ['half-closed', 'idle']],
  ['CLOSE_WAIT', ['half-closed', 'idle']],
  ['LAST_ACK', ['half-closed', 'closed']],
  ['CLOSE', ['established', 'reset']],
]);

/** Why a flow went that no program deleted, from how conntrack saw it last. */
function naturalEnd({ protocol, state, unreplied }: ConntrackEntry): FlowEndReason {
  if (protocol !== PROTOCOL_NUMBER.tcp) return 'idle';
  const [, end] = TCP_STATES.get(state) ?? [undefined, 'closed'];
  // A backend that refuses has not answered, as conntrack sees it.
  return unreplied && (end === 'reset' || end === 'embryonic-timeout') ? 'connect-failed' : end;
}

/**
 * Whether something consumes beginnings and ends: metrics count them, and connections that fail have probes sent at once.
 * The flow log is asked for by `flowEvents`.
 */
function areConsumed({ metrics, rules }: Configuration): boolean {
  return metrics !== undefined || rules.some(({ probe }) => probe !== undefined);
}

/** Those who watch need it no more often. */
const LEAST_INTERVAL_MS = 1000;

/** Of its time, the share that reading may take: a large table is read less often. */
const MOST_SHARE = 1 / 20;

/** Reads something that takes time: one reading at a time, and not again before the last one is old. */
class Refresh {
  readonly #clock: Clock;
  readonly #read: () => Promise<boolean>;
  #reading: Promise<boolean> | undefined;
  /** One that has yet to begin: for callers for whom the one under way has begun too early. */
  #next: Promise<boolean> | undefined;
  #dueAtMs = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | undefined;
  #stopped = false;

  /** `read` tells whether it succeeded, and does not reject. */
  constructor(clock: Clock, read: () => Promise<boolean>) {
    this.#clock = clock;
    this.#read = read;
  }

  /** Resolves when what is known is at most a second old, or a little more where reading takes long. */
  async soon(): Promise<void> {
    if (this.#stopped) return;
    if (this.#reading !== undefined) await this.#reading;
    else if (this.#clock.monotonicMs() >= this.#dueAtMs) await this.#begin();
  }

  /** Reads anew, whatever is known. */
  now(): Promise<boolean> {
    if (this.#stopped) return Promise.resolve(false);
    if (this.#reading === undefined) return this.#begin();
    this.#next ??= this.#reading.then(() => {
      this.#next = undefined;
      return this.#stopped ? false : this.#begin();
    });
    return this.#next;
  }

  /** What is known is wrong: reads anew, but no more often than for callers. Returns at once. */
  outdated(): void {
    if (this.#stopped || this.#cancel !== undefined) return;
    const waitMs = Math.max(0, this.#dueAtMs - this.#clock.monotonicMs());
    const read = (): void => {
      this.#cancel = undefined;
      void this.now();
    };
    this.#cancel = this.#clock.setTimer(waitMs, read, { unref: true });
  }

  /** The one under way ends; no other begins. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  #begin(): Promise<boolean> {
    const begunAtMs = this.#clock.monotonicMs();
    this.#reading = this.#read().finally(() => {
      this.#reading = undefined;
      const tookMs = this.#clock.monotonicMs() - begunAtMs;
      this.#dueAtMs = begunAtMs + Math.max(LEAST_INTERVAL_MS, tookMs / MOST_SHARE);
    });
    return this.#reading;
  }
}
