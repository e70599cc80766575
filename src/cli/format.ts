/** What the text for people depends on besides what it says. */
export interface Layout {
  readonly nowMs: number;
  /** No line is wider, unless a single word is. */
  readonly width: number;
}

/** Width of text that does not depend on the terminal. */
export const TEXT_WIDTH = 80;

/** Texts of a label, each on lines of its own; `undefined` and `false` are left out. */
export type LabelledTexts = string | undefined | false | readonly (string | undefined | false)[];

/** Labels in a column of their own, their texts wrapped beside them. A label without texts is left out. */
export function labelled(
  rows: Readonly<Record<string, LabelledTexts>>,
  labelWidth: number,
  width = TEXT_WIDTH,
): string[] {
  const indent = ' '.repeat(labelWidth);
  return Object.entries(rows).flatMap(([label, texts]) =>
    [texts]
      .flat()
      .filter((text) => typeof text === 'string')
      .flatMap((text, index) => {
        const [first = '', ...rest] = wrapWords(`${indent}${printable(text)}`, labelWidth, width);
        const head = index === 0 ? printable(label).padEnd(labelWidth) : indent;
        return [`${head}${first.slice(labelWidth)}`, ...rest];
      }),
  );
}

/** The first items, and how many more there are. */
export function shortList(items: readonly string[], most: number, prefix = '  '): string[] {
  const shown = items.slice(0, most).map((item) => `${prefix}${printable(item)}`);
  const more = items.length - shown.length;
  return more > 0 ? [...shown, `${prefix}and ${count(more)} more`] : shown;
}

const GAP = 2;
const CUT_MARK = '…';

/** One column of a table of rows `R`: what stands in it, and what gives way where the terminal is too narrow. */
export interface TableColumn<R> {
  readonly title: string;
  readonly align: 'left' | 'right';
  readonly text: (row: R, nowMs: number) => string;
  /**
   * What gives way first: the lowest. A column that still does not fit when all text is shortened is left out.
   * Absent: it stays whatever happens.
   */
  readonly importance?: number;
  /** Text is not shortened below this; title included. @default 8 */
  readonly minimum?: number;
}

/** A column of text. */
export function left<R>(
  title: string,
  text: TableColumn<R>['text'],
  room: Pick<TableColumn<R>, 'importance' | 'minimum'> = {},
): TableColumn<R> {
  return { title, align: 'left', text, ...room };
}

/** A column of numbers: they are never shortened. */
export function right<R>(title: string, text: TableColumn<R>['text'], importance?: number): TableColumn<R> {
  return { title, align: 'right', text, importance };
}

/**
 * Lines of a table, title first, without blanks at their ends. Least important text is shortened first, then least
 * important columns are left out; what cannot fit at all is cut. Control characters become `?`: what is shown may come
 * from the network, and must not drive the terminal.
 */
export function table<R>(
  columns: readonly TableColumn<R>[],
  rows: readonly R[],
  { width = TEXT_WIDTH, nowMs = 0 }: Partial<Layout> = {},
): readonly string[] {
  const cells = rows.map((row) => columns.map(({ text }) => printable(text(row, nowMs))));
  const lines = [columns.map(({ title }) => title), ...cells];
  const natural = columns.map((_, index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)));
  const widths = fit(columns, natural, width);
  return lines.map((line) => {
    const parts = columns.flatMap(({ align }, index) => {
      const room = widths.get(index);
      if (room === undefined) return [];
      const text = shorten(line[index] ?? '', room);
      return [align === 'right' ? text.padStart(room) : text.padEnd(room)];
    });
    return shorten(parts.join(' '.repeat(GAP)).trimEnd(), width);
  });
}

/** Text cut to a width, with a mark where something is missing. */
export function shorten(text: string, width: number): string {
  if (text.length <= width) return text;
  return width <= 0 ? '' : `${text.slice(0, width - 1)}${CUT_MARK}`;
}

/** Text without control characters, so that it cannot drive a terminal. */
export function printable(text: string): string {
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, '?');
}

