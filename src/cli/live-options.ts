import { AdminClient } from './admin-client.js';
import { adminTarget, type ConnectionOptions } from './admin-target.js';
import type { CliDeps } from './cli-deps.js';

/** What every command that asks a running process takes. */
export interface LiveOptions extends ConnectionOptions {
  readonly json: boolean;
}

/** A client for the process that the options mean. Throws `LB_USAGE` where they name none. */
export async function clientFor(
  deps: Pick<CliDeps, 'env' | 'readText'>,
  options: ConnectionOptions,
): Promise<AdminClient> {
  return new AdminClient(await adminTarget(deps, options));
}

/** One JSON value, set out for people to read too. */
export function printJson(deps: Pick<CliDeps, 'out'>, value: unknown): void {
  deps.out(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** One JSON value on one line, for streams of them. */
export function printJsonLine(deps: Pick<CliDeps, 'out'>, value: unknown): void {
  deps.out(`${JSON.stringify(value)}\n`);
}

export function printLines(deps: Pick<CliDeps, 'out'>, lines: readonly string[]): void {
  deps.out(`${lines.join('\n')}\n`);
}
