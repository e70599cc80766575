import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { clientFor, printJson, printLines, type LiveOptions } from './live-options.js';

export interface UpgradeOptions extends LiveOptions {
  /** A duration with a unit. */
  readonly deadline?: string;
}

/** `haports upgrade`: the version that is installed now takes the place of the running process. */
export async function upgradeCommand(deps: CliDeps, options: UpgradeOptions): Promise<ExitCode> {
  const { deadline, json } = options;
  const client = await clientFor(deps, options);
  const outcome = await client.upgrade(deadline === undefined ? {} : { deadline });
  if (json) {
    printJson(deps, outcome);
    return EXIT.fine;
  }
  const { pid, version, sockets, udpFlows, durationMs, udpPauseMs } = outcome;
  printLines(deps, [
    `haports ${version} serves as process ${pid}, after ${Math.round(durationMs)} ms`,
    `${sockets} listening sockets and ${udpFlows} UDP flows went over; UDP waited ${Math.round(udpPauseMs)} ms`,
    'The old process lets its TCP flows finish',
  ]);
  return EXIT.fine;
}
