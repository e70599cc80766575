import { demoBanner, startDemoBackends } from '../demo/demo.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { CliCommand } from './command.js';
import { EXIT, loadUsable, type CliDeps, type ExitCode, type StartedBalancer } from './deps.js';

interface RunOptions {
  readonly config: string;
  /** Reload whenever the content of the configuration file changes. */
  readonly watch: boolean;
}

export const run: CliCommand = {
  name: 'run',
  summary: 'start balancing, until a signal says stop',
  examples: ['haports run -c /etc/haports/config.json', 'haports run --watch'],
  notes: `
Signals: SIGTERM or SIGINT takes no new flows, lets flows finish until shutdown.deadline (30s) and resets the rest;
a second one ends at once. SIGUSR2 upgrades, see haports upgrade. SIGHUP reloads the configuration file and re-opens the
flow log (for log rotation). A configuration that cannot be used is refused whole, and the previous one stays active.

--watch sees writes, renames over the file (editors) and swapped symbolic links (Kubernetes).

The log goes to stderr: lines for people on a terminal, else JSON.`,
  exitCodes:
    '0 ended by a signal; 1 nothing could be listened on, or the metrics or admin address is taken; 2 the ' +
    'configuration cannot be used',
  define: (command, cli) =>
    command
      .option('-c, --config <file>', 'configuration file', 'config.json')
      .option('--watch', 'reload whenever the content of the configuration file changes', false)
      .action(cli.run((options: RunOptions) => serve(cli.deps, options))),
};

/** Serves until a signal, then lets flows finish until the shutdown deadline. */
async function serve(deps: CliDeps, { config, watch }: RunOptions): Promise<ExitCode> {
  const reloads = new ReloadQueue(deps, config);
  // Before the file is read: a change during the start is applied after it.
  const unwatch = watch
    ? await deps.watchFile(config, (text) => reloads.request('file watch', text))
    : undefined;
  const stopAsked = awaitStop(deps, () => reloads.request('SIGHUP'));
  try {
    const { configuration, findings } = await loadUsable(deps, config);
    const balancer = await deps.startBalancer(configuration, { source: config, findings: findings.length });
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
function awaitStop(
  deps: CliDeps,
  onHangUp?: () => void,
): {
  /** The first signal that asks for a stop. */
  readonly first: Promise<string>;
  thenStop(balancer: StartedBalancer, deadlineMs: number): Promise<void>;
  /** Signals have their default effect again. Idempotent. */
  cancel(): void;
} {
  let running: StartedBalancer | undefined;
  let asked = 0;
  /** Before there was a balancer. */
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
    // The first stop ends with it and reports the outcome; nothing waits for this one.
    else running?.stop(`second ${signal}`, 0).catch(() => undefined);
  });
  return {
    first,
    cancel,
    async thenStop(balancer, deadlineMs) {
      running = balancer;
      if (upgradeAsked) void balancer.upgrade();
      const superseded = balancer.superseded.then(({ deadlineMs: own }) => {
        // A signal from now on means the flows that are left.
        asked++;
        return { cause: 'upgrade', withinMs: own ?? deadlineMs };
      });
      const signalled = first.then((cause) => ({ cause, withinMs: asked > 1 ? 0 : deadlineMs }));
      const { cause, withinMs } = await Promise.race([signalled, superseded]);
      await balancer.stop(cause, withinMs);
    },
  };
}

/** Retries while another reload, by the admin API, is under way. */
const BUSY_RETRY_MS = 1000;
const BUSY_RETRIES = 60;

/**
 * Reloads by SIGHUP and file watch, which have no caller to answer. One at a time, and only the newest request waits,
 * also for the start of the balancer. A reload that fails changes nothing and is logged by the balancer; the next one is
 * tried all the same.
 */
class ReloadQueue {
  readonly #deps: Pick<CliDeps, 'readText' | 'clock'>;
  readonly #path: string;
  #balancer: StartedBalancer | undefined;
  #next: { readonly cause: string; readonly text?: string } | undefined;
  #isBusy = false;
  #isStopped = false;
  #cancelRetry: () => void = () => undefined;

  constructor(deps: Pick<CliDeps, 'readText' | 'clock'>, path: string) {
    this.#deps = deps;
    this.#path = path;
  }

  /** Has the file applied; `text` where it has been read already. */
  request(cause: string, text?: string): void {
    this.#next = { cause, text };
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
        // A newer request supersedes this one.
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

/** Sample NVAs for every backend of the configuration, and the balancer in front of them. */
export const demo: CliCommand = {
  name: 'demo',
  summary: 'the whole thing on loopback: sample NVAs and a balancer in front of them',
  examples: ['haports demo'],
  notes: `
Starts a small sample NVA for each backend of the configuration, and the balancer in front of them, all on this
machine's loopback addresses. Needs no root and no other software. Ends with Ctrl-C.`,
  exitCodes: '0 ended by Ctrl-C; 1 an address or port is taken; 2 the configuration cannot be used',
  define: (command, { deps, bundledConfig, run: action }) =>
    command
      .option('-c, --config <file>', 'configuration file', bundledConfig)
      .action(action(({ config }: { readonly config: string }) => serveDemo(deps, config))),
};

async function serveDemo(deps: CliDeps, config: string): Promise<ExitCode> {
  const { configuration, findings } = await loadUsable(deps, config);
  const stopAsked = awaitStop(deps);
  const nvas = await startDemoBackends(configuration);
  try {
    const balancer = await deps.startBalancer(configuration, { source: config, findings: findings.length });
    deps.out(demoBanner(configuration, `node dist/main.js explain -c ${config}`));
    await stopAsked.thenStop(balancer, configuration.shutdownDeadlineMs);
  } finally {
    stopAsked.cancel();
    await nvas.stop();
  }
  return EXIT.fine;
}
