import { Registry, collectDefaultMetrics } from 'prom-client';
import { estimateSources, mergeSketches } from '../flows/traffic.js';
import type { Protocol } from '../model/address.js';
import type { BackendState, ForwardingState, PoolView } from '../model/forwarding.js';
import type { PlaneCounters, SourcePortUse } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import {
  collectedMetric,
  type Labels,
  type MetricFamily,
  type MetricsSnapshot,
  type MetricsSource,
  type ProbeStatus,
  type Sample,
} from './metric-family.js';
import { KERNEL_FLOW_METRICS, KERNEL_METRICS, PLANE_METRICS, TRAFFIC_METRICS } from './traffic-metrics.js';

/** What probes find, and what follows from it for pools and backends. */
export const HEALTH_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_probe_up',
    type: 'gauge',
    help: 'Whether the probe finds the backend up: 1 up, 0 down or not known yet',
    collect: (snapshot) => perProbe(snapshot, (status) => (status.health === 'up' ? 1 : 0)),
  },
  {
    name: 'haports_probe_transitions_total',
    type: 'counter',
    help: 'Changes of probe state, by what it changed to',
    collect: (snapshot) =>
      snapshot.probes.flatMap((status) =>
        Object.entries(status.transitions).map(([to, value]) => ({
          labels: { ...probeLabels(snapshot, status), to },
          value,
        })),
      ),
  },
  {
    name: 'haports_probe_results_total',
    type: 'counter',
    help: 'Probes done, by verdict',
    collect: (snapshot) =>
      snapshot.probes.flatMap((status) =>
        Object.entries(status.results ?? {}).map(([verdict, value]) => ({
          labels: { ...probeLabels(snapshot, status), verdict },
          value,
        })),
      ),
  },
  {
    name: 'haports_probe_duration_seconds',
    type: 'gauge',
    help: 'How long the last probe took',
    collect: (snapshot) =>
      snapshot.probes.flatMap((status) =>
        status.lastDurationMs === undefined
          ? []
          : [{ labels: probeLabels(snapshot, status), value: status.lastDurationMs / 1000 }],
      ),
  },
  {
    name: 'haports_backend_eligible',
    type: 'gauge',
    help: 'Whether the backend may get new flows, probe and admin state taken together',
    collect: (snapshot) => perMember(snapshot, (member) => (member.eligible ? 1 : 0)),
  },
  {
    name: 'haports_backend_serving',
    type: 'gauge',
    help: 'Whether the backend is in the table: eligible, and in the serving priority group',
    collect: (snapshot) => perMember(snapshot, (member) => (member.serving ? 1 : 0)),
  },
  {
    name: 'haports_backend_weight',
    type: 'gauge',
    help: 'Weight that the table was built with',
    collect: (snapshot) => perMember(snapshot, (member) => member.effectiveWeight),
  },
  {
    name: 'haports_backend_admin_state',
    type: 'gauge',
    help: 'Admin state of the backend: 1 for the one it is in',
    collect: (snapshot) =>
      views(snapshot).flatMap((view) =>
        view.backends.map((member) => ({
          labels: { ...memberLabels(view, member), state: member.adminState },
          value: 1,
        })),
      ),
  },
  {
    name: 'haports_pool_backends',
    type: 'gauge',
    help: 'Backends in the pool',
    collect: (snapshot) => perView(snapshot, (view) => view.backends.length),
  },
  {
    name: 'haports_pool_eligible_backends',
    type: 'gauge',
    help: 'Backends of the pool that may get new flows',
    collect: (snapshot) =>
      perView(snapshot, (view) => view.backends.filter((member) => member.eligible).length),
  },
];

function views(snapshot: MetricsSnapshot): readonly PoolView[] {
  return snapshot.state?.views ?? [];
}

function probeLabels(snapshot: MetricsSnapshot, status: ProbeStatus): Labels {
  return { ...snapshot.backendLabels(status.backendId), probe: status.probe };
}

