import type { ExportedMetric } from './exported-metrics.js';
import { readPromQl } from './promql.js';

const ONLY_OF_COUNTERS = ['rate', 'irate', 'increase'];

/** What is wrong with a query over these metrics; empty: nothing. Throws SyntaxError where it is no PromQL. */
export function queryFaults(text: string, exported: ReadonlyMap<string, ExportedMetric>): readonly string[] {
  const { selectors, groupings } = readPromQl(text);
  const faults: string[] = [];
  const known = new Set<string>();
  for (const { metric, labels, ranged } of selectors) {
    const found = exported.get(metric);
    if (found === undefined) {
      faults.push(`no such metric: ${metric}`);
      continue;
    }
    for (const label of found.labels) known.add(label);
    for (const label of labels) if (!found.labels.has(label)) faults.push(`${metric} has no label ${label}`);
    const isCounter = found.type !== 'gauge';
    if (ranged !== undefined && ONLY_OF_COUNTERS.includes(ranged) && !isCounter) {
      faults.push(`${ranged} of ${metric}, which is a gauge`);
    }
    if (found.type === 'counter' && ranged === undefined) faults.push(`${metric} without rate or increase`);
  }
  for (const label of groupings) if (!known.has(label)) faults.push(`nothing here has a label ${label}`);
  return faults;
}
