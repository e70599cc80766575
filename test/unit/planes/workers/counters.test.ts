import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type {
  ArrivalCounters,
  LatencyHistogram,
  PlaneCounters,
  SourcePortUse,
  TableUse,
  TrafficCounters,
} from '../../../../src/planes/contract.js';
import { NO_COUNTERS, mergeCounters, totalsOnly } from '../../../../src/planes/workers/counters.js';
import { aRow } from '../../status/counters-fixtures.js';
import { countersOf } from './scripted-plane.js';

const BOUNDS = [0.001, 0.01, 0.1];

const count = fc.nat(1_000_000);
const protocol = fc.constantFrom('tcp' as const, 'udp' as const);
// Few names, so that parts meet; two that every JavaScript object seems to have.
const ruleName = fc.constantFrom('a', 'b', 'constructor');
const frontendName = fc.constantFrom('hub', 'hub6', 'constructor', 'valueof');
const backendId = fc.constantFrom('nvas/10.0.0.1', 'nvas/10.0.0.2');

const traffic: fc.Arbitrary<TrafficCounters> = fc.record(
  {
    rule: ruleName,
    backendId,
    protocol,
    flowsOpened: count,
    flowsActive: count,
    lastFlowAtMs: fc.integer({ min: 1, max: 1_000_000 }),
    flowsEnded: fc.record({ closed: count, idle: count, 'client-reset': count }, { requiredKeys: [] }),
    bytesToBackend: count,
    packetsToBackend: count,
    bytesToClient: count,
    packetsToClient: count,
    connectRetries: count,
    connectFailures: count,
    resets: count,
  },
  { requiredKeys: Object.keys(aRow()) as (keyof TrafficCounters)[] },
);
const arrivals: fc.Arbitrary<ArrivalCounters> = fc.record(
  {
    rule: ruleName,
    protocol,
    arrivals: count,
    drops: fc.record({ denied: count, 'no-backend': count }, { requiredKeys: [] }),
    sourceSketch: fc.uint8Array({ minLength: 4, maxLength: 4 }),
  },
  { requiredKeys: ['rule', 'protocol', 'arrivals', 'drops'] },
);
const use: fc.Arbitrary<TableUse> = fc.record({ used: count, limit: count });
const histogram: fc.Arbitrary<LatencyHistogram> = fc.record({
  boundsSeconds: fc.constant(BOUNDS),
  counts: fc.array(count, { minLength: BOUNDS.length, maxLength: BOUNDS.length }),
  count,
  // Whole, so that sums are exact in any order.
  sumSeconds: count,
});
const sourcePorts: fc.Arbitrary<SourcePortUse> = fc.record({
  backendId,
  protocol,
  sourceAddress: fc.constantFrom('10.1.0.1', '10.1.0.2'),
  used: count,
  available: count,
});

/** What one plane says: every key once. */
const plane: fc.Arbitrary<PlaneCounters> = fc
  .record({
    traffic: fc.uniqueArray(traffic, { maxLength: 6, selector: trafficKey }),
    arrivals: fc.uniqueArray(arrivals, { maxLength: 4, selector: arrivalKey }),
    table: fc.record({ tcp: use, udp: use, embryonic: use }),
    descriptors: use,
    connectSeconds: fc.dictionary(backendId, histogram),
    sourcePorts: fc.uniqueArray(sourcePorts, { maxLength: 4, selector: portKey }),
    eventLoopDelaySeconds: fc.array(count, { maxLength: 3 }),
    listeners: fc
      .uniqueArray(fc.tuple(frontendName, fc.record({ open: count, wanted: count })), {
        selector: ([name]) => name,
      })
      .map((entries) => Object.fromEntries(entries)),
    workersLost: count,
  })
  .map((counters) => structuredClone(counters));

function trafficKey(one: TrafficCounters): string {
  return `${one.rule} ${one.backendId} ${one.protocol}`;
}

function arrivalKey(one: ArrivalCounters): string {
  return `${one.rule} ${one.protocol}`;
}

function portKey(one: SourcePortUse): string {
  return `${one.backendId} ${one.protocol} ${one.sourceAddress}`;
}

/** The same, in one order. */
function sorted(counters: PlaneCounters): PlaneCounters {
  const by =
    <T>(key: (one: T) => string) =>
    (a: T, b: T) =>
      key(a) < key(b) ? -1 : 1;
  return {
    ...counters,
    traffic: counters.traffic.toSorted(by(trafficKey)),
    arrivals: counters.arrivals.toSorted(by(arrivalKey)),
    sourcePorts: counters.sourcePorts.toSorted(by(portKey)),
    eventLoopDelaySeconds: counters.eventLoopDelaySeconds.toSorted((a, b) => a - b),
  };
}

/** Of these the greatest counts, not the sum. */
const GREATEST = /\/(?:lastFlowAtMs|sourceSketch\/\d+)$/;

