import { demoBanner, startDemoBackends } from '../demo/demo.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import { EXIT, loadUsable, type CliDeps, type ExitCode, type StartedBalancer } from './deps.js';

export interface RunOptions {
  readonly config: string;
  /** Reload whenever the content of the configuration file changes. */
  readonly watch: boolean;
}

/**
 * `haports run`: serves until a signal, then lets flows finish until the shutdown deadline. SIGHUP reloads the
 * configuration file and opens the logs anew; SIGUSR2 has a new process take this one's place.
 */
export async function runCommand(deps: CliDeps, options: RunOptions): Promise<ExitCode> {
  const { config, watch } = options;
  const reloads = new ReloadQueue(deps, { path: config });
  // Before the file is read: a change during the start is taken over after it.
  const unwatch = watch
    ? await deps.watchFile(config, (text) => reloads.request('file watch', text))
    : undefined;
  const stopAsked = awaitStop(deps, { onHangUp: () => reloads.request('SIGHUP') });
  try {
    const usable = await loadUsable(deps, config);
    if (usable === undefined) return EXIT.badInput;
    const { configuration, findings } = usable;
    const balancer = await deps.startBalancer(configuration, {
      source: config,
      findings: findings.length,
    });
    reloads.attach(balancer);
    void Promise.race([stopAsked.first, balancer.superseded]).then(() => reloads.stop());
    await stopAsked.thenStop(balancer, configuration.shutdownDeadlineMs);
    return EXIT.fine;
  } finally {
    reloads.stop();
    stopAsked.cancel();
    unwatch?.();
  }
}

/**
 * Watches for signals from now on. The first SIGTERM or SIGINT asks for an orderly stop, the second ends at once;
 * SIGHUP re-opens the logs and calls `onHangUp`; SIGUSR2 upgrades, and an upgrade stops this process as a signal does.
 * Listening begins before the start, so that a signal during it is not lost. Call `cancel` in the end.
 */
export function awaitStop(
  deps: CliDeps,
  { onHangUp }: { readonly onHangUp?: () => void } = {},
): {
  /** The first signal that asks for a stop. */
  readonly first: Promise<string>;
  thenStop(balancer: StartedBalancer, deadlineMs: number): Promise<void>;
  /** Signals do again what they do to any process. Idempotent. */
  cancel(): void;
} {
  let running: StartedBalancer | undefined;
  let asked = 0;
  /** Before it could be done. */
  let upgradeAsked = false;
  let wake: (signal: string) => void = () => undefined;
  const first = new Promise<string>((resolve) => (wake = resolve));
  const cancel = deps.onSignal((signal) => {
    if (signal === 'SIGHUP') {
      void running?.reopenLogs();
      onHangUp?.();
      return;
    }
    if (signal === 'SIGUSR2') {
      if (running === undefined) upgradeAsked = true;
      else void running.upgrade();
      return;
    }
    asked++;
    if (asked === 1) wake(signal);
    // The first stop ends with it, and tells how; nothing waits for this one.
    else running?.stop(`second ${signal}`, 0).catch(() => undefined);
  });
  return {
    first,
    cancel,
    async thenStop(balancer, deadlineMs) {
      running = balancer;
      if (upgradeAsked) void balancer.upgrade();
      const superseded = balancer.superseded.then(({ deadlineMs: own }) => {
        // Whoever asks this process to stop now means the flows that are left.
        asked++;
        return { cause: 'upgrade', withinMs: own ?? deadlineMs };
      });
      const signalled = first.then((cause) => ({ cause, withinMs: asked > 1 ? 0 : deadlineMs }));
      const { cause, withinMs } = await Promise.race([signalled, superseded]);
      await balancer.stop(cause, withinMs);
    },
  };
}

/** Another reload is under way, by the admin API: how often and how many times to try again. */
const BUSY_RETRY_MS = 1000;
const BUSY_RETRIES = 60;

