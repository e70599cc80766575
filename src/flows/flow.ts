import { formatEndpoint, type FiveTuple, type IpAddress, type Protocol } from '../model/address.js';
import type { Configuration, Rule } from '../model/configuration.js';
import type { CarriedBytes, FlowEndReason, FlowRecord, FlowState, PlacementReason } from '../model/flow.js';
import type { PoolView } from '../model/forwarding.js';
import type { WheelEntry } from './idle-wheel.js';

/**
 * A rule of a configuration, and what its new flows are placed with at present. Flows and listeners hold the slot of
 * their rule, so that a new forwarding state reaches all of them at once; another configuration has other slots.
 */
export interface RuleSlot {
  readonly rule: Rule;
  /** Into the configuration's `rules`. */
  readonly index: number;
  /** Undefined before the configuration is in force. */
  view: PoolView | undefined;
}

/** Slots of a configuration that is not in force yet. */
export function ruleSlots({ rules }: Pick<Configuration, 'rules'>): readonly RuleSlot[] {
  return rules.map((rule, index): RuleSlot => ({ rule, index, view: undefined }));
}

/** How a flow's sockets go: RST both ways, an orderly close, or already gone. */
export type CloseStyle = 'reset' | 'close' | 'gone';

/** The sockets under a flow, as the flow manager drives them. */
export interface FlowTransport {
  /** Closes every socket the flow owns, at once. Idempotent. */
  close(style: CloseStyle): void;
  /** Cuts the backend side for good; the client stays connected and unanswered. */
  blackhole(): void;
  /** UDP: has the next datagram of the client place the flow anew. TCP, only while it is embryonic: places it anew now. */
  unpin(): void;
}

/** The backend a flow is on. */
export interface Placement {
  readonly backendId: string;
  readonly endpoint: { readonly address: IpAddress; readonly port: number };
  readonly reason: PlacementReason;
  readonly epoch: number;
  readonly excluded: readonly string[];
}

/** Totals since the start of the plane, for one (rule, backend, protocol). */
export interface TrafficTotals {
  readonly rule: string;
  readonly backendId: string;
  readonly protocol: Protocol;
  flowsOpened: number;
  flowsActive: number;
  /** Wall clock, ms: when the last flow was opened, or moved here; undefined: none yet. */
  lastFlowAtMs?: number;
  readonly flowsEnded: Partial<Record<FlowEndReason, number>>;
  bytesToBackend: number;
  packetsToBackend: number;
  bytesToClient: number;
  packetsToClient: number;
  /** New TCP flows that had to try another backend after this one. */
  connectRetries: number;
  connectFailures: number;
  /** RST received from, or for idleness or policy sent to, either side. */
  resets: number;
}

/**
 * One live flow, both directions in one entry. Its owner updates the byte and packet counters and
 * `lastActivityMs` in place, for they change with every packet; all else changes through the flow manager.
 */
export class Flow implements WheelEntry {
  readonly id: number;
  readonly transport: FlowTransport;
  readonly openedAtWallMs: number;
  tuple: FiveTuple;
  slot: RuleSlot;
  /** Undefined until it is placed. */
  placement: Placement | undefined = undefined;
  state: FlowState = 'embryonic';
  /** Monotonic; set by the owner with every packet of either direction. */
  lastActivityMs: number;
  bytesToBackend = 0;
  packetsToBackend = 0;
  bytesToClient = 0;
  packetsToClient = 0;

  /** Position in the flow table; -1: not in it. */
  tableIndex = -1;
  /** The flow table's own: its flows on one backend are a list through these. */
  backendNext: Flow | undefined = undefined;
  backendPrevious: Flow | undefined = undefined;
  /** The flow table's own: descriptors that are kept for it. */
  descriptors = 0;
  /** The flow table's own: it may be evicted; the queue of those is a list through these. */
  isEvictable = false;
  evictNext: Flow | undefined = undefined;
  evictPrevious: Flow | undefined = undefined;
  /** Of its rule, backend and protocol; undefined until it is placed. */
  totals: TrafficTotals | undefined = undefined;
  /** What of the counters is already in the totals; see traffic. */
  settledBytesToBackend = 0;
  settledPacketsToBackend = 0;
  settledBytesToClient = 0;
  settledPacketsToClient = 0;

  wheelNext: WheelEntry | undefined = undefined;
  wheelPrevious: WheelEntry | undefined = undefined;
  wheelSlot = -1;

  constructor(init: {
    readonly id: number;
    readonly tuple: FiveTuple;
    readonly slot: RuleSlot;
    readonly transport: FlowTransport;
    readonly wallMs: number;
    readonly nowMs: number;
    /** Of a flow that comes from another process: its counters continue, the totals here count only what comes now. */
    readonly past?: FlowPast | undefined;
  }) {
    this.id = init.id;
    this.tuple = init.tuple;
    this.slot = init.slot;
    this.transport = init.transport;
    this.openedAtWallMs = init.past?.openedAtMs ?? init.wallMs;
    this.lastActivityMs = init.nowMs;
    const { past } = init;
    if (past === undefined) return;
    this.bytesToBackend = this.settledBytesToBackend = past.bytesToBackend;
    this.packetsToBackend = this.settledPacketsToBackend = past.packetsToBackend;
    this.bytesToClient = this.settledBytesToClient = past.bytesToClient;
    this.packetsToClient = this.settledPacketsToClient = past.packetsToClient;
  }

  get rule(): Rule {
    return this.slot.rule;
  }
}

/** What a flow has been through in another process. */
export interface FlowPast extends CarriedBytes {
  /** Milliseconds since the epoch. */
  readonly openedAtMs: number;
}

/** A copy for people, logs and other processes. */
export function flowRecord(flow: Flow, nowMs: number): FlowRecord {
  const { placement } = flow;
  return {
    id: flow.id,
    tuple: flow.tuple,
    rule: flow.rule.name,
    backendId: placement?.backendId ?? '',
    backendEndpoint:
      placement === undefined ? '' : formatEndpoint(placement.endpoint.address, placement.endpoint.port),
    reason: placement?.reason ?? 'hash',
    state: flow.state,
    epoch: placement?.epoch ?? 0,
    excluded: placement?.excluded ?? [],
    openedAtMs: flow.openedAtWallMs,
    idleMs: Math.max(0, nowMs - flow.lastActivityMs),
    bytesToBackend: flow.bytesToBackend,
    packetsToBackend: flow.packetsToBackend,
    bytesToClient: flow.bytesToClient,
    packetsToClient: flow.packetsToClient,
  };
}

/**
 * A hash of a 32-bit number, unsigned: each bit of it sways half of the bits (MurmurHash3, fmix32). Different numbers
 * have different hashes. Not against people who choose the numbers.
 */
export function mix32(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
