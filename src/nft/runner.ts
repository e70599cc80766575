import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { errorCode, errorMessage } from '../model/errors.js';
import { LineSplitter } from './line-splitter.js';
import type { Follower, RunOptions, ToolOutcome, Tools } from './tools.js';

/** A transaction of some millions of elements takes less. */
const DEFAULT_TIMEOUT_MS = 10_000;

/** More output than that ends the tool: the listing of a table with a million elements has 40 MB. */
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;
const MAX_COMPLAINT_BYTES = 64 * 1024;

/** Lets a child end with this process, however that ends: prctl(2), PR_SET_PDEATHSIG. Part of util-linux. */
const END_WITH_PARENT = ['setpriv', '--pdeathsig', 'KILL', '--'];

/** What it says where the tool is not installed; its exit code has changed between versions. */
const NOT_INSTALLED = /^setpriv: failed to execute .*No such file/;

export interface SystemToolsOptions {
  /** Tools are run in that network namespace (`ip netns`). @default the one of this process */
  readonly namespace?: string;
}

/**
 * Runs the tools that are in PATH. Input is text on a pipe, so nothing is left on disk: nft takes that with `-f -`, but
 * not as JSON (1.0.6 opens /dev/stdin, which cannot be done with Node's pipes).
 */
export function systemTools({ namespace }: SystemToolsOptions = {}): Tools {
  const inside = namespace === undefined ? [] : ['ip', 'netns', 'exec', namespace];
  return {
    run: (tool, args, options = {}) => runTool([...inside, tool, ...args], options),
    follow: (tool, args, follower) => followTool([...inside, tool, ...args], follower),
  };
}

async function runTool(command: readonly string[], options: RunOptions): Promise<ToolOutcome> {
  return new Promise((resolve) => {
    const child = start(command);
    const output = new BoundedText(MAX_OUTPUT_BYTES);
    const complaints = new BoundedText(MAX_COMPLAINT_BYTES);
    let failure: string | undefined;
    const kill = (why: string): void => {
      failure ??= why;
      child.kill('SIGKILL');
    };
    const timer = setTimeout(() => kill('timeout'), options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    const end = (exitCode: number | undefined): void => {
      clearTimeout(timer);
      const ended = { stdout: output.text(), stderr: complaints.text() };
      resolve(failure === undefined ? { exitCode, ...ended } : { exitCode: undefined, ...ended, failure });
    };
    child.stdout.on('data', (chunk: Buffer) => {
      if (!output.add(chunk)) kill(`more than ${MAX_OUTPUT_BYTES} bytes of output`);
    });
    child.stderr.on('data', (chunk: Buffer) => complaints.add(chunk));
    child.once('error', (error) => {
      failure ??= errorCode(error) ?? errorMessage(error);
      if (child.pid === undefined) end(undefined);
    });
    child.once('close', (code, signal) => {
      if (child.pid === undefined) return;
      if (signal !== null) failure ??= `signal ${signal}`;
      end(code ?? undefined);
    });
    // A tool that ends before it has read everything says why on its standard error.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
  });
}

function followTool(command: readonly string[], follower: Follower): () => void {
  let stopped = false;
  let stop = attempt([...END_WITH_PARENT, ...command], (evidence, neverRan) => {
    // Without setpriv the tool ends when it next writes.
    if (neverRan) stop = attempt(command, (again) => follower.onEnd(again));
    else follower.onEnd(evidence);
  });
  return () => {
    stopped = true;
    stop();
  };

  function attempt(
    line: readonly string[],
    onEnd: (evidence: string, neverRan: boolean) => void,
  ): () => void {
    const child = start(line);
    const lines = new LineSplitter();
    const complaints = new LineSplitter();
    let evidence: string | undefined;
    const end = (text: string, neverRan: boolean): void => {
      if (!stopped) onEnd(text, neverRan);
    };
    child.stdin.on('error', () => undefined);
    child.stdin.end();
    child.stdout.on('data', (chunk: Buffer) => {
      const batch = lines.push(chunk);
      if (batch.length > 0 && !stopped) follower.onLines(batch);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      for (const complaint of complaints.push(chunk)) {
        if (NOT_INSTALLED.test(complaint)) evidence ??= 'ENOENT';
        else if (!stopped) follower.onComplaint(complaint);
      }
    });
    child.once('error', (error) => {
      evidence ??= errorCode(error) ?? errorMessage(error);
      if (child.pid === undefined) end(evidence, evidence === 'ENOENT' && line !== command);
    });
    child.once('close', (code, signal) => {
      if (child.pid === undefined) return;
      end(evidence ?? (signal === null ? `exit code ${code}` : `signal ${signal}`), false);
    });
    return () => child.kill('SIGKILL');
  }
}

function start(command: readonly string[]): ChildProcessByStdio<Writable, Readable, Readable> {
  const [program = '', ...args] = command;
  // Messages are matched: they must not be translated.
  return spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, LC_ALL: 'C' } });
}

class BoundedText {
  readonly #maxBytes: number;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** False: it is more than fits, and was left out. */
  add(chunk: Buffer): boolean {
    if (this.#bytes + chunk.length > this.#maxBytes) return false;
    this.#bytes += chunk.length;
    this.#chunks.push(chunk);
    return true;
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString();
  }
}
