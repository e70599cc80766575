import { execFile } from 'node:child_process';
import { errorMessage } from '../model/errors.js';
import { systemClock, type Clock } from './clock.js';

/** Sends variables (`READY=1`) to the service manager as one message. Rejects where it cannot. */
export type NotifyRunner = (variables: readonly string[]) => Promise<void>;

/** What systemd puts into a service's environment (sd_notify(3), sd_watchdog_enabled(3)). */
export type NotifyEnvironment = Readonly<Record<string, string | undefined>>;

export interface SystemdNotifierOptions {
  /** @default systemClock */
  readonly clock?: Clock;
  /** Whose watchdog it is. @default process.pid */
  readonly pid?: number;
  /** CLOCK_MONOTONIC in microseconds. */
  readonly monotonicMicros?: () => bigint;
  /** Told once for each run of failures: a service that cannot say it is ready is ended by systemd, so log it. */
  readonly onFailure?: (message: string) => void;
}

/** How much longer than the deadline of its flows a process may take to end. */
const STOP_MARGIN_MS = 10_000;

/** Longer than the 5 s that systemd-notify itself waits for the service manager to have read its message. */
const RUN_TIMEOUT_MS = 8000;

/**
 * Runs the `systemd-notify` program (Debian package systemd), since Node has no datagram sockets of AF_UNIX. The
 * message comes from a child, so the unit needs `NotifyAccess=all`. It waits until the service manager has read it:
 * the sender is looked up by its pid, which must still be there.
 */
export function systemdNotifyProgram(environment: NotifyEnvironment): NotifyRunner {
  return (variables) =>
    new Promise((resolve, reject) => {
      execFile(
        'systemd-notify',
        [...variables],
        { env: environment, timeout: RUN_TIMEOUT_MS, killSignal: 'SIGKILL' },
        (error, _stdout, stderr) => {
          if (error === null) resolve();
          else reject(new Error(stderr.trim() || error.message, { cause: error }));
        },
      );
    });
}

/**
 * Tells systemd what the process is doing (Type=notify). Messages go one after the other, in the order of the calls.
 * No call throws or rejects, and without NOTIFY_SOCKET in the environment all of them do nothing.
 */
export class SystemdNotifier {
  /** Whether the service manager listens. */
  readonly #isActive: boolean;
  readonly #runner: NotifyRunner;
  readonly #clock: Clock;
  readonly #monotonicMicros: () => bigint;
  readonly #onFailure: (message: string) => void;
  /** Undefined: the service has no watchdog, or it is another process's. */
  readonly #watchdogMs: number | undefined;
  #sent: Promise<void> = Promise.resolve();
  #hasFailed = false;
  #cancel: () => void = () => undefined;

  constructor(environment: NotifyEnvironment, runner: NotifyRunner, options: SystemdNotifierOptions = {}) {
    this.#isActive = (environment['NOTIFY_SOCKET'] ?? '') !== '';
    this.#runner = runner;
    this.#clock = options.clock ?? systemClock;
    // On Linux, hrtime is CLOCK_MONOTONIC.
    this.#monotonicMicros = options.monotonicMicros ?? (() => process.hrtime.bigint() / 1000n);
    this.#onFailure = options.onFailure ?? (() => undefined);
    this.#watchdogMs = watchdogMs(environment, options.pid ?? process.pid);
  }

  /** Every listener is open; also ends `reloading`. `status` is what `systemctl status` shows, one line. */
  ready(status: string): Promise<void> {
    return this.#send(['READY=1', statusLine(status)]);
  }

  /** A reload begins; `ready` ends it, whether it succeeded or not: the configuration before then stays active. */
  reloading(): Promise<void> {
    return this.#send(['RELOADING=1', `MONOTONIC_USEC=${this.#monotonicMicros()}`]);
  }

  /** An orderly stop begins. `deadlineMs`: how long flows may finish; systemd waits so much and 10 s longer. */
  stopping(status: string, deadlineMs: number): Promise<void> {
    const extendMicros = Math.ceil(deadlineMs + STOP_MARGIN_MS) * 1000;
    return this.#send(['STOPPING=1', `EXTEND_TIMEOUT_USEC=${extendMicros}`, statusLine(status)]);
  }

  status(text: string): Promise<void> {
    return this.#send([statusLine(text)]);
  }

  /** This process is the service's main one from now on: for the new process of an upgrade. */
  mainPid(pid: number): Promise<void> {
    return this.#send([`MAINPID=${pid}`]);
  }

  /**
   * Sends a sign of life twice each WATCHDOG_USEC while `isAlive` resolves with true: what does not answer is not
   * alive. Does nothing where the service has no watchdog.
   */
  watch(isAlive: () => Promise<boolean>): void {
    this.stop();
    if (this.#isActive && this.#watchdogMs !== undefined) this.#beat(this.#watchdogMs / 2, isAlive);
  }

  /** Ends the signs of life. May be called again. */
  stop(): void {
    this.#cancel();
    this.#cancel = () => undefined;
  }

  #beat(periodMs: number, isAlive: () => Promise<boolean>): void {
    this.#cancel = this.#clock.setTimer(
      periodMs,
      () => {
        // The period must not grow by the time that the answer takes.
        this.#beat(periodMs, isAlive);
        void this.#signOfLife(isAlive);
      },
      { unref: true },
    );
  }

  /** An answer that never comes must not keep the next question from being asked. */
  async #signOfLife(isAlive: () => Promise<boolean>): Promise<void> {
    const alive = await Promise.resolve()
      .then(isAlive)
      .catch(() => false);
    if (alive) await this.#send(['WATCHDOG=1']);
  }

  #send(variables: readonly string[]): Promise<void> {
    if (!this.#isActive) return Promise.resolve();
    this.#sent = this.#sent.then(async () => {
      try {
        await this.#runner(variables);
        this.#hasFailed = false;
      } catch (error) {
        if (!this.#hasFailed) {
          this.#onFailure(`Cannot tell systemd ${variables[0] ?? ''}: ${errorMessage(error)}`);
        }
        this.#hasFailed = true;
      }
    });
    return this.#sent;
  }
}

/** A message is lines, and an argument ends at NUL. */
function statusLine(text: string): string {
  return `STATUS=${text.replace(/[\r\n\0]+/g, ' ')}`;
}

function watchdogMs(environment: NotifyEnvironment, pid: number): number | undefined {
  const { WATCHDOG_USEC: micros = '', WATCHDOG_PID: owner } = environment;
  if (!/^[1-9][0-9]*$/.test(micros) || (owner !== undefined && owner !== String(pid))) return undefined;
  return Number(micros) / 1000;
}
