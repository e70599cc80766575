import { firstOf, textRows, type Texts } from '../api/words.js';

/** What the text for people depends on besides what it says. */
export interface Layout {
  readonly nowMs: number;
  /** No line is wider, unless a single word is. */
  readonly width: number;
}

/** Width of text that does not depend on the terminal. */
export const TEXT_WIDTH = 80;

/** Labels in a column of their own, their texts wrapped beside them. A label without texts is left out. */
export function labelled(
  rows: Readonly<Record<string, Texts>>,
  labelWidth: number,
  width = TEXT_WIDTH,
): string[] {
  const indent = ' '.repeat(labelWidth);
  return textRows(rows).flatMap(([label, texts]) =>
    texts.flatMap((text, index) => {
      const [first = '', ...rest] = wrapWords(`${indent}${printable(text)}`, labelWidth, width);
      const head = index === 0 ? printable(label).padEnd(labelWidth) : indent;
      return [`${head}${first.slice(labelWidth)}`, ...rest];
    }),
  );
}

/** The first items, and how many more there are, a line each. */
export function shortList(items: readonly string[], most: number, prefix = '  '): string[] {
  return firstOf(items, most).map((item) => `${prefix}${printable(item)}`);
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
