import { estimateSources, mergeSketches } from '../model/source-sketch.js';
import type { MetricFamily, MetricsSnapshot, Sample } from './metric-family.js';

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
