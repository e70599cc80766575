import { InvalidArgumentError, Option, type Command } from 'commander';
import { formatFindings, type Finding } from '../config/findings.js';
import type { ParseResult } from '../config/load.js';
import type { DoctorMachine } from '../doctor/machine.js';
import { parseDuration, type AdminState, type Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
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
  /** Calls when nobody reads `out` any more, until the returned function is called. */
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

/** An end that comes from outside, for commands that go on until told otherwise. */
export interface Interrupt {
  /** Aborts at the first signal, and when nobody reads the output any more. */
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

/** Which backend is meant: `pool/name` or `pool/address`. */
export interface BackendRef {
  readonly pool: string;
  readonly backend: string;
}

/** Throws `LB_USAGE` on anything but two parts. Addresses may hold colons, not slashes. */
export function parseBackendRef(text: string): BackendRef {
  const [, pool, backend] = /^([^/]+)\/([^/]+)$/.exec(text) ?? [];
  if (pool === undefined || backend === undefined) {
    throw usageError(
      `Cannot read backend "${text}": it must be pool/backend, as nvas/nva-1 or nvas/127.0.0.11`,
    );
  }
  return { pool, backend };
}

/** For commander: a duration as in the configuration, kept as text. */
export function durationText(text: string): string {
  if (parseDuration(text) === undefined) {
    throw new InvalidArgumentError('It must be a whole number with a unit: 500ms, 10s, 10m or 1h.');
  }
  return text;
}

/** For commander: `2%`, or a share from 0 to 1 such as 0.02. */
export function share(text: string): number {
  const percent = /^(\d+(?:\.\d+)?)\s?%$/.exec(text)?.[1];
  const value =
    percent === undefined ? (/^[01](?:\.\d+)?$/.test(text) ? Number(text) : NaN) : Number(percent) / 100;
  if (!(value <= 1))
    throw new InvalidArgumentError('It must be at most 100%, as 2%, or a share from 0 to 1, as 0.02.');
  return value;
}

/** For commander: a whole number within bounds. */
export function wholeNumber(bounds: {
  readonly from: number;
  readonly to: number;
}): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
    if (value >= bounds.from && value <= bounds.to) return value;
    throw new InvalidArgumentError(`It must be a whole number, ${bounds.from} to ${bounds.to}.`);
  };
}

const ADMIN_STATES: readonly (AdminState | 'configured')[] = ['none', 'up', 'down', 'configured'];

/** Throws `LB_USAGE`. */
export function parseAdminState(text: string): AdminState | 'configured' {
  const state = ADMIN_STATES.find((one) => one === text);
  if (state !== undefined) return state;
  throw usageError(`Cannot set admin state "${text}": it must be none, up, down or configured`);
}

/** Throws `LB_USAGE`. */
export function parseWeight(text: string): number | 'configured' {
  if (text === 'configured') return text;
  const weight = /^\d{1,3}$/.test(text) ? Number(text) : NaN;
  if (weight <= 256) return weight;
  throw usageError(`Cannot set weight "${text}": it must be a whole number, 0 to 256, or configured`);
}

const GROUP = 'Which process:';

/** Adds `--json` and, apart from the command's own options, those that say which running process is asked. */
export function addConnection(
  command: Command,
  words: { readonly json: string; readonly config?: string },
): Command {
  const config = words.config ?? 'configuration file, for its admin.socket';
  // The first option decides which group is shown first.
  return command
    .option('--json', words.json, false)
    .addOption(new Option('-c, --config <file>', config).default('config.json').helpGroup(GROUP))
    .addOption(
      new Option('--socket <path>', 'admin socket (default: HAPORTS_SOCKET, else admin.socket)').helpGroup(
        GROUP,
      ),
    )
    .addOption(
      new Option('--http <url>', 'admin address instead, as http://127.0.0.1:9901')
        .conflicts('socket')
        .helpGroup(GROUP),
    )
    .addOption(new Option('--token-file <file>', 'file with the token for --http').helpGroup(GROUP))
    .addOption(new Option('--ca <file>', 'certificate to trust for --http, PEM').helpGroup(GROUP));
}

/** Where no process is asked: every probe up, admin states as configured, nobody draining. */
export const ALL_UP: CompilerInputs = {
  health: () => ({ state: 'up' }),
  adminState: ({ adminState }) => adminState,
  draining: () => false,
};
