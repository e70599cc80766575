import type { Summary } from '../results.js';
import type { Spread } from '../statistics.js';
import { METRICS, type Metric } from './metrics.js';

/** What one peer reached, or why there is no number. */
export interface Cell {
  readonly spread?: Spread;
  readonly failed?: string;
}

/** One metric of one variant, over all peers. */
export interface Row {
  readonly metric: Metric;
  readonly variant: string;
  readonly title: string;
  readonly cells: ReadonlyMap<string, Cell>;
}

/** The rows of a table; those without any number or failure are left out. */
export function rowsOf(table: Metric['table'], summaries: readonly Summary[]): readonly Row[] {
  return METRICS.filter((metric) => metric.table === table).flatMap((metric) => {
    const own = summaries.filter(
      (summary) => summary.case === metric.case && (metric.variants?.test(summary.variant) ?? true),
    );
    const variants = [...new Set(own.map((summary) => summary.variant))];
    return variants
      .map((variant) => rowOf(metric, variant, own))
      .filter((row) => [...row.cells.values()].some(({ spread }) => spread !== undefined));
  });
}

function rowOf(metric: Metric, variant: string, summaries: readonly Summary[]): Row {
  const cells = new Map<string, Cell>();
  for (const summary of summaries.filter((each) => each.variant === variant)) {
    const spread = summary.numbers[metric.name];
    const failed = summary.errors[0];
    if (spread !== undefined) cells.set(summary.peer, { spread: scaled(spread, metric.scale ?? 1) });
    else if (failed !== undefined) cells.set(summary.peer, { failed });
  }
  return { metric, variant, title: `${metric.title}: ${variant}`, cells };
}

function scaled(spread: Spread, scale: number): Spread {
  const { median, min, max, samples } = spread;
  return { median: median / scale, min: min / scale, max: max / scale, samples };
}

/** How `peer` does against the row's reference: above 1 is better, whichever way the metric goes. */
export function ratioOf(row: Row, peer: string): number | undefined {
  const own = row.cells.get(peer)?.spread?.median;
  const reference = row.cells.get(row.metric.reference)?.spread?.median;
  if (own === undefined || reference === undefined || own <= 0 || reference <= 0) return undefined;
  return row.metric.better === 'more' ? own / reference : reference / own;
}
