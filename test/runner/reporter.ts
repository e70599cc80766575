import { readFileSync, writeSync } from 'node:fs';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

/** What a test process tells the runner on file descriptor 3, a line of JSON each. */
export type Message =
  | { readonly type: 'began' | 'ended'; readonly test: TestName }
  | TestResult
  | { readonly type: 'note'; readonly text: string }
  | { readonly type: 'lingers'; readonly resources: readonly string[] }
  /** Of the process and of all that it started and that has ended. */
  | { readonly type: 'cpu'; readonly seconds: number };

interface TestName {
  readonly name: string;
  /** Depth below the process: 0 is a test file, 1 what the file declares. */
  readonly nesting: number;
  readonly file: string;
  readonly line: number;
}

export interface TestResult {
  readonly type: 'passed' | 'failed';
  readonly test: TestName;
  /** Names from the test file down to the test itself. */
  readonly path: readonly string[];
  readonly suite: boolean;
  readonly durationMs: number;
  /** Why it was skipped; empty without a reason. */
  readonly skip: string | undefined;
  readonly todo: boolean;
  /** Only of a failure. */
  readonly error: string | undefined;
  /** node:test's kind of failure; `subtestsFailed` says that something below it failed. */
  readonly failure: string | undefined;
}

/** The file descriptor on which a test process writes its messages. */
export const MESSAGES_FD = 3;
/** How long a process may stay after its last test before its open handles count as leaked. */
const LINGER_MS = 5000;
// Taken before any test can put a mock in its place.
const { setTimeout: startTimer } = globalThis;

/**
 * A reporter of node:test that writes {@link Message}s at once, so that the runner knows what was running when a
 * process hangs. After the last test file of the command line the process has 5 seconds to end by itself.
 */
export default async function* reporter(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  let files = process.argv.length - 2;
  const path: string[] = [];
  for await (const { type, data } of events) {
    if (type === 'test:dequeue') tell({ type: 'began', test: testName(data) });
    if (type === 'test:complete') {
      tell({ type: 'ended', test: testName(data) });
      if (data.nesting === 0 && --files === 0) startTimer(tellLinger, LINGER_MS).unref();
    }
    if (type === 'test:start') path.splice(data.nesting, Infinity, data.name);
    if (type === 'test:pass' || type === 'test:fail') {
      path.splice(data.nesting, Infinity, data.name);
      const { error } = data.details as { readonly error?: Error & { readonly failureType?: string } };
      tell({
        type: type === 'test:pass' ? 'passed' : 'failed',
        test: testName(data),
        path,
        suite: data.details.type === 'suite',
        durationMs: data.details.duration_ms,
        skip: data.skip === true ? '' : data.skip || undefined,
        todo: data.todo !== undefined && data.todo !== false,
        error: error && inspect(error.cause ?? error),
        failure: error?.failureType,
      });
    }
    // Diagnostics of the whole process are its totals, which the runner counts over all processes.
    if (type === 'test:diagnostic' && data.nesting > 0) tell({ type: 'note', text: data.message });
  }
  tell({ type: 'cpu', seconds: cpuSeconds() });
  yield '';
}

function tellLinger(): void {
  tell({ type: 'lingers', resources: process.getActiveResourcesInfo() });
}

/** Fields 14 to 17 of proc_pid_stat(5): user and system time, its children's last, in ticks of 10 ms. */
function cpuSeconds(): number {
  const [, fields = ''] = readFileSync('/proc/self/stat', 'utf8').split(') ');
  const ticks = fields.split(' ').slice(11, 15);
  return ticks.reduce((sum, value) => sum + Number(value), 0) / 100;
}

function tell(message: Message): void {
  writeSync(MESSAGES_FD, `${JSON.stringify(message)}\n`);
}

function testName(data: { name: string; nesting: number; file?: string; line?: number }): TestName {
  return { name: data.name, nesting: data.nesting, file: data.file ?? '', line: data.line ?? 0 };
}
