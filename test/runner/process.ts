import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';

import { builtFile } from '../support/commands.js';
import type { Group } from './plan.js';
import { type Message, MESSAGES_FD } from './reporter.js';

export interface ProcessOptions {
  /** A process that reports nothing for this long is ended. */
  readonly silenceMs: number;
  readonly nodeOptions: readonly string[];
  readonly env: Readonly<NodeJS.ProcessEnv>;
}

/** What came of a test process. */
export interface GroupResult {
  readonly group: Group;
  readonly durationMs: number;
  readonly messages: readonly Message[];
  /** Undefined where the process did not come to its end. */
  readonly cpuSeconds: number | undefined;
  /** What it wrote to its standard output and error. */
  readonly output: string;
  /** What went wrong besides failed tests. */
  readonly trouble: string | undefined;
}

const GROUP_MAIN = builtFile('test/runner/group');
const REPORTER = pathToFileURL(builtFile('test/runner/reporter')).href;
/** How long output may still arrive after the process has ended: something that it started may hold the pipe. */
const OUTPUT_GRACE_MS = 1000;

/** Runs the files of a group in one process, and ends what is left of it afterwards or when `signal` is aborted. */
export async function runGroup(
  group: Group,
  { silenceMs, nodeOptions, env }: ProcessOptions,
  signal: AbortSignal,
): Promise<GroupResult> {
  const startedMs = performance.now();
  const messages: Message[] = [];
  let output = '';
  let trouble: string | undefined;

  // It leads a process group, so that what it starts ends with it.
  const child = spawn(
    process.execPath,
    [...nodeOptions, `--test-reporter=${REPORTER}`, GROUP_MAIN, ...group.files],
    { env, detached: true, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] },
  );
  const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const closed = once(child, 'close');
  const end = (why: string): void => {
    trouble ??= `${why}${running(messages)}`;
    killGroup(child);
  };
  const interrupt = (): void => end('interrupted');
  signal.addEventListener('abort', interrupt, { once: true });
  const silence = setTimeout(() => end(`nothing happened for ${silenceMs / 1000} s`), silenceMs);
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => (output += text));
  }
  createInterface({ input: child.stdio[MESSAGES_FD] as Readable }).on('line', (line) => {
    const message = JSON.parse(line) as Message;
    messages.push(message);
    silence.refresh();
    if (message.type !== 'lingers') return;
    // A failed test leaves things open: its failure says enough.
    if (messages.some(({ type }) => type === 'failed')) killGroup(child);
    else end(`all tests ended, but something keeps the process: ${message.resources.join(', ')}`);
  });

  const [code, killedBy] = await exit;
  clearTimeout(silence);
  signal.removeEventListener('abort', interrupt);
  killGroup(child);
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, OUTPUT_GRACE_MS))]);
  for (const stream of child.stdio) stream?.destroy();

  const open = running(messages);
  if (open !== '' || (code !== 0 && !messages.some(({ type }) => type === 'failed'))) {
    trouble ??= `the process ended with ${killedBy ?? `exit code ${code}`}${open}`;
  }
  const cpuSeconds = messages.find((message) => message.type === 'cpu')?.seconds;
  return { group, durationMs: performance.now() - startedMs, messages, cpuSeconds, output, trouble };
}

/** Kills what is left of the process group that the child leads. */
function killGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // Nothing is left.
  }
}

/** The tests that began and did not end, innermost last. */
function running(messages: readonly Message[]): string {
  const open = new Map<string, string>();
  for (const message of messages) {
    if (message.type !== 'began' && message.type !== 'ended') continue;
    const { name, nesting, file, line } = message.test;
    const key = `${nesting} ${file}:${line} ${name}`;
    if (message.type === 'ended') open.delete(key);
    else open.set(key, nesting === 0 ? name : `"${name}" (line ${line})`);
  }
  return open.size === 0 ? '' : ` while this ran: ${[...open.values()].join(' > ')}`;
}
