import { mergeSketches } from '../../flows/traffic.js';
import type {
  ArrivalCounters,
  LatencyHistogram,
  PlaneCounters,
  SourcePortUse,
  TableUse,
  TrafficCounters,
} from '../contract.js';

/** Counters of a plane that has not begun. */
export const NO_COUNTERS: PlaneCounters = {
  traffic: [],
  arrivals: [],
  table: { tcp: { used: 0, limit: 0 }, udp: { used: 0, limit: 0 }, embryonic: { used: 0, limit: 0 } },
  connectSeconds: {},
  sourcePorts: [],
  eventLoopDelaySeconds: [],
  listeners: {},
  workersLost: 0,
};

/**
 * Adds up counters of several workers, or of a worker and its dead predecessor, as if they were one. Pure. At least
 * one is needed.
 */
export function mergeCounters(parts: readonly PlaneCounters[]): PlaneCounters {
  return {
    traffic: groupBy(
      parts.flatMap(({ traffic }) => traffic),
      ({ rule, backendId, protocol }) => `${rule}|${backendId}|${protocol}`,
      addTraffic,
    ),
    arrivals: groupBy(
      parts.flatMap(({ arrivals }) => arrivals),
      ({ rule, protocol }) => `${rule}|${protocol}`,
      addArrivals,
    ),
    table: {
      tcp: sumTable(parts.map(({ table }) => table.tcp)),
      udp: sumTable(parts.map(({ table }) => table.udp)),
      embryonic: sumTable(parts.map(({ table }) => table.embryonic)),
    },
    connectSeconds: mergeRecords(
      parts.map(({ connectSeconds }) => connectSeconds),
      addHistograms,
    ),
    sourcePorts: groupBy(
      parts.flatMap(({ sourcePorts }) => sourcePorts),
      ({ backendId, protocol, sourceAddress }) => `${backendId}|${protocol}|${sourceAddress}`,
      addSourcePorts,
    ),
    eventLoopDelaySeconds: parts.flatMap(({ eventLoopDelaySeconds }) => eventLoopDelaySeconds),
    listeners: mergeRecords(
      parts.map(({ listeners }) => listeners),
      (a, b) => ({ open: a.open + b.open, wanted: a.wanted + b.wanted }),
    ),
    workersLost: parts.reduce((sum, { workersLost }) => sum + workersLost, 0),
  };
}

/** What a dead worker leaves behind: its totals, but nothing that lived or was open. */
export function totalsOnly(counters: PlaneCounters): PlaneCounters {
  return {
    ...counters,
    traffic: counters.traffic.map((totals) => ({ ...totals, flowsActive: 0 })),
    table: {
      tcp: { used: 0, limit: 0 },
      udp: { used: 0, limit: 0 },
      embryonic: { used: 0, limit: 0 },
    },
    sourcePorts: [],
    eventLoopDelaySeconds: [],
    listeners: {},
  };
}

function addTraffic(a: TrafficCounters, b: TrafficCounters): TrafficCounters {
  const lastFlowAtMs = Math.max(a.lastFlowAtMs ?? 0, b.lastFlowAtMs ?? 0);
  return {
    rule: a.rule,
    backendId: a.backendId,
    protocol: a.protocol,
    flowsOpened: a.flowsOpened + b.flowsOpened,
    flowsActive: a.flowsActive + b.flowsActive,
    ...(lastFlowAtMs === 0 ? {} : { lastFlowAtMs }),
    flowsEnded: sumRecords(a.flowsEnded, b.flowsEnded),
    bytesToBackend: a.bytesToBackend + b.bytesToBackend,
    packetsToBackend: a.packetsToBackend + b.packetsToBackend,
    bytesToClient: a.bytesToClient + b.bytesToClient,
    packetsToClient: a.packetsToClient + b.packetsToClient,
    connectRetries: a.connectRetries + b.connectRetries,
    connectFailures: a.connectFailures + b.connectFailures,
    resets: a.resets + b.resets,
  };
}

function addArrivals(a: ArrivalCounters, b: ArrivalCounters): ArrivalCounters {
  const sum = { ...a, arrivals: a.arrivals + b.arrivals, drops: sumRecords(a.drops, b.drops) };
  if (b.sourceSketch === undefined) return sum;
  const sourceSketch =
    a.sourceSketch === undefined ? b.sourceSketch : mergeSketches(a.sourceSketch, b.sourceSketch);
  return { ...sum, sourceSketch };
}

function addSourcePorts(a: SourcePortUse, b: SourcePortUse): SourcePortUse {
  return { ...a, used: a.used + b.used, available: a.available + b.available };
}

function addHistograms(a: LatencyHistogram, b: LatencyHistogram): LatencyHistogram {
  return {
    boundsSeconds: a.boundsSeconds,
    counts: a.counts.map((count, index) => count + (b.counts[index] ?? 0)),
    count: a.count + b.count,
    sumSeconds: a.sumSeconds + b.sumSeconds,
  };
}

function sumTable(uses: readonly TableUse[]): TableUse {
  return uses.reduce((a, b) => ({ used: a.used + b.used, limit: a.limit + b.limit }));
}

function sumRecords<K extends string>(
  a: Readonly<Partial<Record<K, number>>>,
  b: Readonly<Partial<Record<K, number>>>,
): Partial<Record<K, number>> {
  const sum: Partial<Record<K, number>> = { ...a };
  for (const key of Object.keys(b) as K[]) sum[key] = (sum[key] ?? 0) + (b[key] ?? 0);
  return sum;
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string, add: (a: T, b: T) => T): readonly T[] {
  const groups = new Map<string, T>();
  for (const item of items) {
    const key = keyOf(item);
    const previous = groups.get(key);
    groups.set(key, previous === undefined ? item : add(previous, item));
  }
  return [...groups.values()];
}

function mergeRecords<T>(
  records: readonly Readonly<Record<string, T>>[],
  add: (a: T, b: T) => T,
): Record<string, T> {
  // A frontend may well be named "constructor", which every plain object seems to have.
  const merged = new Map<string, T>();
  for (const record of records) {
    for (const [key, value] of Object.entries(record)) {
      const previous = merged.get(key);
      merged.set(key, previous === undefined ? value : add(previous, value));
    }
  }
  return Object.fromEntries(merged);
}