function memberLabels(view: PoolView, member: BackendState): Labels {
  return { pool: view.pool.name, backend: member.backend.name, probe: view.probe?.name ?? '' };
}

function perProbe(snapshot: MetricsSnapshot, value: (status: ProbeStatus) => number): readonly Sample[] {
  return snapshot.probes.map((status) => ({ labels: probeLabels(snapshot, status), value: value(status) }));
}

function perMember(snapshot: MetricsSnapshot, value: (member: BackendState) => number): readonly Sample[] {
  return views(snapshot).flatMap((view) =>
    view.backends.map((member) => ({ labels: memberLabels(view, member), value: value(member) })),
  );
}

function perView(snapshot: MetricsSnapshot, value: (view: PoolView) => number): readonly Sample[] {
  return views(snapshot).map((view) => ({
    labels: { pool: view.pool.name, probe: view.probe?.name ?? '' },
    value: value(view),
  }));
}

/** What an operator does and wants to be told of: reloads, drains, health events, and who uses a rule or a backend. */
export const OPERATION_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_health_event_active',
    type: 'gauge',
    help: 'Health events that are raised: always 1, absent once resolved',
    collect: ({ healthEvents }) =>
      healthEvents.map(({ name, subject }) => ({ labels: { name, subject }, value: 1 })),
  },
  {
    name: 'haports_reloads_total',
    type: 'counter',
    help: 'Reloads of the configuration, by outcome',
    collect: ({ reloads }) =>
      reloads === undefined
        ? []
        : [
            { labels: { outcome: 'succeeded' }, value: reloads.succeeded },
            { labels: { outcome: 'failed' }, value: reloads.failed },
          ],
  },
  {
    name: 'haports_config_last_reload_timestamp_seconds',
    type: 'gauge',
    help: 'When the configuration was last taken over or refused, the start included',
    collect: ({ reloads }) =>
      reloads?.lastAtMs === undefined ? [] : [{ labels: {}, value: reloads.lastAtMs / 1000 }],
  },
  {
    name: 'haports_config_last_reload_success',
    type: 'gauge',
    help: 'Whether the configuration was taken over that time: 1 yes, 0 refused and the one before still serves',
    collect: ({ reloads }) =>
      reloads?.lastAtMs === undefined ? [] : [{ labels: {}, value: reloads.lastSucceeded ? 1 : 0 }],
  },
  {
    name: 'haports_drain_flows',
    type: 'gauge',
    help: 'Flows left on a backend that is being drained',
    collect: drainFlows,
  },
  {
    name: 'haports_rule_distinct_sources',
    type: 'gauge',
    help: 'Estimate of distinct client addresses since the data plane started',
    collect: distinctSources,
  },
  {
    name: 'haports_backend_last_flow_timestamp_seconds',
    type: 'gauge',
    help: 'When the backend got its last new flow',
    collect: lastFlows,
  },
];

function drainFlows(snapshot: MetricsSnapshot): readonly Sample[] {
  const { counters, state } = snapshot;
  if (counters === undefined || state === undefined) return [];
  const draining = new Set(
    state.views.flatMap(({ backends }) =>
      backends.flatMap(({ backend, exclusion }) => (exclusion === 'draining' ? [backend.id] : [])),
    ),
  );
  return [...draining].map((backendId) => ({
    labels: snapshot.backendLabels(backendId),
    value: counters.traffic.reduce(
      (sum, row) => (row.backendId === backendId ? sum + row.flowsActive : sum),
      0,
    ),
  }));
}

function distinctSources({ counters }: MetricsSnapshot): readonly Sample[] {
  const sketches = new Map<string, Uint8Array>();
  for (const { rule, sourceSketch } of counters?.arrivals ?? []) {
    if (sourceSketch === undefined) continue;
    const other = sketches.get(rule);
    sketches.set(rule, other === undefined ? sourceSketch : mergeSketches(other, sourceSketch));
  }
  return [...sketches].map(([rule, sketch]) => ({
    labels: { rule },
    value: Math.round(estimateSources(sketch)),
  }));
}

