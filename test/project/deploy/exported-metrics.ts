import { Metrics } from '../../../src/observe/metrics.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { parseScrape } from '../../support/prometheus-text.js';
import { sampleSource } from '../../unit/observe/sample-metrics.js';

/** A metric as Prometheus knows it. */
export interface ExportedMetric {
  /** `counter` and `histogram` series may be asked for rates. */
  readonly type: string;
  readonly labels: ReadonlySet<string>;
}

/** Labels that Prometheus adds to every series of a target. */
const TARGET_LABELS = ['job', 'instance'];

/** Every metric that a process exports, by name, `_bucket`, `_sum` and `_count` of histograms too. */
export async function exportedMetrics(): Promise<ReadonlyMap<string, ExportedMetric>> {
  const metrics = new Metrics({ source: sampleSource(), clock: systemClock }, { version: '0.1.0' });
  const { types, series } = parseScrape((await metrics.render()).body);
  const exported = new Map<string, ExportedMetric>([
    ['up', { type: 'gauge', labels: new Set(TARGET_LABELS) }],
  ]);
  for (const { name, labels } of series) {
    const family = types.has(name) ? name : name.replace(/_(bucket|sum|count)$/, '');
    const before = exported.get(name)?.labels ?? TARGET_LABELS;
    exported.set(name, {
      type: types.get(family) ?? '',
      labels: new Set([...before, ...Object.keys(labels)]),
    });
  }
  return exported;
}
