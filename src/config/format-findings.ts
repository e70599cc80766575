import type { Finding, Severity } from './finding.js';

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
