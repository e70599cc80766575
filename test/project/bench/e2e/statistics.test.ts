import assert from 'node:assert/strict';
import { test } from 'node:test';
import { corePlan } from '../../../../bench/e2e/core-plan.js';
import { portRanges } from '../../../../bench/e2e/free-ports.js';
import { parseOptions } from '../../../../bench/e2e/options.js';
import { percentile, spreadOf } from '../../../../bench/e2e/statistics.js';

test('spreadOf() gives median, least and most', () => {
  assert.deepEqual(spreadOf([5, 1, 3]), { median: 3, min: 1, max: 5, samples: 3 });
  assert.deepEqual(spreadOf([10, 2, 4, 8]), { median: 6, min: 2, max: 10, samples: 4 });
  assert.equal(spreadOf([]), undefined);
});

test('percentile() is the nearest rank', () => {
  // The example of the method: 15 20 35 40 50.
  const values = [15, 20, 35, 40, 50];
  assert.deepEqual(
    [0.05, 0.3, 0.4, 0.5, 1].map((share) => percentile(values, share)),
    [15, 20, 20, 35, 50],
  );
  assert.ok(Number.isNaN(percentile([], 0.5)));
});

test('corePlan() gives the balancer its own cores where there are enough', () => {
  assert.deepEqual(corePlan(2, 1), { balancer: '0', load: '1', shared: false });
  assert.deepEqual(corePlan(4, 2), { balancer: '0-1', load: '2-3', shared: false });
  assert.deepEqual(corePlan(2, 2), { balancer: '0-1', load: '0-1', shared: true });
  assert.deepEqual(corePlan(1, 1), { balancer: '0', load: '0', shared: true });
});

test('portRanges() leaves out what is taken', () => {
  assert.deepEqual(portRanges(10, 5, new Set([12, 15])), [
    [10, 11],
    [13, 14],
    [16, 16],
  ]);
  assert.throws(() => portRanges(65_530, 10, new Set()), /no 10 free ports from 65530 on/);
});

test('parseOptions() knows cases, peers and numbers', () => {
  const options = parseOptions(['--quick', '--only', 'bulk,requests', '--peers', 'haports', '--rounds', '3']);
  assert.deepEqual(options.cases, ['requests', 'bulk']);
  assert.deepEqual(options.peers, ['haports']);
  assert.deepEqual([options.rounds, options.seconds, options.workers], [3, 1, [1]]);
  assert.deepEqual(parseOptions([]).workers, [1, 2]);
});

test('parseOptions() refuses what it does not know', () => {
  assert.throws(() => parseOptions(['--only', 'speed']), /--only "speed" must be one of requests/);
  assert.throws(() => parseOptions(['--rounds', '0']), /--rounds "0" must be a whole number from 1 to 100/);
  assert.throws(() => parseOptions(['--fast']), /--fast/);
});
