import { BalancerError } from '../model/errors.js';
import type { Finding } from './finding.js';

/** The codes a configuration can fail with: not readable, not JSON, or JSON that says something impossible. */
export type ConfigErrorCode = 'LB_CONFIG_UNREADABLE' | 'LB_CONFIG_SYNTAX' | 'LB_CONFIG_INVALID';

/** A configuration that cannot be used, for callers who would rather throw. `findings` holds all of them. */
export class ConfigError extends BalancerError {
  readonly findings: readonly Finding[];

  /**
   * @param sourceName - where the configuration came from, usually its path
   * @param findings - at least one of severity `error`
   */
  constructor(sourceName: string, findings: readonly Finding[]) {
    const errors = findings.filter((finding) => finding.severity === 'error');
    const first = errors[0];
    const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : '';
    const place = first?.path === undefined || first.path === '' ? '' : `${first.path}: `;
    super(
      `Configuration "${sourceName}" cannot be used: ${place}${first?.message ?? 'unknown error'}${more}`,
      {
        code: configErrorCode(findings),
        source: 'config',
      },
    );
    this.findings = findings;
  }
}

/** The code that stands for a set of findings. */
export function configErrorCode(findings: readonly Finding[]): ConfigErrorCode {
  for (const { code, path } of findings) {
    if (code === 'LB_CONFIG_SYNTAX') return code;
    // A CA file that cannot be read has a path and is one problem among others.
    if (code === 'LB_CONFIG_UNREADABLE' && path === '') return code;
  }
  return 'LB_CONFIG_INVALID';
}
