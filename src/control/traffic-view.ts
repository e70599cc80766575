import type { PlaneCounters, TrafficCounters } from '../dataplane/data-plane.js';
import type { TrafficView } from '../model/operator-views.js';
import type { CounterSample } from './counter-sampler.js';

/** What views are made from; absent: the plane has not answered yet. */
export interface ViewSamples {
  readonly latest?: CounterSample;
  /** Earlier: rates are measured from it. */
  readonly previous?: CounterSample;
}

/** Of something that has had no flow yet. */
export const NO_TRAFFIC: TrafficView = {
  flowsActive: 0,
  flowsOpened: 0,
  newFlowsPerSecond: 0,
  bytesToBackend: 0,
  bytesToClient: 0,
  bitsToBackendPerSecond: 0,
  bitsToClientPerSecond: 0,
  connectFailures: 0,
  resets: 0,
};

/** Of a row of counters, what it is counted under; undefined: it is left out. */
export type TrafficKey = (row: TrafficCounters) => string | undefined;

const SUMMED = [
  'flowsActive',
  'flowsOpened',
  'bytesToBackend',
  'bytesToClient',
  'connectFailures',
  'resets',
] as const satisfies readonly (keyof TrafficCounters & keyof TrafficView)[];

type Totals = Record<(typeof SUMMED)[number], number>;

/**
 * Traffic by key. Rates are 0 where there is nothing to measure them from, and where totals fell because a worker's
 * were lost: never negative.
 */
export function trafficBy(
  { latest, previous }: ViewSamples,
  keyOf: TrafficKey,
): ReadonlyMap<string, TrafficView> {
  if (latest === undefined) return new Map();
  const before = previous === undefined ? undefined : totalsBy(previous.counters, keyOf);
  const seconds = previous === undefined ? 0 : (latest.atMs - previous.atMs) / 1000;
  return new Map(
    [...totalsBy(latest.counters, keyOf)].map(([key, totals]) => [
      key,
      trafficView(totals, before?.get(key), seconds),
    ]),
  );
}

/** All traffic in one. */
export function wholeTraffic(samples: ViewSamples): TrafficView {
  return trafficBy(samples, () => 'all').get('all') ?? NO_TRAFFIC;
}

function trafficView(now: Totals, before: Totals | undefined, seconds: number): TrafficView {
  const rate = (key: keyof Totals): number =>
    before === undefined || seconds <= 0 ? 0 : Math.max(0, now[key] - before[key]) / seconds;
  return {
    ...now,
    newFlowsPerSecond: rate('flowsOpened'),
    bitsToBackendPerSecond: 8 * rate('bytesToBackend'),
    bitsToClientPerSecond: 8 * rate('bytesToClient'),
  };
}

function totalsBy({ traffic }: PlaneCounters, keyOf: TrafficKey): Map<string, Totals> {
  const sums = new Map<string, Totals>();
  for (const row of traffic) {
    const key = keyOf(row);
    if (key === undefined) continue;
    let sum = sums.get(key);
    if (sum === undefined) {
      sum = {
        flowsActive: 0,
        flowsOpened: 0,
        bytesToBackend: 0,
        bytesToClient: 0,
        connectFailures: 0,
        resets: 0,
      };
      sums.set(key, sum);
    }
    for (const field of SUMMED) sum[field] += row[field];
  }
  return sums;
}
