import type { GroupResult } from './process.js';
import type { Message, TestResult } from './reporter.js';

const NO_TOTALS = { tests: 0, suites: 0, pass: 0, fail: 0, cancelled: 0, skipped: 0, todo: 0 };

/** Counts over all test processes, named as node:test names them. */
export type Totals = typeof NO_TOTALS;

/** Counts the results of all processes; a process in trouble counts as one more failed test. */
export function totalsOf(results: readonly GroupResult[]): Totals {
  const totals = { ...NO_TOTALS };
  for (const { messages, trouble } of results) {
    for (const result of messages.filter(isResult)) {
      if (result.suite && !hasFailed(result)) {
        // The suite around a file is the runner's own.
        if (result.test.nesting > 0) totals.suites += 1;
        continue;
      }
      totals.tests += 1;
      totals[outcomeOf(result)] += 1;
    }
    if (trouble === undefined) continue;
    totals.tests += 1;
    totals.fail += 1;
  }
  return totals;
}

function outcomeOf({ type, skip, todo, failure }: TestResult): Exclude<keyof Totals, 'tests' | 'suites'> {
  if (skip !== undefined) return 'skipped';
  if (todo) return 'todo';
  if (type === 'passed') return 'pass';
  return failure === 'cancelledByParent' ? 'cancelled' : 'fail';
}

/** The last lines of a run, as node:test's own reporter writes them. */
export function totalLines(totals: Totals, durationMs: number): string {
  return Object.entries({ ...totals, duration_ms: durationMs.toFixed(0) })
    .map(([name, count]) => `ℹ ${name} ${count}\n`)
    .join('');
}

/** A process that has ended: a line, then what was skipped, noted and written; with `everyTest` a line a test. */
export function groupLines(result: GroupResult, everyTest: boolean): string {
  const { group, messages, output, trouble } = result;
  const { tests, fail, cancelled } = totalsOf([result]);
  const failed = fail + cancelled;
  const lines = [
    `${failed === 0 ? '✔' : '✖'} ${group.name}: ${tests} tests${failed === 0 ? '' : `, ${failed} failed`}, ` +
      seconds(result.durationMs) +
      (result.cpuSeconds === undefined ? '' : `, CPU ${seconds(result.cpuSeconds * 1000)}`),
  ];
  for (const message of messages) {
    if (message.type === 'note') lines.push(`  ℹ ${message.text.replaceAll('\n', '\n    ')}`);
    if (!isResult(message)) continue;
    const title = message.path.slice(message.test.nesting === 0 ? 0 : 1).join(' > ');
    if (message.skip !== undefined) lines.push(`  ﹣ skipped: ${title} # ${message.skip}`);
    else if (hasFailed(message)) {
      lines.push(`  ✖ ${title} (${seconds(message.durationMs)})`, indented(indented(message.error)));
    } else if (everyTest && !message.suite) lines.push(`  ✔ ${title} (${seconds(message.durationMs)})`);
  }
  if (trouble !== undefined) lines.push(`  ✖ ${trouble}`);
  if (output.trim() !== '') lines.push(output.trimEnd().replace(/^/gm, '  | '));
  return `${lines.join('\n')}\n`;
}

/** Every failure with its file, line and error; empty if there is none. */
export function failureLines(results: readonly GroupResult[]): string {
  const failures = results.flatMap(({ group, messages, trouble }) => [
    ...messages
      .filter(isResult)
      .filter(hasFailed)
      .map(
        ({ test, path, error }) =>
          `✖ ${path.join(' > ')}\n  at ${test.file}:${test.line}\n${indented(error)}\n`,
      ),
    ...(trouble === undefined ? [] : [`✖ ${group.name}: ${trouble}\n`]),
  ]);
  return failures.length === 0 ? '' : `\nFailed:\n\n${failures.join('\n')}\n`;
}

function isResult(message: Message): message is TestResult {
  return message.type === 'passed' || message.type === 'failed';
}

/** A failure of its own, not one of a test below it. */
function hasFailed({ type, failure, todo }: TestResult): boolean {
  return type === 'failed' && !todo && failure !== 'subtestsFailed';
}

function indented(text = ''): string {
  return text.replace(/^/gm, '  ');
}

function seconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(durationMs < 1000 ? 3 : 1)} s`;
}
