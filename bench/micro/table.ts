import type { Measurement } from './micro-bench.js';

const HEAD = ['', 'ns/op', 'least', 'most', 'bytes/op', 'op/run'] as const;

/** Markdown, set evenly. */
export function formatTable(measurements: readonly Measurement[]): string {
  const rows = [
    HEAD,
    ...measurements.map((one) => [
      one.name,
      threeDigits(one.medianNs),
      threeDigits(one.leastNs),
      threeDigits(one.mostNs),
      // Less than half a byte is the measurement's own.
      String(Math.round(one.allocatedBytes)),
      String(one.iterations),
    ]),
  ];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) => {
    const cells = row.map((cell, column) => {
      const width = widths[column] ?? 0;
      return column === 0 ? cell.padEnd(width) : cell.padStart(width);
    });
    return `| ${cells.join(' | ')} |`;
  });
  const rule = `| ${widths.map((width, column) => (column === 0 ? '-' : ':').padStart(width, '-')).join(' | ')} |`;
  const [head = '', ...body] = lines;
  return [head, rule, ...body, ''].join('\n');
}

function threeDigits(number: number): string {
  return number >= 100 ? number.toFixed(0) : number.toPrecision(3);
}
