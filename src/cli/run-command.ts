import type { CliDeps, StartedBalancer } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { loadUsable } from './load-usable.js';

export interface RunOptions {
  readonly config: string;
}

/** `haports run`: serves until a signal, then lets flows finish until the shutdown deadline. */
export async function runCommand(deps: CliDeps, options: RunOptions): Promise<ExitCode> {
  const usable = await loadUsable(deps, options.config);
  if (usable === undefined) return EXIT.badInput;
  const { configuration, findings } = usable;
  const stopAsked = awaitStop(deps);
  const balancer = await deps.startBalancer(configuration, {
    source: options.config,
    findings: findings.length,
  });
  await stopAsked.thenStop(balancer, configuration.shutdownDeadlineMs);
  return EXIT.fine;
}

/**
 * Watches for signals from now on. The first SIGTERM or SIGINT asks for an orderly stop, the second ends at once;
 * SIGHUP re-opens the logs. Listening begins before the start, so that a signal during it is not lost.
 */
export function awaitStop(deps: CliDeps): {
  thenStop(balancer: StartedBalancer, deadlineMs: number): Promise<void>;
} {
  let running: StartedBalancer | undefined;
  let asked = 0;
  let wake: (signal: string) => void = () => undefined;
  const first = new Promise<string>((resolve) => (wake = resolve));
  const cancel = deps.onSignal((signal) => {
    if (signal === 'SIGHUP') {
      void running?.reopenLogs();
      return;
    }
    asked++;
    if (asked === 1) wake(signal);
    // The first stop ends with it, and tells how; nothing waits for this one.
    else running?.stop(`second ${signal}`, 0).catch(() => undefined);
  });
  return {
    async thenStop(balancer, deadlineMs) {
      running = balancer;
      const signal = await first;
      try {
        await balancer.stop(signal, asked > 1 ? 0 : deadlineMs);
      } finally {
        cancel();
      }
    },
  };
}
