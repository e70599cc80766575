import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseOptions } from '../../../../bench/e2e/options.js';
import { markdownOf } from '../../../../bench/e2e/report/markdown.js';
import {
  mergeRuns,
  parseRuns,
  runsText,
  type MeasuredRun,
} from '../../../../bench/e2e/report/measured-run.js';
import { shown } from '../../../../bench/e2e/report/metrics.js';
import { withSections } from '../../../../bench/e2e/report/readme-sections.js';
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
  const lines = markdownOf(
    runOf('2026-11-20', [
      { ...base, variant: '1000 ports: bind', numbers: { startMs: 456, residentMebibytes: 123 } },
      { ...base, variant: '1000 ports: capture, dnat-map', error: 'did not start' },
    ]),
  ).split('\n');
  assert.ok(lines.includes('| | ready after, ms | memory, MiB |'));
  assert.ok(lines.includes('| 1000 ports: bind | 456 | 123 |'));
  assert.ok(lines.includes('| 1000 ports: capture, dnat-map | failed | failed |'));
});

test('markdownOf() shows the kernel plane against direct, and its cost so that above 1 is better', () => {
  const base = { case: 'kernel', variant: '1 stream up', round: 0 } as const;
  const lines = markdownOf(
    runOf('2026-11-20', [
      { ...base, peer: 'direct', numbers: { gigabitsPerSecond: 20, machineMicrosPerUnit: 100 } },
      { ...base, peer: 'kernel', numbers: { gigabitsPerSecond: 15, machineMicrosPerUnit: 125 } },
      { ...base, peer: 'nginx', error: 'did not start' },
    ]),
  ).split('\n');
  assert.ok(lines.includes('| TCP bulk, Gbit/s: 1 stream up | 20 | 15 (0.75) | failed |'));
  assert.ok(lines.includes("| machine's CPU, µs a MiB: 1 stream up | 100 | 125 (0.80) | failed |"));
});

test('mergeRuns() replaces the cases that were measured again, and nothing else', () => {
  const old = runOf('2026-11-01', SAMPLES);
  const newest = runOf('2026-11-20', [
    { ...latency, peer: 'haports', round: 0, numbers: { p99Ms: 9 } },
    { case: 'kernel', variant: 'a', peer: 'kernel', round: 0, numbers: { requestsPerSecond: 1 } },
  ]);
  const runs = mergeRuns([old], newest);
  assert.deepEqual(
    runs.map(({ samples }) => [...new Set(samples.map((sample) => sample.case))]),
    [['requests'], ['latency', 'kernel']],
  );
  assert.deepEqual(runs[0]?.samples, SAMPLES.slice(0, 4));
  // As often as one likes, also by way of the file.
  assert.deepEqual(
    mergeRuns(parseRuns(runsText(runs)), newest).map(({ samples }) => samples.length),
    [4, 2],
  );
  assert.equal(mergeRuns([newest], newest).length, 1);
});

test('withSections() writes the sections that were measured, dated, and leaves all else', () => {
  const marks = (name: string, text: string): string =>
    `<!-- bench ${name}: begin -->${text}<!-- bench ${name}: end -->`;
  const readme = `before\n${marks('peers', 'old peers')}\nbetween\n${marks('kernel', 'old kernel')}\nafter`;
  const runs = [
    runOf('2026-11-01', SAMPLES.slice(0, 4)),
    runOf('2026-11-20', SAMPLES.slice(4)),
    runOf('2026-11-21', [{ case: 'growth', variant: 'a', peer: 'haports', round: 0, error: 'no' }]),
  ];
  const text = withSections(readme, ['peers'], runs);
  assert.match(text, /^before\n<!-- bench peers: begin -->\n\nrequests: Measured 2026-11-01 /);
  assert.match(text, /\nlatency: Measured 2026-11-20 /);
  assert.doesNotMatch(text, /old peers|2026-11-21/);
  assert.ok(text.endsWith(`\nbetween\n${marks('kernel', 'old kernel')}\nafter`));
  assert.throws(
    () => withSections(readme, ['growth'], runs),
    /docs\/benchmarks.md has no "<!-- bench growth: begin -->"/,
  );
});

function runOf(day: string, samples: readonly Sample[]): MeasuredRun {
  const facts = {
    ...{ date: `${day}T00:00:00Z`, cores: 2, cpu: 'a', memoryGib: 4, kernel: 'k', node: 'v20' },
    ...{ loadAverage: 0, peers: {}, tools: {} },
  };
  return { lab: 'loopback', facts, options: parseOptions([]), samples };
}
