import { formatFindings } from '../config/findings.js';
import type { ParseResult } from '../config/load.js';
import type { DoctorMachine } from '../doctor/machine.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import { ForwardingCompiler, type CompilerInputs } from '../selection/compiler.js';
import { createHasher } from '../selection/flow-hash.js';
import { Picker } from '../selection/picker.js';
import type { Layout } from './format.js';
import type { Terminal } from './terminal.js';

/** What the commands print to and what they start; made in main. */
export interface CliDeps {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  readonly load: (path: string) => Promise<ParseResult>;
  readonly startBalancer: StartBalancer;
  /** Calls the listener with each signal until the returned function is called. */
  readonly onSignal: (listener: (signal: ProcessSignal) => void) => () => void;
  /** Calls when the reader of `out` has closed it, until the returned function is called. */
  readonly onOutputClosed: (listener: () => void) => () => void;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** A whole file as UTF-8; rejects with the system's error. */
  readonly readText: (path: string) => Promise<string>;
  /** A file piece by piece; rejects with the system's error. */
  readonly readChunks: (path: string) => AsyncIterable<Uint8Array>;
  /** Calls with the text of a file each time it has changed; never rejects. See runtime/watch.ts. */
  readonly watchFile: (path: string, onChange: (text: string) => void) => Promise<() => void>;
  readonly terminal: Terminal;
  readonly kernel: KernelOperations;
  /** What `haports doctor` examines. */
  readonly doctor: () => Promise<DoctorMachine>;
}

/** About what capture keeps in the kernel. */
export interface KernelOperations {
  /** What a start would write there. Throws `LB_USAGE` where the configuration captures nothing. */
  ruleset(configuration: Configuration, options: { readonly full: boolean }): string | Promise<string>;
  /** Removes what an instance has left, and gives it line by line. Rejects with `LB_INSTANCE_RUNNING` while it runs. */
  flush(instance: string): Promise<readonly string[]>;
}

export type ProcessSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGUSR2';

/** A balancer as the commands drive it. */
export interface StartedBalancer {
  readonly metricsPort?: number;
  /** Of the admin API over TCP. */
  readonly adminPort?: number;
  stop(cause: string, deadlineMs: number): Promise<{ readonly finished: number; readonly reset: number }>;
  /**
   * Resolves when another process has taken this one's place, with how long flows may finish; absent: the configured
   * shutdown deadline. To be answered by `stop`.
   */
  readonly superseded: Promise<{ readonly deadlineMs?: number }>;
  /** Has another process take this one's place. Never rejects: the outcome is in the log. */
  upgrade(): Promise<void>;
  reopenLogs(): Promise<void>;
  /**
   * Applies a whole configuration, or nothing of it; the outcome is in the log either way. Rejects with a
   * BalancerError: `LB_CONFIG_INVALID`, `LB_RESTART_NEEDED`, `LB_CONFLICT` (another reload is under way) ...
   */
  reload(text: string, cause: string): Promise<void>;
  /** Reports, as a failed reload, that the configuration could not be read. */
  reloadRefused(error: Error, cause: string): void;
}

export type StartBalancer = (
  configuration: Configuration,
  origin: { readonly source: string; readonly findings: number },
) => Promise<StartedBalancer>;

/** design.md "Command line": the same for every command. */
export const EXIT = { fine: 0, failed: 1, badInput: 2, gateExceeded: 3 } as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** A configuration that cannot be used; the message has a line for each of its errors. */
export class UnusableConfiguration extends Error {}

/** A configuration that can be used, with its findings. Throws UnusableConfiguration. */
export async function loadUsable(
  deps: Pick<CliDeps, 'load'>,
  path: string,
): Promise<ParseResult & { readonly ok: true }> {
  const result = await deps.load(path);
  if (result.ok) return result;
  const errors = result.findings.filter(({ severity }) => severity === 'error');
  throw new UnusableConfiguration(formatFindings(path, errors).join('\n'));
}

/** One JSON value, indented. */
export function printJson(deps: Pick<CliDeps, 'out'>, value: unknown): void {
  deps.out(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** One JSON value on one line, for streams of them. */
export function printJsonLine(deps: Pick<CliDeps, 'out'>, value: unknown): void {
  deps.out(`${JSON.stringify(value)}\n`);
}

export function printLines(deps: Pick<CliDeps, 'out'>, lines: readonly string[]): void {
  deps.out(`${lines.join('\n')}\n`);
}

/** Of now and of this terminal. */
export function layoutOf({ clock, terminal }: Pick<CliDeps, 'clock' | 'terminal'>): Layout {
  return { nowMs: clock.wallMs(), width: terminal.size().columns };
}

/** Prints an answer: as JSON where the options ask for it, else in lines for people. */
export function printAnswer<T>(
  deps: Pick<CliDeps, 'out' | 'clock' | 'terminal'>,
  options: { readonly json: boolean },
  value: T,
  lines: (value: T, layout: Layout) => readonly string[],
): void {
  if (options.json) printJson(deps, value);
  else printLines(deps, lines(value, layoutOf(deps)));
}

/** The text of a file that a command line names. Throws `LB_USAGE`, in these words, where it cannot be read. */
export async function readNamedFile(
  deps: Pick<CliDeps, 'readText'>,
  path: string,
  what = 'File',
  advice = '',
): Promise<string> {
  try {
    return await deps.readText(path);
  } catch (cause) {
    throw usageError(`${what} "${path}" cannot be read: ${errorMessage(cause)}${advice}`);
  }
}

/** An end that comes from outside, for commands that run until they are interrupted. */
export interface Interrupt {
  /** Aborts at the first signal, and when the reader of the output has closed it. */
  readonly signal: AbortSignal;
  /** Resolves after the time, or at once when interrupted. Never rejects. */
  pause(ms: number): Promise<void>;
  /** Stops listening. */
  release(): void;
}

/** Listens from now on, until released. */
export function interruptible(deps: Pick<CliDeps, 'onSignal' | 'onOutputClosed' | 'clock'>): Interrupt {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  const releases = [deps.onSignal(abort), deps.onOutputClosed(abort)];
  return {
    signal: controller.signal,
    pause: (ms) => pause(deps.clock, ms, controller.signal),
    release: () => releases.forEach((release) => release()),
  };
}

/** Resolves after the time, or at once when aborted. Never rejects. */
export function pause(clock: CliDeps['clock'], ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.setTimer(ms, done);
    signal.addEventListener('abort', done);
  });
}

/** A mistake in a command line: one line, exit code 2. */
export function usageError(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_USAGE', source: 'usage' });
}

/** What decides where flows go, without a process. */
export async function offlineSelection() {
  const hash = await createHasher();
  return { hash, compiler: new ForwardingCompiler(hash), picker: new Picker(hash) };
}

/** Where no process is asked: every probe up, nothing overridden. */
export const ALL_UP: CompilerInputs = {
  health: () => ({ state: 'up' }),
};
