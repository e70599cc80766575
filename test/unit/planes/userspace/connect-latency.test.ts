import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ConnectLatency } from '../../../../src/planes/userspace/latency.js';

test('snapshot() counts cumulatively: a bucket holds everything up to its bound, the bound included', () => {
  const latency = new ConnectLatency();
  const observed = fc.array(
    fc.oneof(
      fc.double({ min: 0, max: 6, noNaN: true }),
      fc.constantFrom(0, 0.0005, 0.001, 0.01, 0.1, 1, 2.5, 5, 5.0001, 60),
    ),
    { minLength: 1, maxLength: 50 },
  );
  let run = 0;
  fc.assert(
    fc.property(observed, (all) => {
      const backend = `nvas/run-${run++}`;
      for (const seconds of all) latency.observe(backend, seconds);
      const histogram = latency.snapshot()[backend];
      assert.ok(histogram !== undefined);
      for (const [index, bound] of histogram.boundsSeconds.entries()) {
        const expected = all.filter((seconds) => seconds <= bound).length;
        assert.equal(histogram.counts[index], expected, `at most ${bound} s`);
      }
      assert.equal(histogram.count, all.length);
      assert.ok(Math.abs(histogram.sumSeconds - all.reduce((a, b) => a + b, 0)) < 1e-9);
    }),
    { numRuns: 50 },
  );
});

test('snapshot() has bounds that rise from under a millisecond to the default connect timeout', () => {
  const latency = new ConnectLatency();
  latency.observe('nvas/10.0.0.1', 1);
  const { boundsSeconds } = latency.snapshot()['nvas/10.0.0.1']!;
  assert.deepEqual(
    boundsSeconds,
    boundsSeconds.toSorted((a, b) => a - b),
  );
  assert.equal(new Set(boundsSeconds).size, boundsSeconds.length);
  assert.ok(boundsSeconds[0]! < 0.001);
  assert.equal(boundsSeconds.at(-1), 5);
});

test('snapshot() keeps backends apart and does not change with later observations', () => {
  const latency = new ConnectLatency();
  assert.deepEqual(latency.snapshot(), {});
  latency.observe('nvas/10.0.0.1', 0.002);
  const before = latency.snapshot();
  const copy = structuredClone(before);
  latency.observe('nvas/10.0.0.1', 0.002);
  latency.observe('nvas/10.0.0.2', 7);
  assert.deepEqual(before, copy);
  const after = latency.snapshot();
  assert.deepEqual([after['nvas/10.0.0.1']?.count, after['nvas/10.0.0.2']?.count], [2, 1]);
  assert.equal(after['nvas/10.0.0.2']?.counts.at(-1), 0, 'over the last bound');
});
