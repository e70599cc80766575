import { BalancerError } from '../model/errors.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { loadUsable } from './load-usable.js';

export const KERNEL_ACTIONS = ['ruleset', 'flush'] as const;

export interface KernelOptions {
  readonly config: string;
  readonly full: boolean;
  /** Absent: `haports`, the default of the configuration. */
  readonly instance?: string;
}

/** As in the configuration: names reach nft. */
const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** `haports kernel ruleset`: what capture or the kernel data plane would write into the kernel. `haports kernel flush`: takes leftovers away. */
export async function kernelCommand(
  deps: CliDeps,
  action: (typeof KERNEL_ACTIONS)[number],
  options: KernelOptions,
): Promise<ExitCode> {
  return action === 'ruleset' ? ruleset(deps, options) : flush(deps, options);
}

async function ruleset(deps: CliDeps, { config, full }: KernelOptions): Promise<ExitCode> {
  const usable = await loadUsable(deps, config);
  if (usable === undefined) return EXIT.badInput;
  deps.out(await deps.kernel.ruleset(usable.configuration, { full }));
  return EXIT.fine;
}

async function flush(deps: CliDeps, { instance = 'haports' }: KernelOptions): Promise<ExitCode> {
  if (!NAME.test(instance)) {
    throw new BalancerError(
      `"${instance}" is no name of an instance, must be 1 to 63 of a-z, 0-9 and -, the first no -`,
      { code: 'LB_USAGE', source: 'usage' },
    );
  }
  const removed = await deps.kernel.flush(instance);
  if (removed.length === 0) deps.out(`Instance "${instance}" has left nothing in the kernel\n`);
  for (const line of removed) deps.out(`Removed ${line}\n`);
  return EXIT.fine;
}
