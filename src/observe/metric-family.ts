import type { Metric } from 'prom-client';
import type { HealthState } from '../model/configuration.js';
import type { ControlEvent, HealthEvent } from '../model/events.js';
import type { ForwardingState } from '../model/forwarding.js';
import type { KernelReport } from '../model/kernel-report.js';
import type { LatencyHistogram, PlaneCounters } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { LineWriterStats } from './line-writer.js';

/** Label values come from the configuration, or from closed unions: never from a client. */
export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

export interface HistogramSample {
  readonly labels: Labels;
  readonly histogram: LatencyHistogram;
}

/** Everything that one scrape is made of, read once so that its numbers belong together. */
export interface MetricsSnapshot {
  readonly version: string;
  readonly state: ForwardingState | undefined;
  readonly probes: readonly ProbeStatus[];
  /** Absent: no data worker answered in time. */
  readonly counters: PlaneCounters | undefined;
  readonly flowLog: LineWriterStats | undefined;
  readonly healthEvents: readonly Pick<HealthEvent, 'name' | 'subject'>[];
  readonly reloads: ReloadStats | undefined;
  readonly kernel: KernelReport | undefined;
  /** `pool` and `backend` labels of a backend id. */
  readonly backendLabels: (backendId: string) => Labels;
}

interface FamilyBase {
  readonly name: string;
  readonly help: string;
}

/** One metric: its name, what it says, and how a snapshot gives its samples. Equal label sets are added up. */
export type MetricFamily =
  | (FamilyBase & {
      readonly type: 'counter' | 'gauge';
      readonly collect: (snapshot: MetricsSnapshot) => readonly Sample[];
    })
  | (FamilyBase & {
      readonly type: 'histogram';
      readonly collect: (snapshot: MetricsSnapshot) => readonly HistogramSample[];
    });

/** One probe of one backend as it stands. */
export interface ProbeStatus {
  readonly pool: string;
  readonly backendId: string;
  readonly probe: string;
  readonly health: HealthState;
  /** Changes of state since the start, by what it changed to. */
  readonly transitions: Readonly<Record<'up' | 'down', number>>;
  /** Probes done since the start, by verdict; absent: not counted. */
  readonly results?: Readonly<Record<'success' | 'failure', number>>;
  /** How long the last probe took; absent: none has ended yet. */
  readonly lastDurationMs?: number;
}

/** Where the numbers come from. Nothing here may throw, save that `counters` may reject. */
export interface MetricsSource {
  /** Asked once a scrape; given up after a second. */
  counters(): Promise<PlaneCounters>;
  /** Undefined before the first revision. */
  state(): ForwardingState | undefined;
  probes(): readonly ProbeStatus[];
  /** Absent: no flow log is written. */
  flowLog?(): LineWriterStats;
  /** The health events that are raised now; absent: nobody watches. */
  healthEvents?(): readonly Pick<HealthEvent, 'name' | 'subject'>[];
  /** Absent: not counted. */
  reloads?(): ReloadStats;
  /** Absent or undefined: the plane keeps nothing in the kernel. */
  kernel?(): KernelReport | undefined;
}

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

/** How taking over configurations has gone since the start of the process. */
export interface ReloadStats {
  readonly succeeded: number;
  readonly failed: number;
  /** Wall clock: when the last one ended, the one at the start included; absent: none yet. */
  readonly lastAtMs?: number;
  /** How the last one ended. */
  readonly lastSucceeded: boolean;
}

/** Counts reloads by what the control plane tells. The configuration at the start counts as the first to succeed. */
export class ReloadTally {
  readonly #clock: Clock;
  #stats: ReloadStats = { succeeded: 0, failed: 0, lastSucceeded: true };

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  get stats(): ReloadStats {
    return this.#stats;
  }

  control(event: ControlEvent): void {
    const { succeeded, failed } = this.#stats;
    const lastAtMs = this.#clock.wallMs();
    if (event.type === 'config-loaded') {
      this.#stats = { ...this.#stats, lastAtMs, lastSucceeded: true };
    } else if (event.type === 'reloaded') {
      this.#stats = { succeeded: succeeded + 1, failed, lastAtMs, lastSucceeded: true };
    } else if (event.type === 'reload-failed') {
      this.#stats = { succeeded, failed: failed + 1, lastAtMs, lastSucceeded: false };
    }
  }
}
