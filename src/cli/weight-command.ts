import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { clientFor, printJson, printLines, type LiveOptions } from './live-options.js';
import { parseBackendRef, parseWeight } from './option-parsers.js';

/** `haports weight`: a backend's share of new flows. */
export async function weightCommand(
  deps: CliDeps,
  name: string,
  weightText: string,
  options: LiveOptions,
): Promise<ExitCode> {
  const backend = parseBackendRef(name);
  const weight = parseWeight(weightText);
  await (await clientFor(deps, options)).setWeight(backend, weight);
  const zero = weight === 0 ? ': it gets no new flows' : '';
  if (options.json) printJson(deps, { backend: name, weight });
  else
    printLines(deps, [
      `${name} has weight ${weight === 'configured' ? 'as configured' : weight}${zero}, from the next flow on`,
    ]);
  return EXIT.fine;
}
