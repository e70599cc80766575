import { Counter, Gauge, Registry, collectDefaultMetrics, type Metric as PromMetric } from 'prom-client';
import type { EventOf } from '../model/events.js';
import type { ForwardingState } from '../model/forwarding.js';
import type { LatencyHistogram, PlaneCounters } from '../planes/contract.js';
import { inTime, type Clock } from '../runtime/clock.js';
import {
  METRICS,
  type Metric,
  type MetricsFacts,
  type MetricsSnapshot,
  type ReloadStats,
} from './metric-table.js';

/** Where the numbers come from. Nothing here may throw, save that `counters` may reject. */
export interface MetricsSource {
  /** Asked once a scrape; given up after a second. */
  counters(): Promise<PlaneCounters>;
  facts(): MetricsFacts;
}

export interface MetricsText {
  readonly contentType: string;
  readonly body: string;
}

/** How long a scrape waits for the data plane's counters. */
const COUNTERS_TIMEOUT_MS = 1000;

/**
 * The Prometheus text of one haports process. A scrape is one snapshot: nothing is counted here, and a data plane
 * that does not answer costs its own series, not the scrape.
 */
export class Metrics {
  readonly #source: MetricsSource;
  readonly #clock: Clock;
  readonly #version: string;
  readonly #processRegistry = new Registry();

  /** `version`: of haports, for `haports_build_info`. */
  constructor(
    deps: { readonly source: MetricsSource; readonly clock: Clock },
    options: { readonly version: string },
  ) {
    this.#source = deps.source;
    this.#clock = deps.clock;
    this.#version = options.version;
    collectDefaultMetrics({ register: this.#processRegistry });
  }

  async render(): Promise<MetricsText> {
    const snapshot = await this.#snapshot();
    const registry = new Registry();
    for (const { metrics } of METRICS) {
      for (const metric of metrics) registry.registerMetric(collected(metric, snapshot));
    }
    const parts = await Promise.all([registry.metrics(), this.#processRegistry.metrics()]);
    return { contentType: registry.contentType, body: parts.join('\n') };
  }

  async #snapshot(): Promise<MetricsSnapshot> {
    const read = this.#source.counters();
    const counters = await inTime(read, COUNTERS_TIMEOUT_MS, this.#clock).catch(() => undefined);
    const facts = this.#source.facts();
    return { ...facts, version: this.#version, counters, backend: backendNames(facts.state) };
  }
}

/** A metric with the values of one snapshot. */
function collected({ name, type, labels, help, series }: Metric, snapshot: MetricsSnapshot): PromMetric {
  const labelled = series(snapshot).map(([values, value]) => {
    return { labels: Object.fromEntries(labels.map((label, index) => [label, values[index] ?? ''])), value };
  });
  if (type === 'histogram') {
    // prom-client's own histograms count by themselves and cannot take totals that were counted elsewhere. Of a
    // registered metric the registry only uses `name` and `get()` (prom-client 15, lib/registry.js).
    const values = labelled.flatMap((row) =>
      histogramValues(name, row.labels, row.value as LatencyHistogram),
    );
    return { name, get: () => Promise.resolve({ name, type, help, values }) } as unknown as PromMetric;
  }
  const kinds = { counter: Counter, gauge: Gauge };
  const metric = new kinds[type]({ name, help, labelNames: labels, registers: [] });
  // Without labels it begins with a series of its own.
  if (labels.length === 0) metric.remove();
  for (const row of labelled) metric.inc(row.labels, row.value as number);
  return metric;
}

function histogramValues(name: string, labels: object, histogram: LatencyHistogram): readonly object[] {
  const { boundsSeconds, counts, count, sumSeconds } = histogram;
  const bucket = (le: number | string, value: number) => ({
    metricName: `${name}_bucket`,
    labels: { ...labels, le },
    value,
  });
  return [
    ...boundsSeconds.map((le, index) => bucket(le, counts[index] ?? 0)),
    bucket('+Inf', count),
    { metricName: `${name}_sum`, labels, value: sumSeconds },
    { metricName: `${name}_count`, labels, value: count },
  ];
}

/**
 * Gives pool and name of a backend id. One that is no longer configured, but still has flows, is named by its address,
 * which its id (`pool/address`) holds.
 */
function backendNames(state: ForwardingState | undefined): MetricsSnapshot['backend'] {
  const names = new Map(
    state?.configuration.backendPools.flatMap(({ name: pool, backends }) =>
      backends.map(({ id, name }) => [id, [pool, name] as const] as const),
    ),
  );
  return (backendId) => {
    const slash = backendId.indexOf('/');
    return names.get(backendId) ?? [backendId.slice(0, Math.max(0, slash)), backendId.slice(slash + 1)];
  };
}

/** Counts reloads. The configuration at the start counts as the last one, but not as a reload. */
export class ReloadTally {
  readonly #clock: Clock;
  #stats: ReloadStats = { succeeded: 0, failed: 0, lastSucceeded: true };

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  get stats(): ReloadStats {
    return this.#stats;
  }

  observe({ type }: EventOf<'config-loaded' | 'reloaded' | 'reload-failed'>): void {
    this.#stats = {
      succeeded: this.#stats.succeeded + (type === 'reloaded' ? 1 : 0),
      failed: this.#stats.failed + (type === 'reload-failed' ? 1 : 0),
      lastAtMs: this.#clock.wallMs(),
      lastSucceeded: type !== 'reload-failed',
    };
  }
}
