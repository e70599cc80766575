import { formatFindings } from '../config/format-findings.js';
import { errorMessage } from '../model/errors.js';
import { AdminProblem } from './admin-problem.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { clientFor, printJson, printLines, type LiveOptions } from './live-options.js';
import { usageError } from './option-parsers.js';
import { formatReload } from './reload-text.js';

export interface ReloadOptions extends LiveOptions {
  /** 0 to 1. */
  readonly maxMoved?: number;
}

/** `haports reload`: sends the text of a configuration to the running process, which takes it over whole or not at all. */
export async function reloadCommand(deps: CliDeps, options: ReloadOptions): Promise<ExitCode> {
  const { config, json, maxMoved } = options;
  const text = await deps.readText(config).catch((error: unknown) => {
    throw usageError(`Configuration file "${config}" cannot be read: ${errorMessage(error)}`);
  });
  const client = await clientFor(deps, options);
  try {
    const outcome = await client.reload(text, maxMoved === undefined ? {} : { maxMoved });
    if (json) {
      printJson(deps, outcome);
      return EXIT.fine;
    }
    printLines(deps, [
      ...formatFindings(
        config,
        outcome.findings.filter(({ severity }) => severity !== 'note'),
      ),
      ...formatReload(outcome.report, { width: deps.terminal.size().columns }),
    ]);
    return EXIT.fine;
  } catch (error) {
    if (!(error instanceof AdminProblem)) throw error;
    if (json) printJson(deps, { code: error.code, message: error.message, findings: error.findings });
    const errors = error.findings.filter(({ severity }) => severity === 'error');
    if (errors.length > 0 && !json) deps.err(`${formatFindings(config, errors).join('\n')}\n`);
    // Findings, or the JSON, have said it all but that nothing has changed.
    throw error;
  }
}
