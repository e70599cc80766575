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
type IssueDetails = Pick<Issue, 'atKey' | 'found' | 'expected' | 'reason'>;

export function error(code: string, path: Path, message: string, details: IssueDetails = {}): Issue {
  return { severity: 'error', code, path, message, ...details };
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
