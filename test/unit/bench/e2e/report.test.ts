import assert from 'node:assert/strict';
import { test } from 'node:test';
import { markdownOf } from '../../../../bench/e2e/report/markdown.js';
import { shown } from '../../../../bench/e2e/report/metrics.js';
import { ratioOf, rowsOf } from '../../../../bench/e2e/report/rows.js';
import { svgOf } from '../../../../bench/e2e/report/svg.js';
import { summarise, type Sample } from '../../../../bench/e2e/results.js';

const [requests, latency] = [
  { case: 'requests', variant: '64 connections' },
  { case: 'latency', variant: '50 %' },
] as const;
const SAMPLES: readonly Sample[] = [
  { ...requests, peer: 'haports', round: 0, numbers: { requestsPerSecond: 30_000 } },
  { ...requests, peer: 'haports', round: 1, numbers: { requestsPerSecond: 50_000 } },
  { ...requests, peer: 'haproxy', round: 0, numbers: { requestsPerSecond: 50_000 } },
  { ...requests, peer: 'nginx', round: 0, error: 'did not start' },
  { ...latency, peer: 'haports', round: 0, numbers: { p99Ms: 2 } },
  { ...latency, peer: 'haproxy', round: 0, numbers: { p99Ms: 1 } },
];

test('summarise() takes the rounds together and keeps failures apart from numbers', () => {
  const [first, , third] = summarise(SAMPLES);
  assert.deepEqual(first?.numbers, {
    requestsPerSecond: { median: 40_000, min: 30_000, max: 50_000, samples: 2 },
  });
  assert.deepEqual([third?.peer, third?.numbers, third?.errors], ['nginx', {}, ['did not start']]);
});

test('ratioOf() is above 1 where haports is better, whichever way the metric goes', () => {
  const rows = rowsOf('speed', summarise(SAMPLES));
  assert.deepEqual(
    rows.map((row) => [row.title, ratioOf(row, 'haports')]),
    [
      ['requests/s: 64 connections', 0.8],
      ['latency p99, ms: 50 %', 0.5],
    ],
  );
});

test('rowsOf() shows a failure as a failure, never as a number', () => {
  const [row] = rowsOf('speed', summarise(SAMPLES));
  assert.deepEqual(row?.cells.get('nginx'), { failed: 'did not start' });
});

test('svgOf() draws a bar for each ratio', () => {
  const svg = svgOf('a < b', summarise(SAMPLES));
  assert.equal([...svg.matchAll(/<rect /g)].length, 3);
  assert.match(svg, /a &lt; b/);
});

test('shown() keeps three digits', () => {
  assert.deepEqual([12_345, 1.2345, 0.00012345, 0].map(shown), ['12,300', '1.23', '0.000123', '0']);
});

test('markdownOf() gives capture a table of its own: a row a variant, a column a number', () => {
  const base = { case: 'capture', peer: 'haports', round: 0 } as const;
  const samples: readonly Sample[] = [
    { ...base, variant: '1000 ports: bind', numbers: { startMs: 456, residentMebibytes: 123 } },
    { ...base, variant: '1000 ports: capture, dnat-map', error: 'did not start' },
  ];
  const facts = {
    ...{ date: '2026-11-20T00:00:00Z', cores: 2, cpu: 'a', memoryGib: 4, kernel: 'k' },
    ...{ loadAverage: 0, peers: {}, tools: {} },
  };
  const lines = markdownOf(facts as unknown as Parameters<typeof markdownOf>[0], summarise(samples)).split(
    '\n',
  );
  assert.ok(lines.includes('| | ready after, ms | memory, MiB |'));
  assert.ok(lines.includes('| 1000 ports: bind | 456 | 123 |'));
  assert.ok(lines.includes('| 1000 ports: capture, dnat-map | failed | failed |'));
});