/** Every number of the counters with the path to it, added up: an oracle that knows little of their meaning. */
function tally(parts: readonly PlaneCounters[]): ReadonlyMap<string, number> {
  const sums = new Map<string, number>();
  const walk = (path: string, value: unknown): void => {
    if (typeof value === 'number') {
      const before = sums.get(path) ?? 0;
      sums.set(path, GREATEST.test(path) ? Math.max(before, value) : before + value);
    } else if (typeof value === 'object' && value !== null) {
      for (const key of Object.keys(value)) walk(`${path}/${key}`, (value as Record<string, unknown>)[key]);
    }
  };
  for (const { traffic, arrivals, sourcePorts, connectSeconds, eventLoopDelaySeconds, ...rest } of parts) {
    for (const one of traffic) walk(`traffic ${trafficKey(one)}`, one);
    for (const one of arrivals) walk(`arrivals ${arrivalKey(one)}`, one);
    for (const one of sourcePorts) walk(`ports ${portKey(one)}`, one);
    for (const [id, { counts, count, sumSeconds }] of Object.entries(connectSeconds)) {
      walk(id, { counts, count, sumSeconds });
    }
    walk(
      'delays',
      eventLoopDelaySeconds.reduce((sum, one) => sum + one, 0),
    );
    walk('rest', rest);
  }
  return sums;
}

const planes = fc.array(plane, { minLength: 1, maxLength: 4 });

describe('mergeCounters()', () => {
  test('mergeCounters() adds up every number under its own key, or takes the greatest, and alters no part', () => {
    fc.assert(
      fc.property(planes, (parts) => {
        const before = structuredClone(parts);
        const merged = mergeCounters(parts);
        assert.deepEqual(tally([merged]), tally(parts));
        assert.deepEqual(parts, before);
        for (const keys of [
          merged.traffic.map(trafficKey),
          merged.arrivals.map(arrivalKey),
          merged.sourcePorts.map(portKey),
        ])
          assert.equal(new Set(keys).size, keys.length);
      }),
    );
  });

  test('mergeCounters() does not depend on the order of its parts', () => {
    fc.assert(
      fc.property(planes, (parts) => {
        assert.deepEqual(sorted(mergeCounters(parts.toReversed())), sorted(mergeCounters(parts)));
      }),
    );
  });

  test('mergeCounters() may go step by step', () => {
    fc.assert(
      fc.property(plane, plane, plane, (a, b, c) => {
        const whole = sorted(mergeCounters([a, b, c]));
        assert.deepEqual(sorted(mergeCounters([mergeCounters([a, b]), c])), whole);
        assert.deepEqual(sorted(mergeCounters([a, mergeCounters([b, c])])), whole);
      }),
    );
  });

  test('mergeCounters() of one part is that part, and nothing is added by nothing', () => {
    fc.assert(
      fc.property(plane, (part) => {
        assert.deepEqual(mergeCounters([part]), part);
        assert.deepEqual(sorted(mergeCounters([NO_COUNTERS, part])), sorted(part));
      }),
    );
  });

  test('mergeCounters() takes names for names, even those that every object has', () => {
    const part = { ...NO_COUNTERS, listeners: { constructor: { open: 1, wanted: 2 } } } as PlaneCounters;
    assert.deepEqual(mergeCounters([part, part]).listeners, {
      ['constructor']: { open: 2, wanted: 4 },
    });
  });
});

describe('totalsOnly()', () => {
  test('totalsOnly() keeps what was counted and forgets what lived or was open', () => {
    const before = countersOf(10, 4);
    assert.deepEqual(totalsOnly(before), {
      ...NO_COUNTERS,
      traffic: [{ ...before.traffic[0], flowsActive: 0 }],
      arrivals: before.arrivals,
    });
  });

  test('totalsOnly() adds only totals to a successor', () => {
    fc.assert(
      fc.property(plane, plane, (dead, live) => {
        const merged = mergeCounters([totalsOnly(dead), live]);
        assert.deepEqual(merged.table, live.table);
        assert.deepEqual(merged.descriptors, live.descriptors);
        assert.deepEqual(merged.listeners, live.listeners);
        assert.deepEqual(merged.sourcePorts, live.sourcePorts);
        assert.deepEqual(merged.eventLoopDelaySeconds, live.eventLoopDelaySeconds);
        const sumOf = (one: PlaneCounters, key: 'flowsOpened' | 'flowsActive') =>
          one.traffic.reduce((sum, row) => sum + row[key], 0);
        assert.equal(sumOf(merged, 'flowsOpened'), sumOf(dead, 'flowsOpened') + sumOf(live, 'flowsOpened'));
        assert.equal(sumOf(merged, 'flowsActive'), sumOf(live, 'flowsActive'));
      }),
    );
  });
});