/** Widths by column index; what is left out has none. */
function fit<R>(
  columns: readonly TableColumn<R>[],
  natural: readonly number[],
  width: number,
): ReadonlyMap<number, number> {
  const yielding = columns
    .map((column, index) => ({ ...column, index }))
    .filter(({ importance }) => importance !== undefined)
    .sort((a, b) => (a.importance ?? 0) - (b.importance ?? 0));
  const shortenable = yielding.filter(({ align }) => align !== 'right');
  const kept = new Set(columns.keys());
  for (let gone = 0; ; gone++) {
    const widths = new Map([...kept].map((index) => [index, natural[index] ?? 0]));
    let excess = [...widths.values()].reduce((total, one) => total + GAP + one, -GAP - width);
    for (const { index, title, minimum } of shortenable) {
      const now = widths.get(index);
      if (excess <= 0) break;
      if (now === undefined) continue;
      const least = Math.min(now, Math.max(minimum ?? 8, title.length));
      const given = Math.min(excess, now - least);
      widths.set(index, now - given);
      excess -= given;
    }
    const next = yielding[gone];
    if (excess <= 0 || next === undefined) {
      // A wide column that went may have left room for a narrow one that went before it.
      for (const { index } of yielding.slice(0, gone).reverse()) {
        const needed = GAP + (natural[index] ?? 0);
        if (excess + needed > 0) continue;
        widths.set(index, needed - GAP);
        excess += needed;
      }
      return widths;
    }
    kept.delete(next.index);
  }
}

const SI_STEPS = ['', 'k', 'M', 'G', 'T', 'P'] as const;

/**
 * Three significant digits with a decimal multiplier: 999, 1.23k, 45.6M. For what is counted and for bits; 1 k is 1000.
 */
export function si(value: number): string {
  let scaled = value;
  let step = 0;
  // 999.5 would be rounded to 1000.
  while (Math.abs(scaled) >= 999.5 && step < SI_STEPS.length - 1) {
    scaled /= 1000;
    step++;
  }
  if (step === 0) return String(Math.round(scaled * 10) / 10);
  const digits = Math.abs(scaled) >= 99.95 ? 0 : Math.abs(scaled) >= 9.995 ? 1 : 2;
  return `${scaled.toFixed(digits)}${SI_STEPS[step] ?? ''}`;
}

/** `812B`, `1.23kB`, `45.6MB`; 1 kB is 1000 bytes. */
export function bytes(value: number): string {
  return `${si(value)}B`;
}

/** For sentences: `12.3 Mbit/s`. */
export function bitRate(bitsPerSecond: number): string {
  const [, digits = '0', unit = ''] = /^(-?[\d.]+)(.*)$/.exec(si(bitsPerSecond)) ?? [];
  return `${digits} ${unit}bit/s`;
}

/** Whole numbers with their thousands set apart: `65,536`. */
export function count(value: number): string {
  return String(Math.round(value)).replaceAll(/\B(?=(\d{3})+$)/g, ',');
}

/** `12 stay, 3 move, 0 are reset`; `false` is left out. */
export function counts(values: Readonly<Record<string, number | false>>): string {
  return listed(Object.entries(values).map(([what, value]) => value !== false && `${count(value)} ${what}`));
}

/** The texts that there are, joined. */
export function listed(texts: readonly (string | undefined | false)[], separator = ', '): string {
  return texts.filter((text) => typeof text === 'string').join(separator);
}

/** A share, 0 to 1: `33.3 %`. */
export function share(ratio: number): string {
  return `${(ratio * 100).toFixed(1)} %`;
}

/** How long, in the two largest units: `42ms`, `7s`, `3m12s`, `2h05m`, `4d03h`. Less than nothing is `0s`. */
export function span(ms: number): string {
  if (ms < 1000) return ms < 1 ? '0s' : `${Math.round(Math.min(ms, 999))}ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m${two(seconds % 60)}s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h${two(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
}

/** `3m12s ago`, or `never` where there is no such time. */
export function ago(atMs: number | undefined, nowMs: number): string {
  return atMs === undefined ? 'never' : `${span(nowMs - atMs)} ago`;
}

/** `1 flow`, `2 flows`. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

function two(number: number): string {
  return String(number).padStart(2, '0');
}

/**
 * Lines of a text, broken at single blanks so that none is wider, all but the first indented. Blanks at the start and
 * several in a row stay as they are; a word wider than a line is not broken.
 */
export function wrapWords(text: string, indent: number, width = TEXT_WIDTH): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > width) {
    const from = lines.length === 0 ? leadingBlanks(rest) : indent;
    const cut = breakAt(rest, from, width);
    if (cut < 0) break;
    lines.push(rest.slice(0, cut).trimEnd());
    rest = `${' '.repeat(indent)}${rest.slice(cut).trimStart()}`;
  }
  return [...lines, rest];
}

function leadingBlanks(text: string): number {
  return text.length - text.trimStart().length;
}

/** The last blank within the width, else the first beyond it, behind what must stay together; -1: none. */
function breakAt(text: string, from: number, width: number): number {
  const within = text.lastIndexOf(' ', width);
  return within > from ? within : text.indexOf(' ', Math.max(from, width));
}
