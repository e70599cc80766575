import { formatFindings, summariseFindings } from '../config/format-findings.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';

export interface CheckOptions {
  readonly config: string;
  readonly json: boolean;
}

/** `haports check`: every finding about a configuration, errors first. Starts nothing. */
export async function checkCommand(deps: CliDeps, options: CheckOptions): Promise<ExitCode> {
  const { ok, findings } = await deps.load(options.config);
  if (options.json) {
    deps.out(`${JSON.stringify({ ok, findings }, undefined, 2)}\n`);
  } else {
    const verdict = ok ? 'can be used' : 'cannot be used';
    const lines = formatFindings(options.config, findings);
    deps.out([...lines, `${options.config} ${verdict}: ${summariseFindings(findings)}`, ''].join('\n'));
  }
  return ok ? EXIT.fine : EXIT.badInput;
}
