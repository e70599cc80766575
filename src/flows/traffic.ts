import type { IpAddress, Protocol } from '../model/address.js';
import type { DropReason } from '../model/events.js';
import { mix32, type Flow, type TrafficTotals } from './flow.js';

type TotalsByProtocol = Partial<Record<Protocol, TrafficTotals>>;

/** What arrived at a rule, before any backend was chosen. */
export interface ArrivalTotals {
  readonly rule: string;
  readonly protocol: Protocol;
  /** TCP connections accepted (Azure: SYN count), or first datagrams of UDP flows. */
  arrivals: number;
  readonly drops: Partial<Record<DropReason, number>>;
  /** HyperLogLog of the clients whose flows were established, see estimateSources; undefined until the first. */
  sourceSketch?: Uint8Array;
}

/**
 * Totals since the start. Bytes and packets are counted once, on the flow; they reach the totals when the flow ends,
 * moves, or when counters are asked for.
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
      lastFlowAtMs: undefined,
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
    return (byProtocol[protocol] ??= { rule, protocol, arrivals: 0, drops: {}, sourceSketch: undefined });
  }

  countDrop(rule: string, protocol: Protocol, reason: DropReason): void {
    const { drops } = this.arrivals(rule, protocol);
    drops[reason] = (drops[reason] ?? 0) + 1;
  }

  /** Notes the client of a new flow. */
  countSource(rule: string, protocol: Protocol, source: IpAddress): void {
    const totals = this.arrivals(rule, protocol);
    addSource((totals.sourceSketch ??= new Uint8Array(SKETCH_REGISTERS)), hashAddress(source));
  }

  /** Counts a flow as live on this row from now on, and no longer on the row before. */
  enter(flow: Flow, rule: string, backendId: string): void {
    this.leave(flow);
    const totals = this.of(rule, backendId, flow.tuple.protocol);
    totals.flowsActive++;
    flow.totals = totals;
  }

  /** Settles the flow and takes it off its row. */
  leave(flow: Flow): TrafficTotals | undefined {
    const { totals } = flow;
    if (totals === undefined) return undefined;
    this.settle(flow);
    totals.flowsActive--;
    flow.totals = undefined;
    return totals;
  }

  /** Adds what the flow has carried since it was last settled to its row. */
  settle(flow: Flow): void {
    const { totals } = flow;
    if (totals === undefined) return;
    totals.bytesToBackend += flow.bytesToBackend - flow.settledBytesToBackend;
    totals.packetsToBackend += flow.packetsToBackend - flow.settledPacketsToBackend;
    totals.bytesToClient += flow.bytesToClient - flow.settledBytesToClient;
    totals.packetsToClient += flow.packetsToClient - flow.settledPacketsToClient;
    flow.settledBytesToBackend = flow.bytesToBackend;
    flow.settledPacketsToBackend = flow.packetsToBackend;
    flow.settledBytesToClient = flow.bytesToClient;
    flow.settledPacketsToClient = flow.packetsToClient;
  }

  /** Copies of all totals, as counters are handed out. */
  rows(): readonly Readonly<TrafficTotals>[] {
    return [...this.#traffic.values()].flatMap((byBackend) =>
      [...byBackend.values()].flatMap((byProtocol) =>
        Object.values(byProtocol).map((totals) => ({ ...totals, flowsEnded: { ...totals.flowsEnded } })),
      ),
    );
  }

  arrivalRows(): readonly Readonly<ArrivalTotals>[] {
    return [...this.#arrivals.values()].flatMap((byProtocol) =>
      Object.values(byProtocol).map((totals) => ({
        ...totals,
        drops: { ...totals.drops },
        sourceSketch: totals.sourceSketch?.slice(),
      })),
    );
  }
}

/*
 * HyperLogLog (Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog: the analysis of a near-optimal cardinality estimation
 * algorithm", 2007): how many different clients there were, in a kilobyte, whatever their number. Standard error
 * 1.04 / sqrt(1024), about 3 %.
 */

/** A power of two: the first bits of a hash choose one. */
export const SKETCH_REGISTERS = 1024;

/** Figure 3 of the paper, for 128 registers or more. */
const ALPHA = 0.7213 / (1 + 1.079 / SKETCH_REGISTERS);

const HASHES = 2 ** 32;

/** How many different things were added, about. Few are counted by the registers still empty (linear counting). */
export function estimateSources(registers: Uint8Array): number {
  let sum = 0;
  let empty = 0;
  for (const register of registers) {
    sum += 2 ** -register;
    if (register === 0) empty++;
  }
  const { length } = registers;
  if (length === 0) return 0;
  const estimate = (ALPHA * length * length) / sum;
  if (estimate <= 2.5 * length && empty > 0) return length * Math.log(length / empty);
  // So many that two of them may well have had the same hash.
  return estimate > HASHES / 30 ? -HASHES * Math.log(1 - estimate / HASHES) : estimate;
}

/** The sketch of all that was added to either. Both have the same number of registers. */
export function mergeSketches(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((register, index) => Math.max(register, b[index] ?? 0));
}

/** Bits of a hash that choose the register; the others are looked at for zeros. */
const INDEX_BITS = Math.log2(SKETCH_REGISTERS);

/**
 * Adds a source to the registers that estimateSources reads; the same one again changes nothing. Each register holds the
 * most leading zeros, plus one, among the hashes that chose it; 0: none did.
 */
export function addSource(registers: Uint8Array, hash32: number): void {
  const index = hash32 >>> (32 - INDEX_BITS);
  // The bit put in behind the hash ends the zeros there.
  const rank = Math.clz32((hash32 << INDEX_BITS) | (1 << (INDEX_BITS - 1))) + 1;
  if (rank > (registers[index] ?? 0)) registers[index] = rank;
}

/** Of the address alone, without its zone; unsigned 32 bits. Different IPv4 addresses have different hashes. */
export function hashAddress({ bytes }: IpAddress): number {
  let hash = 0;
  for (let index = 0; index < bytes.length; index += 4) {
    const word =
      ((bytes[index] ?? 0) << 24) |
      ((bytes[index + 1] ?? 0) << 16) |
      ((bytes[index + 2] ?? 0) << 8) |
      (bytes[index + 3] ?? 0);
    hash = mix32(hash ^ word ^ 0x9e3779b9);
  }
  return hash;
}
