import { mergeSketches } from '../../flows/traffic.js';
import type { PlaneCounters } from '../contract.js';

const NO_TABLE: PlaneCounters['table'] = {
  tcp: { used: 0, limit: 0 },
  udp: { used: 0, limit: 0 },
  embryonic: { used: 0, limit: 0 },
};

/** Counters of a plane that has not started. */
export const NO_COUNTERS: PlaneCounters = {
  traffic: [],
  arrivals: [],
  table: NO_TABLE,
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
    traffic: mergeRows(
      parts.flatMap(({ traffic }) => traffic),
      ({ rule, backendId, protocol }) => `${rule}|${backendId}|${protocol}`,
    ),
    arrivals: mergeRows(
      parts.flatMap(({ arrivals }) => arrivals),
      ({ rule, protocol }) => `${rule}|${protocol}`,
    ),
    table: parts.map(({ table }) => table).reduce(merge),
    ...mergeDescriptors(parts),
    connectSeconds: parts.map(({ connectSeconds }) => connectSeconds).reduce(merge),
    sourcePorts: mergeRows(
      parts.flatMap(({ sourcePorts }) => sourcePorts),
      ({ backendId, protocol, sourceAddress }) => `${backendId}|${protocol}|${sourceAddress}`,
    ),
    eventLoopDelaySeconds: parts.flatMap(({ eventLoopDelaySeconds }) => eventLoopDelaySeconds),
    listeners: parts.map(({ listeners }) => listeners).reduce(merge),
    workersLost: parts.reduce((sum, { workersLost }) => sum + workersLost, 0),
  };
}

function mergeDescriptors(parts: readonly PlaneCounters[]): Pick<PlaneCounters, 'descriptors'> {
  const known = parts.flatMap(({ descriptors }) => descriptors ?? []);
  return known.length === 0 ? {} : { descriptors: known.reduce(merge) };
}

/** What a dead worker leaves behind: its totals, but nothing that lived or was open. */
export function totalsOnly({ traffic, arrivals, connectSeconds, workersLost }: PlaneCounters): PlaneCounters {
  return {
    ...NO_COUNTERS,
    ...{ arrivals, connectSeconds, workersLost },
    traffic: traffic.map((totals) => ({ ...totals, flowsActive: 0 })),
    table: NO_TABLE,
    sourcePorts: [],
    eventLoopDelaySeconds: [],
    listeners: {},
  };
}

function mergeRows<T extends object>(rows: readonly T[], keyOf: (row: T) => string): T[] {
  const merged = new Map<string, T>();
  for (const row of rows) {
    const known = merged.get(keyOf(row));
    merged.set(keyOf(row), known === undefined ? row : merge(known, row));
  }
  return [...merged.values()];
}

/** What is in both, added up: counts, and what is below records and lists. Identities are equal in both. */
function merge<T extends object>(a: T, b: T): T {
  const sum = { ...a } as Record<string, unknown>;
  for (const [key, value] of Object.entries(b))
    sum[key] = mergeField(key, Object.hasOwn(sum, key) ? sum[key] : undefined, value);
  return sum as T;
}

function mergeField(key: string, a: unknown, b: unknown): unknown {
  if (a === undefined) return b;
  if (b === undefined || key === 'boundsSeconds') return a;
  if (typeof a === 'number' && typeof b === 'number') return key === 'lastFlowAtMs' ? Math.max(a, b) : a + b;
  if (a instanceof Uint8Array && b instanceof Uint8Array) return mergeSketches(a, b);
  if (Array.isArray(a) && Array.isArray(b)) {
    const others: readonly unknown[] = b;
    return a.map((item: unknown, index) => mergeField(key, item, others[index]));
  }
  return typeof a === 'object' && typeof b === 'object' && a !== null && b !== null ? merge(a, b) : a;
}
