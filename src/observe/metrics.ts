import { collectDefaultMetrics, Registry } from 'prom-client';
import type { PlaneCounters } from '../dataplane/data-plane.js';
import type { Clock } from '../runtime/clock.js';
import { AZURE_METRICS } from './azure-metrics.js';
import { backendLabeller } from './backend-labels.js';
import { collectedMetric } from './collected-metric.js';
import { HEALTH_METRICS } from './health-metrics.js';
import { KERNEL_FLOW_METRICS } from './kernel-flow-metrics.js';
import { KERNEL_METRICS } from './kernel-metrics.js';
import type { MetricFamily, MetricsSnapshot } from './metric-family.js';
import type { MetricsSource } from './metrics-source.js';
import { OPERATION_METRICS } from './operation-metrics.js';
import { PLANE_METRICS } from './plane-metrics.js';
import { TRAFFIC_METRICS } from './traffic-metrics.js';

/** Every metric that haports itself exports; `process_*` and `nodejs_*` of the control process come on top. */
export const METRIC_FAMILIES: readonly MetricFamily[] = [
  ...PLANE_METRICS,
  ...HEALTH_METRICS,
  ...TRAFFIC_METRICS,
  ...OPERATION_METRICS,
  ...KERNEL_METRICS,
  ...KERNEL_FLOW_METRICS,
  ...AZURE_METRICS,
];

export interface MetricsText {
  readonly contentType: string;
  readonly body: string;
}

export interface MetricsOptions {
  /** Version of haports, for `haports_build_info`. */
  readonly version: string;
  /** How long a scrape waits for the data plane's counters. @default 1000 */
  readonly countersTimeoutMs?: number;
}

/**
 * The Prometheus text of one haports process. A scrape is one snapshot: nothing is counted here, and a data plane
 * that does not answer costs its own series, not the scrape.
 */
export class Metrics {
  readonly #source: MetricsSource;
  readonly #clock: Clock;
  readonly #version: string;
  readonly #countersTimeoutMs: number;
  readonly #processRegistry = new Registry();

  constructor(deps: { readonly source: MetricsSource; readonly clock: Clock }, options: MetricsOptions) {
    this.#source = deps.source;
    this.#clock = deps.clock;
    this.#version = options.version;
    this.#countersTimeoutMs = options.countersTimeoutMs ?? 1000;
    collectDefaultMetrics({ register: this.#processRegistry });
  }

  async render(): Promise<MetricsText> {
    const snapshot = await this.#snapshot();
    const registry = new Registry();
    for (const family of METRIC_FAMILIES) registry.registerMetric(collectedMetric(family, snapshot));
    const parts = await Promise.all([registry.metrics(), this.#processRegistry.metrics()]);
    return { contentType: registry.contentType, body: parts.join('\n') };
  }

  async #snapshot(): Promise<MetricsSnapshot> {
    const counters = await this.#counters();
    const state = this.#source.state();
    return {
      version: this.#version,
      state,
      probes: this.#source.probes(),
      counters,
      flowLog: this.#source.flowLog?.(),
      healthEvents: this.#source.healthEvents?.() ?? [],
      reloads: this.#source.reloads?.(),
      kernel: this.#source.kernel?.(),
      backendLabels: backendLabeller(state),
    };
  }

  async #counters(): Promise<PlaneCounters | undefined> {
    let cancel: (() => void) | undefined;
    const timeout = new Promise<undefined>((resolve) => {
      cancel = this.#clock.setTimer(this.#countersTimeoutMs, () => resolve(undefined));
    });
    try {
      return await Promise.race([this.#source.counters().catch(() => undefined), timeout]);
    } finally {
      cancel?.();
    }
  }
}
