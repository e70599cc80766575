import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { clientFor, printJson, printLines, type LiveOptions } from './live-options.js';
import { parseAdminState, parseBackendRef } from './option-parsers.js';

const MEANING = {
  none: 'follows its probe',
  up: 'gets new flows whatever its probe says',
  down: 'gets no new flows whatever its probe says',
  configured: 'is as the configuration says',
} as const;

/** `haports admin-state`: the operator's switch on a backend, over its probe. */
export async function adminStateCommand(
  deps: CliDeps,
  name: string,
  stateText: string,
  options: LiveOptions,
): Promise<ExitCode> {
  const backend = parseBackendRef(name);
  const adminState = parseAdminState(stateText);
  await (await clientFor(deps, options)).setAdminState(backend, adminState);
  if (options.json) printJson(deps, { backend: name, adminState });
  else printLines(deps, [`${name} ${MEANING[adminState]}, from the next flow on`]);
  return EXIT.fine;
}
