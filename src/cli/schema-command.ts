import { configJsonSchema } from '../config/json-schema.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';

/** `haports schema`: the JSON Schema of the configuration, with a description of every key. */
export function schemaCommand(deps: CliDeps): ExitCode {
  deps.out(`${JSON.stringify(configJsonSchema(), undefined, 2)}\n`);
  return EXIT.fine;
}
