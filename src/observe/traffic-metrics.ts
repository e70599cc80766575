import type { TrafficCounters } from '../dataplane/data-plane.js';
import type { Labels, MetricFamily, MetricsSnapshot, Sample } from './metric-family.js';

/** What flows do, by rule, backend and protocol. */
export const TRAFFIC_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_flows_active',
    type: 'gauge',
    help: 'Flows in the flow table',
    collect: (snapshot) => perBackend(snapshot, (traffic) => traffic.flowsActive),
  },
  {
    name: 'haports_flows_opened_total',
    type: 'counter',
    help: 'Flows placed on a backend',
    collect: (snapshot) => perBackend(snapshot, (traffic) => traffic.flowsOpened),
  },
  {
    name: 'haports_flows_ended_total',
    type: 'counter',
    help: 'Flows ended, by reason',
    collect: (snapshot) =>
      traffic(snapshot).flatMap((entry) =>
        Object.entries(entry.flowsEnded).map(([reason, value]) => ({
          labels: { ...labelsOf(snapshot, entry), reason },
          value,
        })),
      ),
  },
  {
    name: 'haports_flow_bytes_total',
    type: 'counter',
    help: 'Payload bytes carried, by direction',
    collect: (snapshot) => perDirection(snapshot, (entry) => [entry.bytesToBackend, entry.bytesToClient]),
  },
  {
    name: 'haports_flow_packets_total',
    type: 'counter',
    help: 'Datagrams (UDP) or reads (TCP) carried, by direction',
    collect: (snapshot) => perDirection(snapshot, (entry) => [entry.packetsToBackend, entry.packetsToClient]),
  },
  {
    name: 'haports_resets_total',
    type: 'counter',
    help: 'RST received from either side, or sent for idleness or policy',
    collect: (snapshot) => perBackend(snapshot, (entry) => entry.resets),
  },
  {
    name: 'haports_connect_retries_total',
    type: 'counter',
    help: 'New TCP flows that had to try another backend after this one',
    collect: (snapshot) => perBackend(snapshot, (entry) => entry.connectRetries),
  },
  {
    name: 'haports_connect_failures_total',
    type: 'counter',
    help: 'Attempts to connect to this backend that failed',
    collect: (snapshot) => perBackend(snapshot, (entry) => entry.connectFailures),
  },
  {
    name: 'haports_connect_duration_seconds',
    type: 'histogram',
    help: 'Time from the first attempt to connect upstream until connected',
    collect: (snapshot) =>
      Object.entries(snapshot.counters?.connectSeconds ?? {}).map(([backendId, histogram]) => ({
        labels: snapshot.backendLabels(backendId),
        histogram,
      })),
  },
  {
    name: 'haports_upstream_connections_total',
    type: 'counter',
    help: 'Upstream sockets wanted from the own address, by outcome',
    collect: upstreamConnections,
  },
  {
    name: 'haports_arrivals_total',
    type: 'counter',
    help: 'TCP connections accepted, or first datagrams of UDP flows',
    collect: (snapshot) => arrivals(snapshot).map(({ labels, entry }) => ({ labels, value: entry.arrivals })),
  },
  {
    name: 'haports_drops_total',
    type: 'counter',
    help: 'Connections or datagrams that got no flow or were thrown away, by reason',
    collect: (snapshot) =>
      arrivals(snapshot).flatMap(({ labels, entry }) =>
        Object.entries(entry.drops).map(([reason, value]) => ({ labels: { ...labels, reason }, value })),
      ),
  },
];

function traffic(snapshot: MetricsSnapshot): readonly TrafficCounters[] {
  return snapshot.counters?.traffic ?? [];
}

function labelsOf(snapshot: MetricsSnapshot, entry: TrafficCounters): Labels {
  return { rule: entry.rule, ...snapshot.backendLabels(entry.backendId), protocol: entry.protocol };
}

function perBackend(snapshot: MetricsSnapshot, value: (entry: TrafficCounters) => number): readonly Sample[] {
  return traffic(snapshot).map((entry) => ({ labels: labelsOf(snapshot, entry), value: value(entry) }));
}

function perDirection(
  snapshot: MetricsSnapshot,
  values: (entry: TrafficCounters) => readonly [toBackend: number, toClient: number],
): readonly Sample[] {
  return traffic(snapshot).flatMap((entry) => {
    const labels = labelsOf(snapshot, entry);
    const [toBackend, toClient] = values(entry);
    return [
      { labels: { ...labels, direction: 'to_backend' }, value: toBackend },
      { labels: { ...labels, direction: 'to_client' }, value: toClient },
    ];
  });
}

/** Azure's SNAT connection count. A UDP flow has its own connected socket, so each one opened is one connection. */
function upstreamConnections(snapshot: MetricsSnapshot): readonly Sample[] {
  const samples: Sample[] = [];
  for (const [backendId, { count }] of Object.entries(snapshot.counters?.connectSeconds ?? {})) {
    const labels = { ...snapshot.backendLabels(backendId), protocol: 'tcp', outcome: 'succeeded' };
    samples.push({ labels, value: count });
  }
  for (const entry of traffic(snapshot)) {
    const labels = { ...snapshot.backendLabels(entry.backendId), protocol: entry.protocol };
    samples.push({ labels: { ...labels, outcome: 'failed' }, value: entry.connectFailures });
    if (entry.protocol === 'udp') {
      samples.push({ labels: { ...labels, outcome: 'succeeded' }, value: entry.flowsOpened });
    }
  }
  return samples;
}

function arrivals(snapshot: MetricsSnapshot) {
  const frontends = new Map(
    snapshot.state?.configuration.rules.map((rule) => [rule.name, rule.frontend] as const),
  );
  return (snapshot.counters?.arrivals ?? []).map((entry) => {
    // A rule that was removed no longer names its frontend.
    const frontend = frontends.get(entry.rule) ?? '';
    return { labels: { frontend, rule: entry.rule, protocol: entry.protocol }, entry };
  });
}
