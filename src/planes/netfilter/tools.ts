import { execFile, spawn, type ExecFileException } from 'node:child_process';
import { BalancerError, errorCode, errorMessage, type ErrorCode } from '../../model/errors.js';

/** A transaction of some millions of elements takes less. */
const DEFAULT_TIMEOUT_MS = 10_000;

/** More output than that ends the tool: the listing of a table with a million elements has 40 MB. */
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

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

function runTool(
  [program = '', ...args]: readonly string[],
  { input = '', timeoutMs = DEFAULT_TIMEOUT_MS }: RunOptions,
): Promise<ToolOutcome> {
  const limits = { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: MAX_OUTPUT_BYTES } as const;
  return new Promise((resolve) => {
    const child = execFile(program, args, { ...limits, env: environment() }, (error, stdout, stderr) => {
      const failure = error === null ? undefined : failureOf(error);
      if (failure === undefined) resolve({ exitCode: Number(error?.code ?? 0), stdout, stderr });
      else resolve({ exitCode: undefined, stdout, stderr, failure });
    });
    // A tool that ends before it has read everything says why on its standard error.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

/** Why a tool did not run to its end; undefined: it did, with another exit code than 0. */
function failureOf({ code, killed, signal }: ExecFileException): string | undefined {
  if (code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') return `more than ${MAX_OUTPUT_BYTES} bytes of output`;
  if (typeof code === 'string') return code;
  if (killed === true) return 'timeout';
  return typeof signal === 'string' ? `signal ${signal}` : undefined;
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
    const [program = '', ...args] = line;
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: environment() });
    const lines = new LineSplitter();
    const complaints = new LineSplitter();
    let evidence: string | undefined;
    const end = (text: string, neverRan: boolean): void => {
      if (!stopped) onEnd(text, neverRan);
    };
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

/** Messages are matched: they must not be translated. */
function environment(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: 'C' };
}

/** The kernel's own command-line tools, and what asks the way. */
export type Tool = 'nft' | 'ip' | 'conntrack' | 'sysctl' | 'ping';

export interface ToolOutcome {
  /** Undefined where it did not run to its end: `failure` says why. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** `ENOENT` where it is not installed, `EACCES`, `timeout`, `signal SIGKILL`. */
  readonly failure?: string;
}

export interface RunOptions {
  /** What the tool reads as its standard input. @default nothing */
  readonly input?: string;
  /** After that it is killed. @default 10000 */
  readonly timeoutMs?: number;
}

export interface Follower {
  /** Whole lines of standard output, in batches as they come. */
  onLines(lines: readonly string[]): void;
  /** A line of standard error. */
  onComplaint(line: string): void;
  /** It has ended by itself: `exit code 1`, `ENOENT`. Nothing follows. */
  onEnd(evidence: string): void;
}

/** Starts them. One implementation runs processes; tests bring others. */
export interface Tools {
  /** Never rejects. */
  run(tool: Tool, args: readonly string[], options?: RunOptions): Promise<ToolOutcome>;
  /** Runs one that prints events until it is stopped. */
  follow(tool: Tool, args: readonly string[], follower: Follower): () => void;
}

/** Where Debian has them. */
const PACKAGES: Readonly<Record<Tool, string>> = {
  nft: 'nftables',
  ip: 'iproute2',
  conntrack: 'conntrack',
  sysctl: 'procps',
  ping: 'iputils-ping',
};

/** One line for people; longer complaints, such as those that repeat the input, are cut. */
const MAX_TEXT_CHARS = 300;

export function succeeded({ exitCode }: ToolOutcome): boolean {
  return exitCode === 0;
}

/** What went wrong, in one line, with what to do about it. Only for an outcome that is no success. */
export function toolFailure(tool: Tool, outcome: ToolOutcome): BalancerError {
  const text = complaint(outcome);
  if (outcome.failure === 'ENOENT') {
    return error(
      'LB_KERNEL_TOOL_MISSING',
      `${tool} is not installed: it must be in PATH (Debian and Ubuntu: apt-get install ${PACKAGES[tool]})`,
    );
  }
  if (/operation not permitted|permission denied|must be root/i.test(text) || outcome.failure === 'EACCES') {
    return error(
      'LB_KERNEL_DENIED',
      `${tool} was denied by the kernel: haports must have CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN; container: --cap-add NET_ADMIN), found: ${text}`,
    );
  }
  if (isUnsupported(text)) {
    return error('LB_KERNEL_UNSUPPORTED', `This kernel or this ${tool} cannot do what is needed: ${text}`);
  }
  return error('LB_KERNEL_FAILED', `${tool} failed: ${text}`);
}

export function tooOld(version: string): BalancerError {
  return error('LB_KERNEL_UNSUPPORTED', `${version} is too old: nftables must be 1.0.6 or newer`);
}

/** Modules or expressions that are missing show as ENOENT, since a transaction deletes nothing that may be absent. */
function isUnsupported(text: string): boolean {
  return /not supported|no such file or directory|syntax error|unknown option|is unknown|unrecognized option|invalid option/i.test(
    text,
  );
}

function complaint({ exitCode, failure, stderr }: ToolOutcome): string {
  // The first lines say it. What follows repeats the input, with a line of carets.
  const lines = stderr.split('\n', 20).map((line) => line.trim());
  const telling = lines.filter((line) => /error|denied|not permitted|cannot|failed|answers/i.test(line));
  const text = (telling[0] ?? lines.find((line) => line !== '') ?? '').slice(0, MAX_TEXT_CHARS);
  const end = failure ?? `exit code ${exitCode}`;
  return text === '' ? end : failure === undefined ? text : `${text} (${failure})`;
}

function error(code: ErrorCode, message: string): BalancerError {
  return new BalancerError(message, { code, source: 'system' });
}

/** What `nft --version` says. */
export interface ToolVersion {
  /** `nftables v1.0.6 (Lester Gooch #5)`. */
  readonly text: string;
  readonly fit: 'known' | 'newer' | 'too-old';
}

/** The oldest and the newest that haports was tried with. */
const OLDEST: readonly number[] = [1, 0, 6];
const NEWEST: readonly number[] = [1, 1];

/** Undefined where it is no version of nft at all. */
export function parseToolVersion(output: string): ToolVersion | undefined {
  const match = /^nftables v(\d+)\.(\d+)(?:\.(\d+))?.*$/m.exec(output);
  if (match === null) return undefined;
  const numbers = [match[1], match[2], match[3] ?? '0'].map(Number);
  const fit =
    order(numbers, OLDEST) < 0 ? 'too-old' : order(numbers.slice(0, 2), NEWEST) > 0 ? 'newer' : 'known';
  return { text: match[0].trim(), fit };
}

/** Its version, with a note where haports was not tried with it. Rejects with BalancerError where it will not do. */
export async function usableTool(tools: Tools): Promise<string> {
  const outcome = await tools.run('nft', ['--version']);
  if (!succeeded(outcome)) throw toolFailure('nft', outcome);
  const version = parseToolVersion(outcome.stdout);
  if (version === undefined || version.fit === 'too-old')
    throw tooOld(version?.text ?? outcome.stdout.trim());
  return version.fit === 'known' ? version.text : `${version.text}, newer than haports was tried with`;
}

function order(a: readonly number[], b: readonly number[]): number {
  for (const [index, number] of a.entries()) {
    const difference = number - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

const NEWLINE = 0x0a;

/** Cuts a stream of bytes into lines. What follows the last newline waits for more. */
export class LineSplitter {
  #rest: Buffer | undefined;

  /** The whole lines that the chunk completes, without newlines. */
  push(chunk: Buffer): string[] {
    const end = chunk.lastIndexOf(NEWLINE);
    if (end < 0) {
      this.#rest = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk]);
      return [];
    }
    const whole = chunk.subarray(0, end);
    const text = (this.#rest === undefined ? whole : Buffer.concat([this.#rest, whole])).toString();
    this.#rest = end + 1 < chunk.length ? chunk.subarray(end + 1) : undefined;
    return text.split('\n');
  }
}
