import { formatFindings, type Finding } from '../config/findings.js';
import type { ParseResult } from '../config/load.js';
import type { DoctorMachine } from '../doctor/machine.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import type { CompilerInputs } from '../selection/compiler.js';
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
  /** Calls with the text of a file each time it has changed; never rejects. See runtime/file-watch.ts. */
  readonly watchFile: (path: string, onChange: (text: string) => void) => Promise<() => void>;
  readonly terminal: Terminal;
  readonly kernel: KernelOperations;
  /** What `haports doctor` examines. */
  readonly doctor: DoctorMachine;
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
   * Takes a whole configuration over, or nothing of it; it has told the outcome in the log either way. Rejects with a
   * BalancerError: `LB_CONFIG_INVALID`, `LB_RESTART_NEEDED`, `LB_CONFLICT` (another reload is under way) ...
   */
  reload(text: string, cause: string): Promise<void>;
  /** Tells, as a failed reload, that what was to be taken over could not even be read. */
  reloadRefused(error: Error, cause: string): void;
}

export type StartBalancer = (
  configuration: Configuration,
  origin: { readonly source: string; readonly findings: number },
) => Promise<StartedBalancer>;

/** A configuration that may be used, with what there is to say about it. */
export interface UsableConfiguration {
  readonly configuration: Configuration;
  readonly findings: readonly Finding[];
}

/** design.md "Command line": the same for every command. */
export const EXIT = { fine: 0, failed: 1, badInput: 2, gateExceeded: 3 } as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Loads a configuration, or prints every error it has and gives undefined. */
export async function loadUsable(
  deps: Pick<CliDeps, 'load' | 'err'>,
  path: string,
): Promise<UsableConfiguration | undefined> {
  const result = await deps.load(path);
  if (result.ok) return { configuration: result.configuration, findings: result.findings };
  const errors = result.findings.filter(({ severity }) => severity === 'error');
  deps.err(`${formatFindings(path, errors).join('\n')}\n`);
  return undefined;
}

/** The text of a file that a command names. Throws `LB_USAGE` where it cannot be read. */
export async function readConfigurationText(deps: Pick<CliDeps, 'readText'>, path: string): Promise<string> {
  try {
    return await deps.readText(path);
  } catch (cause) {
    throw usageError(`Configuration file "${path}" cannot be read: ${errorMessage(cause)}`);
  }
}

/** An end that comes from outside, for commands that run until told otherwise. */
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

/** Where no process is asked: every probe up, nothing overridden. */
export const ALL_UP: CompilerInputs = {
  health: () => ({ state: 'up' }),
};
