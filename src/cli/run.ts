import { demoBanner, startDemoBackends } from '../demo/demo.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import { SerialQueue } from '../runtime/queue.js';
import type { CliCommand } from './command.js';
import { loadUsable, pause, type CliDeps, type StartedBalancer } from './deps.js';

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
async function serve(deps: CliDeps, { config, watch }: RunOptions): Promise<void> {
  let attach: (balancer: StartedBalancer) => void = () => undefined;
  const started = new Promise<StartedBalancer>((resolve) => (attach = resolve));
  const stopAsked = awaitStop(deps, () => reload('SIGHUP'));
  const reload = reloader(deps, config, started, stopAsked.signal);
  let unwatch: (() => void) | undefined;
  try {
    // Before the file is read: a change during the start is applied after it.
    if (watch) unwatch = await deps.watchFile(config, (text) => reload('file watch', text));
    const { configuration, findings } = await loadUsable(deps, config);
    const balancer = await deps.startBalancer(configuration, { source: config, findings: findings.length });
    attach(balancer);
    await stopAsked.thenStop(balancer, configuration.shutdownDeadlineMs);
  } finally {
    stopAsked.cancel();
    unwatch?.();
  }
}

interface StopRequest {
  /** Aborts when a stop is asked for, and by `cancel`. */
  readonly signal: AbortSignal;
  /** Waits for the request, then stops the balancer. */
  thenStop(balancer: StartedBalancer, deadlineMs: number): Promise<void>;
  /** Signals have their default effect again. Idempotent. */
  cancel(): void;
}

/**
 * Watches for signals from now on. The first SIGTERM or SIGINT asks for an orderly stop, the second ends at once;
 * SIGHUP re-opens the logs and calls `onHangUp`; SIGUSR2 upgrades, and an upgrade stops this process as a signal does.
 * Listening begins before the start, so that a signal during it is not lost. Call `cancel` in the end.
 */
function awaitStop(deps: CliDeps, onHangUp?: () => void): StopRequest {
  const stopping = new AbortController();
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
    } else if (signal === 'SIGUSR2') {
      if (running === undefined) upgradeAsked = true;
      else void running.upgrade();
    } else if (++asked === 1) {
      stopping.abort();
      wake(signal);
    } else {
      // The first stop ends with it and reports the outcome; nothing waits for this one.
      running?.stop(`second ${signal}`, 0).catch(() => undefined);
    }
  });
  return {
    signal: stopping.signal,
    cancel() {
      stopping.abort();
      cancel();
    },
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
      stopping.abort();
      await balancer.stop(cause, withinMs);
    },
  };
}

/** Retries while another reload, by the admin API, is under way. */
const BUSY_RETRY_MS = 1000;
const BUSY_RETRIES = 60;

/**
 * Reloads by SIGHUP and file watch, which have no caller to answer: each call has the file applied, or `text` where it
 * has been read already. One at a time once the balancer has started, and only the newest request waits, until
 * `stopping`. A reload that fails changes nothing and is logged by the balancer; the next one is tried all the same.
 */
function reloader(
  deps: Pick<CliDeps, 'readText' | 'clock'>,
  path: string,
  started: Promise<StartedBalancer>,
  stopping: AbortSignal,
): (cause: string, text?: string) => void {
  const queue = new SerialQueue();
  let newest = 0;
  const apply = async (isWanted: () => boolean, cause: string, known: string | undefined): Promise<void> => {
    const balancer = await started;
    if (!isWanted()) return;
    const text =
      known ??
      (await deps.readText(path).catch((error: unknown) => {
        const message = `Configuration file "${path}" cannot be read: ${errorMessage(error)}`;
        const options = { code: 'LB_CONFIG_UNREADABLE', source: 'config', cause: error } as const;
        balancer.reloadRefused(new BalancerError(message, options), cause);
      }));
    if (text === undefined) return;
    for (let retry = 0; isWanted(); retry++) {
      try {
        await balancer.reload(text, cause);
        return;
      } catch (error) {
        const isBusy = error instanceof BalancerError && error.code === 'LB_CONFLICT';
        if (!isBusy || retry >= BUSY_RETRIES) return;
        await pause(deps.clock, BUSY_RETRY_MS, stopping);
      }
    }
  };
  return (cause, text) => {
    const number = ++newest;
    // A newer request supersedes this one.
    void queue.run(() => apply(() => number === newest && !stopping.aborted, cause, text));
  };
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

async function serveDemo(deps: CliDeps, config: string): Promise<void> {
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
}
