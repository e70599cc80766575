import type { CliDeps, StartedBalancer } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { loadUsable } from './load-usable.js';
import { ReloadQueue } from './reload-queue.js';

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