/**
 * Reloads that nobody waits for: SIGHUP and file watch. One at a time, the newest wish last; wishes that come before
 * the balancer runs are kept for then. A reload that fails leaves everything as it was, and the next one is tried all
 * the same: the balancer tells it in its log.
 */
export class ReloadQueue {
  readonly #deps: Pick<CliDeps, 'readText' | 'clock'>;
  readonly #path: string;
  #balancer: StartedBalancer | undefined;
  #next: { readonly cause: string; readonly text?: string } | undefined;
  #isBusy = false;
  #isStopped = false;
  #cancelRetry: () => void = () => undefined;

  constructor(deps: Pick<CliDeps, 'readText' | 'clock'>, options: { readonly path: string }) {
    this.#deps = deps;
    this.#path = options.path;
  }

  /** Wants the file taken over; `text` where it has been read already. */
  request(cause: string, text?: string): void {
    this.#next = { cause, ...(text === undefined ? {} : { text }) };
    this.#run();
  }

  /** From now on reloads go to this balancer. */
  attach(balancer: StartedBalancer): void {
    this.#balancer = balancer;
    this.#run();
  }

  /** Starts no more reloads. */
  stop(): void {
    this.#isStopped = true;
    this.#cancelRetry();
  }

  #run(): void {
    const balancer = this.#balancer;
    if (this.#isBusy || this.#isStopped || this.#next === undefined || balancer === undefined) return;
    const { cause, text } = this.#next;
    this.#next = undefined;
    this.#isBusy = true;
    void this.#reload(balancer, cause, text).then(() => {
      this.#isBusy = false;
      this.#run();
    });
  }

  /** Never rejects. */
  async #reload(balancer: StartedBalancer, cause: string, known: string | undefined): Promise<void> {
    const text = known ?? (await this.#read(balancer, cause));
    if (text === undefined) return;
    for (let retry = 0; !this.#isStopped; retry++) {
      try {
        await balancer.reload(text, cause);
        return;
      } catch (error) {
        const isConflict = error instanceof BalancerError && error.code === 'LB_CONFLICT';
        // A newer wish supersedes this one.
        if (!isConflict || retry >= BUSY_RETRIES || this.#next !== undefined) return;
        await new Promise<void>((resolve) => {
          const cancel = this.#deps.clock.setTimer(BUSY_RETRY_MS, resolve);
          this.#cancelRetry = () => {
            cancel();
            resolve();
          };
        });
      }
    }
  }

  async #read(balancer: StartedBalancer, cause: string): Promise<string | undefined> {
    try {
      return await this.#deps.readText(this.#path);
    } catch (error) {
      const message = `Configuration file "${this.#path}" cannot be read: ${errorMessage(error)}`;
      const options = { code: 'LB_CONFIG_UNREADABLE', source: 'config', cause: error } as const;
      balancer.reloadRefused(new BalancerError(message, options), cause);
      return undefined;
    }
  }
}

export interface DemoOptions {
  readonly config: string;
  /** How the reader would call `haports explain` with this configuration. */
  readonly explainCommand: string;
}

/** `haports demo`: sample NVAs for every backend of the configuration, and the balancer in front of them. */
export async function demoCommand(deps: CliDeps, options: DemoOptions): Promise<ExitCode> {
  const usable = await loadUsable(deps, options.config);
  if (usable === undefined) return EXIT.badInput;
  const { configuration, findings } = usable;
  const stopAsked = awaitStop(deps);
  const demo = await startDemoBackends(configuration);
  try {
    const balancer = await deps.startBalancer(configuration, {
      source: options.config,
      findings: findings.length,
    });
    deps.out(demoBanner(configuration, { explainCommand: options.explainCommand }));
    await stopAsked.thenStop(balancer, configuration.shutdownDeadlineMs);
  } finally {
    stopAsked.cancel();
    await demo.stop();
  }
  return EXIT.fine;
}
