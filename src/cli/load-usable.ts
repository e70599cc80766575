import { formatFindings } from '../config/format-findings.js';
import type { CliDeps, UsableConfiguration } from './cli-deps.js';

/** Loads a configuration, or prints every error it has and gives undefined. */
export async function loadUsable(
  deps: Pick<CliDeps, 'load' | 'err'>,
  path: string,
): Promise<UsableConfiguration | undefined> {
  const result = await deps.load(path);
  if (result.ok) return { configuration: result.configuration, findings: result.findings };
  const errors = result.findings.filter(({ severity }) => severity === 'error');
  deps.err(`${formatFindings(path, errors).join('\n')}\n`);
  return undefined;
}
