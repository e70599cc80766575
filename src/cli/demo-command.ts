import { demoBanner } from '../demo/banner.js';
import { startDemoBackends } from '../demo/demo-launcher.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { loadUsable } from './load-usable.js';
import { awaitStop } from './run-command.js';

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
