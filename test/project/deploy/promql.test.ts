import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ExportedMetric } from './exported-metrics.js';
import { readPromQl } from './promql.js';
import { queryFaults } from './query-faults.js';

describe('readPromQl()', () => {
  test('finds metrics, their labels, and the labels of groupings', () => {
    const text =
      'sum by (pool) (rate(a_total{pool=~"x|y", rule!="}"}[5m])) / on (job) group_left () (8 * -b) > 0.05 unless c{}';
    assert.deepEqual(readPromQl(text), {
      selectors: [
        { metric: 'a_total', labels: ['pool', 'rule'], ranged: 'rate' },
        { metric: 'b', labels: [] },
        { metric: 'c', labels: [] },
      ],
      groupings: ['pool', 'job'],
    });
  });

  const refused: readonly string[] = [
    'sum(a',
    'sum(a))',
    'rate(a)',
    'a[5m]',
    'a{pool="x"',
    'a{pool=x}',
    'a{pool}',
    'a[5]',
    'sum by pool (a)',
    'nothing(a)',
    'a +',
    'a b',
    '"text"',
    'sum(a[5m])',
    'a $ b',
    '',
  ];
  for (const text of refused) {
    test(`refuses ${text}`, () => assert.throws(() => readPromQl(text), SyntaxError));
  }
});

describe('queryFaults()', () => {
  const exported = new Map<string, ExportedMetric>([
    ['a_total', { type: 'counter', labels: new Set(['job', 'pool']) }],
    ['b', { type: 'gauge', labels: new Set(['job']) }],
  ]);
  const cases: readonly (readonly [string, readonly string[]])[] = [
    ['sum by (pool) (rate(a_total{pool="x"}[5m])) / b', []],
    ['a', ['no such metric: a']],
    ['b{pool="x"}', ['b has no label pool']],
    ['sum by (pool) (b)', ['nothing here has a label pool']],
    ['rate(b[5m])', ['rate of b, which is a gauge']],
    ['a_total > 5', ['a_total without rate or increase']],
  ];
  for (const [text, faults] of cases) {
    test(`judges ${text}`, () => assert.deepEqual(queryFaults(text, exported), faults));
  }
});
