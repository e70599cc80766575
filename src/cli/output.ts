import type { CliDeps } from './deps.js';

/** One JSON value, indented. */
export function printJson(deps: Pick<CliDeps, 'out'>, value: unknown): void {
  deps.out(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** One JSON value on one line, for streams of them. */
export function printJsonLine(deps: Pick<CliDeps, 'out'>, value: unknown): void {
  deps.out(`${JSON.stringify(value)}\n`);
}

export function printLines(deps: Pick<CliDeps, 'out'>, lines: readonly string[]): void {
  deps.out(`${lines.join('\n')}\n`);
}

/** What the text for people depends on besides what it says. */
export interface Layout {
  readonly nowMs: number;
  /** No line is wider, unless a single word is. */
  readonly width: number;
}

/** Of now and of this terminal. */
export function layoutOf({ clock, terminal }: Pick<CliDeps, 'clock' | 'terminal'>): Layout {
  return { nowMs: clock.wallMs(), width: terminal.size().columns };
}

/** Prints an answer: as JSON where the options ask for it, else in lines for people. */
export function printAnswer<T>(
  deps: Pick<CliDeps, 'out' | 'clock' | 'terminal'>,
  options: { readonly json: boolean },
  value: T,
  lines: (value: T, layout: Layout) => readonly string[],
): void {
  if (options.json) printJson(deps, value);
  else printLines(deps, lines(value, layoutOf(deps)));
}

/** Width of text that does not depend on the terminal. */
export const TEXT_WIDTH = 80;

/** A label and the texts beside it, each on lines of its own; `undefined` and `false` are left out. */
export type LabelledRow = readonly [label: string, ...texts: readonly (string | undefined | false)[]];

/** Rows with their labels in a column of their own, the texts wrapped beside it. A row without texts is left out. */
export function labelled(rows: readonly LabelledRow[], labelWidth: number, width = TEXT_WIDTH): string[] {
  const indent = ' '.repeat(labelWidth);
  return rows.flatMap(([label, ...texts]) =>
    texts
      .filter((text) => typeof text === 'string')
      .flatMap((text, index) => {
        const [first = '', ...rest] = wrapWords(`${indent}${printable(text)}`, width, labelWidth);
        const head = index === 0 ? printable(label).padEnd(labelWidth) : indent;
        return [`${head}${first.slice(labelWidth)}`, ...rest];
      }),
  );
}

/** The first items, and how many more there are. */
export function shortList(items: readonly string[], most: number, prefix = '  '): string[] {
  const shown = items.slice(0, most).map((item) => `${prefix}${printable(item)}`);
  const more = items.length - shown.length;
  return more > 0 ? [...shown, `${prefix}and ${formatCount(more)} more`] : shown;
}

const GAP = 2;
const CUT_MARK = '…';

/** One column: how it is set, and what gives way where the terminal is too narrow. */
export interface TableColumn {
  readonly title: string;
  /** `right` for numbers: they are never shortened. @default 'left' */
  readonly align?: 'left' | 'right';
  /**
   * What gives way first: the lowest. A column that still does not fit when all text is shortened is left out.
   * Absent: it stays whatever happens.
   */
  readonly importance?: number;
  /** Text is not shortened below this; title included. @default 8 */
  readonly minimum?: number;
}

export interface TableOptions {
  /** No line is longer. */
  readonly width: number;
}

/**
 * Lines of a table, title first, without blanks at their ends. Least important text is shortened first, then least
 * important columns are left out; what cannot fit at all is cut. Control characters become `?`: what is shown may come
 * from the network, and must not drive the terminal.
 */
export function formatTable(
  columns: readonly TableColumn[],
  rows: readonly (readonly string[])[],
  options: TableOptions,
): readonly string[] {
  const cells = rows.map((row) => columns.map((_column, index) => printable(row[index] ?? '')));
  const natural = columns.map(({ title }, index) =>
    cells.reduce((widest, row) => Math.max(widest, row[index]?.length ?? 0), title.length),
  );
  const widths = fit(columns, natural, options.width);
  return [columns.map(({ title }) => title), ...cells].map((row) => {
    const parts = columns.flatMap(({ align }, index) => {
      const width = widths.get(index);
      if (width === undefined) return [];
      const text = shorten(row[index] ?? '', width);
      return [align === 'right' ? text.padStart(width) : text.padEnd(width)];
    });
    return shorten(parts.join(' '.repeat(GAP)).trimEnd(), options.width);
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
function fit(
  columns: readonly TableColumn[],
  natural: readonly number[],
  width: number,
): ReadonlyMap<number, number> {
  const yielding = columns
    .map((column, index) => ({ ...column, index }))
    .filter(({ importance }) => importance !== undefined)
    .sort((a, b) => (a.importance ?? 0) - (b.importance ?? 0));
  const shortenable = yielding.filter(({ align }) => align !== 'right');
  const kept = new Set(columns.keys());
  for (let left = 0; ; left++) {
    const widths = new Map([...kept].map((index) => [index, natural[index] ?? 0]));
    let excess = sum(widths.values()) + GAP * (widths.size - 1) - width;
    for (const { index, title, minimum } of shortenable) {
      const now = widths.get(index);
      if (excess <= 0) break;
      if (now === undefined) continue;
      const least = Math.min(now, Math.max(minimum ?? 8, title.length));
      const given = Math.min(excess, now - least);
      widths.set(index, now - given);
      excess -= given;
    }
    const next = yielding[left];
    if (excess <= 0 || next === undefined) {
      // A wide column that went may have left room for a narrow one that went before it.
      for (const { index } of yielding.slice(0, left).reverse()) {
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

function sum(numbers: Iterable<number>): number {
  let total = 0;
  for (const number of numbers) total += number;
  return total;
}

const SI_STEPS = ['', 'k', 'M', 'G', 'T', 'P'] as const;

/**
 * Three significant digits with a decimal multiplier: 999, 1.23k, 45.6M. For what is counted and for bits; 1 k is 1000.
 */
export function formatSi(value: number): string {
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
export function formatBytes(bytes: number): string {
  return `${formatSi(bytes)}B`;
}

/** For sentences: `12.3 Mbit/s`. */
export function formatBitRate(bitsPerSecond: number): string {
  const [, digits = '0', unit = ''] = /^(-?[\d.]+)(.*)$/.exec(formatSi(bitsPerSecond)) ?? [];
  return `${digits} ${unit}bit/s`;
}

/** Whole numbers with their thousands set apart: `65,536`. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replaceAll(/\B(?=(\d{3})+$)/g, ',');
}

/** A share, 0 to 1: `33.3 %`. */
export function formatShare(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** How long, in the two largest units: `42ms`, `7s`, `3m12s`, `2h05m`, `4d03h`. Less than nothing is `0s`. */
export function formatSpan(ms: number): string {
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
export function formatAgo(atMs: number | undefined, nowMs: number): string {
  return atMs === undefined ? 'never' : `${formatSpan(nowMs - atMs)} ago`;
}

/** `1 flow`, `2 flows`. */
export function plural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}

function two(number: number): string {
  return String(number).padStart(2, '0');
}

/**
 * Lines of a text, broken at single blanks so that none is wider, all but the first indented. Blanks at the start and
 * several in a row stay as they are; a word wider than a line is not broken.
 */
export function wrapWords(text: string, width: number, indent: number): string[] {
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