function lastFlows(snapshot: MetricsSnapshot): readonly Sample[] {
  const lastAtMs = new Map<string, number>();
  for (const { backendId, lastFlowAtMs } of snapshot.counters?.traffic ?? []) {
    if (lastFlowAtMs === undefined) continue;
    lastAtMs.set(backendId, Math.max(lastAtMs.get(backendId) ?? 0, lastFlowAtMs));
  }
  return [...lastAtMs].map(([backendId, atMs]) => ({
    labels: snapshot.backendLabels(backendId),
    value: atMs / 1000,
  }));
}

/*
 * Azure's metric names and dimensions (monitor-load-balancer-reference) as aliases, for dashboards and alerts that
 * come from there: per frontend and per backend, availability in percent.
 */

/** The same facts as haports' own metrics, by Azure's names. */
export const AZURE_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_azure_vip_availability',
    type: 'gauge',
    help: 'Alias of VipAvailability: data path availability in percent',
    collect: vipAvailability,
  },
  {
    name: 'haports_azure_dip_availability',
    type: 'gauge',
    help: 'Alias of DipAvailability: health probe status in percent, admin state included',
    collect: dipAvailability,
  },
  {
    name: 'haports_azure_syn_count_total',
    type: 'counter',
    help: 'Alias of SYNCount: TCP connections that arrived',
    collect: synCount,
  },
  {
    name: 'haports_azure_byte_count_total',
    type: 'counter',
    help: 'Alias of ByteCount: payload bytes, by direction',
    collect: (snapshot) => perDirection(snapshot, 'bytes'),
  },
  {
    name: 'haports_azure_packet_count_total',
    type: 'counter',
    help: 'Alias of PacketCount: datagrams (UDP) or reads (TCP), by direction',
    collect: (snapshot) => perDirection(snapshot, 'packets'),
  },
  {
    name: 'haports_azure_snat_connection_count_total',
    type: 'counter',
    help: 'Alias of SnatConnectionCount: upstream connections, by state',
    collect: snatConnections,
  },
  {
    name: 'haports_azure_allocated_snat_ports',
    type: 'gauge',
    help: 'Alias of AllocatedSnatPorts: local ports towards the backend',
    collect: (snapshot) => snatPorts(snapshot, ({ available }) => available),
  },
  {
    name: 'haports_azure_used_snat_ports',
    type: 'gauge',
    help: 'Alias of UsedSnatPorts: local ports in use towards the backend',
    collect: (snapshot) => snatPorts(snapshot, ({ used }) => used),
  },
];

function vipAvailability(snapshot: MetricsSnapshot): readonly Sample[] {
  const { state, counters } = snapshot;
  // Nothing is known to be open where no data worker answered.
  const silent = counters === undefined ? { open: 0, wanted: 1 } : { open: 0, wanted: 0 };
  const uses = new Map(Object.entries(counters?.listeners ?? {}));
  return (state?.configuration.frontends ?? []).flatMap(({ name: frontend, address }) => {
    const isUsed = state?.configuration.rules.some((rule) => rule.frontend.name === frontend) ?? false;
    const { open, wanted } = uses.get(frontend) ?? silent;
    if (!isUsed || wanted === 0) return [];
    return [{ labels: { frontend, frontend_ip_address: address.text }, value: (100 * open) / wanted }];
  });
}

function dipAvailability(snapshot: MetricsSnapshot): readonly Sample[] {
  const verdicts = new Map<string, boolean[]>();
  for (const { backends } of snapshot.state?.views ?? []) {
    for (const { backend, eligible } of backends) {
      verdicts.set(backend.id, [...(verdicts.get(backend.id) ?? []), eligible]);
    }
  }
  return [...verdicts].map(([backendId, eligible]) => ({
    labels: backendLabels(backendId),
    value: (100 * eligible.filter(Boolean).length) / eligible.length,
  }));
}

