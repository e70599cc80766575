import type { Metric } from 'prom-client';
import type { HistogramSample, MetricFamily, MetricsSnapshot, Sample } from './metric-family.js';

interface RenderedSample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/**
 * A family's samples as something that a prom-client Registry can hold. prom-client's own counters and histograms
 * count by themselves and cannot take totals that were counted elsewhere; of a registered metric the registry only
 * uses `name` and `get()` (prom-client 15, lib/registry.js), hence the cast.
 */
export function collectedMetric(family: MetricFamily, snapshot: MetricsSnapshot): Metric {
  const values =
    family.type === 'histogram'
      ? family.collect(snapshot).flatMap((sample) => histogramSamples(family.name, sample))
      : addUp(family.collect(snapshot)).map((sample) => ({ metricName: family.name, ...sample }));
  const { name, help, type } = family;
  const metric = { name, get: () => Promise.resolve({ name, help, type, values, aggregator: 'sum' }) };
  return metric as unknown as Metric;
}

/** One sample a label set: Prometheus refuses a whole scrape that has a series twice. */
function addUp(samples: readonly Sample[]): readonly Sample[] {
  const sums = new Map<string, Sample>();
  for (const sample of samples) {
    const key = JSON.stringify(sample.labels);
    const before = sums.get(key);
    sums.set(key, before === undefined ? sample : { ...sample, value: before.value + sample.value });
  }
  return [...sums.values()];
}

function histogramSamples(name: string, sample: HistogramSample): readonly RenderedSample[] {
  const { labels, histogram } = sample;
  const buckets = histogram.boundsSeconds.map((le, index) => ({
    metricName: `${name}_bucket`,
    labels: { ...labels, le },
    value: histogram.counts[index] ?? 0,
  }));
  return [
    ...buckets,
    { metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: histogram.count },
    { metricName: `${name}_sum`, labels, value: histogram.sumSeconds },
    { metricName: `${name}_count`, labels, value: histogram.count },
  ];
}
