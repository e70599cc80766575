/** One series of a scrape. */
export interface Series {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Scrape {
  readonly types: ReadonlyMap<string, string>;
  readonly series: readonly Series[];
  /** Value of the one series with this name and these labels among its own; undefined if there is none. */
  value(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
}

/**
 * Reads the Prometheus text format 0.0.4, written from its description and strict: throws on a line it does not
 * understand, a metric without TYPE, and a series that is there twice.
 */
export function parseScrape(text: string): Scrape {
  const types = new Map<string, string>();
  const series: Series[] = [];
  const seen = new Set<string>();
  if (!text.endsWith('\n')) throw new SyntaxError('The last line must end with a line feed');
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('# HELP ')) continue;
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line);
    if (type !== null) {
      if (types.has(type[1] ?? '')) throw new SyntaxError(`TYPE is there twice: ${line}`);
      types.set(type[1] ?? '', type[2] ?? '');
      continue;
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (sample === null) throw new SyntaxError(`Not a sample: ${line}`);
    const [, name = '', labelText = '', valueText = ''] = sample;
    if (!types.has(name) && !types.has(name.replace(/_(bucket|sum|count)$/, ''))) {
      throw new SyntaxError(`No TYPE for: ${line}`);
    }
    const labels = parseLabels(labelText);
    const key = `${name} ${JSON.stringify(Object.entries(labels).sort())}`;
    if (seen.has(key)) throw new SyntaxError(`A series is there twice: ${line}`);
    seen.add(key);
    series.push({ name, labels, value: parseValue(valueText) });
  }
  return {
    types,
    series,
    value(name, labels = {}) {
      const found = series.filter(
        (entry) =>
          entry.name === name && Object.entries(labels).every(([key, value]) => entry.labels[key] === value),
      );
      if (found.length > 1)
        throw new RangeError(`${found.length} series fit ${name} ${JSON.stringify(labels)}`);
      return found[0]?.value;
    },
  };
}

function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  let rest = text;
  while (rest !== '') {
    const match = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(?:,|$)/.exec(rest);
    if (match === null) throw new SyntaxError(`Not a label: ${rest}`);
    labels[match[1] ?? ''] = (match[2] ?? '').replace(/\\(.)/g, (_, char: string) =>
      char === 'n' ? '\n' : char,
    );
    rest = rest.slice(match[0].length);
  }
  return labels;
}

function parseValue(text: string): number {
  // Prometheus reads it with Go's ParseFloat, which takes any case; prom-client writes `Nan`.
  if (/^nan$/i.test(text)) return Number.NaN;
  if (text === '+Inf') return Number.POSITIVE_INFINITY;
  const value = Number(text);
  if (Number.isNaN(value)) throw new SyntaxError(`Not a value: ${text}`);
  return value;
}
