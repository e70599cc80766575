import { BalancerError } from '../model/errors.js';

/** `error` stops; `warning` will probably hurt; `note` is worth knowing. */
export type Severity = 'error' | 'warning' | 'note';

/** Keys and indices from the top of the configuration down. */
export type Path = readonly (string | number)[];

/** Something a check found, before it is located in the text. */
export interface Issue {
  readonly severity: Severity;
  /** Stable: `LB_...`, or `V1` to `V20` for Azure's HA-ports rules. */
  readonly code: string;
  readonly path: Path;
  /** Points at the key instead of its value. */
  readonly atKey?: boolean;
  /** Sentence case, no full stop; holds what is there and what must be. */
  readonly message: string;
  /** What is there, as JSON or in words. */
  readonly found?: string;
  /** What must be. */
  readonly expected?: string;
  /** Why, in one sentence. */
  readonly reason?: string;
}

/** One finding about a configuration, as `haports check --json` prints it. */
export interface Finding {
  readonly severity: Severity;
  readonly code: string;
  /** `rules[0].frontendPort`; empty for the configuration as a whole. */
  readonly path: string;
  /** From 1; absent where the configuration was not read from text. */
  readonly line?: number;
  readonly column?: number;
  readonly message: string;
  readonly found?: string;
  readonly expected?: string;
  readonly reason?: string;
}

/** What an Issue says beyond severity, code, path and message. */
export type IssueDetails = Pick<Issue, 'atKey' | 'found' | 'expected' | 'reason'>;

export function error(code: string, path: Path, message: string, details: IssueDetails = {}): Issue {
  return { severity: 'error', code, path, message, ...details };
}

export function warning(code: string, path: Path, message: string, details: IssueDetails = {}): Issue {
  return { severity: 'warning', code, path, message, ...details };
}

export function note(code: string, path: Path, message: string, details: IssueDetails = {}): Issue {
  return { severity: 'note', code, path, message, ...details };
}

/** `['rules', 0, 'frontendPort']` is `rules[0].frontendPort`; keys that are no identifiers are quoted in brackets. */
export function formatPath(path: Path): string {
  return path
    .map((step, index) => {
      if (typeof step === 'number') return `[${step}]`;
      if (!/^[A-Za-z_$][\w$]*$/.test(step)) return `[${JSON.stringify(step)}]`;
      return index === 0 ? step : `.${step}`;
    })
    .join('');
}

/**
 * One line for each finding, for people:
 * `config.json:12:20: error LB_LOOP rules[0].backendPort: Message, must be ... (why)`.
 */
export function formatFindings(sourceName: string, findings: readonly Finding[]): readonly string[] {
  return findings.map((finding) => formatFinding(sourceName, finding));
}

export function formatFinding(sourceName: string, finding: Finding): string {
  const { severity, code, path, line, column, message, found, expected, reason } = finding;
  const place = line === undefined ? sourceName : `${sourceName}:${line}:${column ?? 1}`;
  // Most messages say both already.
  const said = (words: string) => message.includes(words) || message.includes(words.replaceAll('"', ''));
  const parts = [
    message,
    ...(found === undefined || found === 'nothing' || said(found) ? [] : [`found ${found}`]),
    ...(expected === undefined || said(expected) ? [] : [`expected ${expected}`]),
  ];
  const why = reason === undefined ? '' : ` (${reason})`;
  return `${place}: ${severity} ${code}${path === '' ? '' : ` ${path}`}: ${parts.join(', ')}${why}`;
}

/** `2 errors, 1 warning, 3 notes`, or `no findings`. */
export function summariseFindings(findings: readonly Finding[]): string {
  const counted = (['error', 'warning', 'note'] satisfies Severity[]).flatMap((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length;
    return count === 0 ? [] : [`${count} ${severity}${count === 1 ? '' : 's'}`];
  });
  return counted.length === 0 ? 'no findings' : counted.join(', ');
}

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