function synCount(snapshot: MetricsSnapshot): readonly Sample[] {
  const labelsOf = frontendLabeller(snapshot);
  return (snapshot.counters?.arrivals ?? []).flatMap(({ rule, protocol, arrivals }) =>
    protocol === 'tcp' ? [{ labels: labelsOf(rule), value: arrivals }] : [],
  );
}

function perDirection(snapshot: MetricsSnapshot, what: 'bytes' | 'packets'): readonly Sample[] {
  const labelsOf = frontendLabeller(snapshot);
  return (snapshot.counters?.traffic ?? []).flatMap((row) => {
    const labels = { ...labelsOf(row.rule), protocol_type: row.protocol.toUpperCase() };
    const [inbound, outbound] =
      what === 'bytes'
        ? [row.bytesToBackend, row.bytesToClient]
        : [row.packetsToBackend, row.packetsToClient];
    return [
      { labels: { ...labels, direction: 'In' }, value: inbound },
      { labels: { ...labels, direction: 'Out' }, value: outbound },
    ];
  });
}

function snatConnections(snapshot: MetricsSnapshot): readonly Sample[] {
  const { counters } = snapshot;
  const labels = (backendId: string, protocol: Protocol, state: string): Labels => ({
    ...backendLabels(backendId),
    protocol_type: protocol.toUpperCase(),
    connection_state: state,
  });
  return [
    ...Object.entries(counters?.connectSeconds ?? {}).map(([backendId, { count }]) => ({
      labels: labels(backendId, 'tcp', 'Successful'),
      value: count,
    })),
    ...(counters?.traffic ?? []).flatMap(({ backendId, protocol, connectFailures, flowsOpened }) => [
      { labels: labels(backendId, protocol, 'Failed'), value: connectFailures },
      // Each UDP flow has a connected socket of its own.
      ...(protocol === 'udp'
        ? [{ labels: labels(backendId, protocol, 'Successful'), value: flowsOpened }]
        : []),
    ]),
  ];
}

function snatPorts(snapshot: MetricsSnapshot, value: (use: SourcePortUse) => number): readonly Sample[] {
  return (snapshot.counters?.sourcePorts ?? []).map((use) => ({
    labels: { ...backendLabels(use.backendId), protocol_type: use.protocol.toUpperCase() },
    value: value(use),
  }));
}

/** Labels of a rule's frontend; a rule that was removed no longer names it. */
function frontendLabeller({ state }: MetricsSnapshot): (rule: string) => Labels {
  const frontends = new Map(state?.configuration.rules.map(({ name, frontend }) => [name, frontend]));
  return (rule) => {
    const frontend = frontends.get(rule);
    return { frontend: frontend?.name ?? '', frontend_ip_address: frontend?.address.text ?? '' };
  };
}

/** An id is `pool/address`. */
function backendLabels(backendId: string): Labels {
  const slash = backendId.indexOf('/');
  return { pool: backendId.slice(0, Math.max(0, slash)), backend_ip_address: backendId.slice(slash + 1) };
}

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

/**
 * Gives the `pool` and `backend` (name) labels of a backend id. One that is no longer configured, but still has
 * flows, is named by its address, which its id (`pool/address`) holds.
 */
export function backendLabeller(state: ForwardingState | undefined): (backendId: string) => Labels {
  const labels = new Map<string, Labels>();
  for (const pool of state?.configuration.backendPools ?? []) {
    for (const backend of pool.backends) labels.set(backend.id, { pool: pool.name, backend: backend.name });
  }
  return (backendId) => {
    const known = labels.get(backendId);
    if (known !== undefined) return known;
    const slash = backendId.indexOf('/');
    return { pool: backendId.slice(0, Math.max(0, slash)), backend: backendId.slice(slash + 1) };
  };
}
