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
