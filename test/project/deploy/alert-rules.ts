/** One alert of a Prometheus rule file. */
export interface AlertRule {
  readonly group: string;
  readonly alert: string;
  readonly expr: string;
  readonly for: string;
  readonly severity: string;
  readonly summary: string;
  readonly runbook: string;
}

const KEYS = ['expr', 'for', 'severity', 'summary', 'runbook'] as const;

/**
 * Reads the little of YAML that deploy/prometheus/alerts.yml needs: keys in fixed places, plain or quoted
 * values on one line, `|` for several. Throws on anything else, so that what it reads is what YAML would read.
 */
export function readAlertRules(text: string): readonly AlertRule[] {
  const rules: Record<string, string>[] = [];
  let group = '';
  let current: Record<string, string> = {};
  const lines = text.split('\n');
  for (let index = 0; index < lines.length; index++) {
    const line = lines[index] ?? '';
    if (/^\s*(#.*)?$/.test(line) || ['groups:', '    rules:'].includes(line)) continue;
    const begin = /^ {2}- name: ([a-z-]+)$/.exec(line) ?? /^ {6}- alert: ([A-Za-z]+)$/.exec(line);
    if (begin !== null) {
      const [whole, name = ''] = begin;
      if (whole.startsWith('  - ')) group = name;
      else rules.push((current = { group, alert: name }));
      continue;
    }
    if (/^ {8}(labels|annotations):$/.test(line)) continue;
    const [, indent = '', key = '', value = ''] = /^( {8,10})([a-z]+): (.+)$/.exec(line) ?? [];
    const isInner = !['expr', 'for'].includes(key);
    if (!KEYS.some((known) => known === key) || indent.length !== (isInner ? 10 : 8) || key in current) {
      throw new SyntaxError(`Line ${index + 1} is not understood: ${line}`);
    }
    if (value === '|') {
      const block: string[] = [];
      while (/^ {10}/.test(lines[index + 1] ?? '')) block.push((lines[++index] ?? '').trim());
      current[key] = block.join('\n');
    } else {
      current[key] = scalar(value, index + 1);
    }
  }
  return rules.map((rule) => {
    for (const key of KEYS) {
      if (!(key in rule)) throw new SyntaxError(`Alert ${rule['alert'] ?? ''} has no ${key}`);
    }
    return rule as unknown as AlertRule;
  });
}

/** YAML's double-quoted scalars are JSON's, as long as they use its escapes; single quotes escape only themselves. */
function scalar(value: string, line: number): string {
  if (value.startsWith('"')) return JSON.parse(value) as string;
  if (/^'(?:[^']|'')*'$/.test(value)) return value.slice(1, -1).replaceAll("''", "'");
  if (/^[-?:,[\]{}#&*!|>'%@`]|: |:$| #/.test(value)) {
    throw new SyntaxError(`Line ${line} needs quotes: ${value}`);
  }
  return value;
}
