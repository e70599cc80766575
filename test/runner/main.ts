// Runs the compiled tests: sh test/run.sh [--quick] [--long] [--name=<regular expression>] [part of a path]...
import { readdirSync } from 'node:fs';

import { failureLines, groupLines, totalLines, totalsOf } from './output.js';
import { parseSelection, planGroups } from './plan.js';
import { type GroupResult, runGroup } from './process.js';

/** Longer than any test takes on a busy machine; whole campaigns have an hour. */
const SILENCE_MS = { share: 300_000, whole: 3_600_000 };

/** A tenth less CPU: most of what a test makes dies young. */
const NODE_OPTIONS = ['--max-semi-space-size=64'];

const startedMs = performance.now();
const selection = parseSelection(process.argv.slice(2), process.env);
const tests = readdirSync('build/test', { recursive: true, encoding: 'utf8' }).filter((file) =>
  file.endsWith('.test.js'),
);
const groups = planGroups(tests, selection);
const everyTest = selection.parts.length > 0;

const env = {
  ...process.env,
  TEST_SEED: `${selection.seed}`,
  ...(selection.long && { TEST_CAMPAIGN: 'whole' }),
};

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop.abort());
// Who reads the results is gone.
process.stdout.on('error', () => stop.abort());

const results: GroupResult[] = [];
const waiting = groups.values();
async function work(): Promise<void> {
  for (const group of waiting) {
    if (stop.signal.aborted) return;
    const result = await runGroup(
      group,
      {
        silenceMs: selection.long ? SILENCE_MS.whole : SILENCE_MS.share,
        nodeOptions: [
          ...NODE_OPTIONS,
          ...(selection.name === undefined ? [] : [`--test-name-pattern=${selection.name}`]),
        ],
        env,
      },
      stop.signal,
    );
    results.push(result);
    process.stdout.write(groupLines(result, everyTest));
  }
}
await Promise.all(Array.from({ length: selection.concurrency }, work));

const totals = totalsOf(results);
const cpuSeconds = results.reduce((sum, result) => sum + (result.cpuSeconds ?? 0), 0);
process.stdout.write(`ℹ CPU ${cpuSeconds.toFixed(0)} s\n`);
if (!selection.long)
  process.stdout.write(`ℹ seed ${selection.seed}: TEST_SEED=${selection.seed} repeats it\n`);
process.stdout.write(failureLines(results) + totalLines(totals, performance.now() - startedMs));
if (totals.tests === 0) process.stderr.write(`No compiled test matches: run npm run build:tests first\n`);
if (totals.tests === 0 || totals.fail + totals.cancelled > 0 || stop.signal.aborted) process.exitCode = 1;
