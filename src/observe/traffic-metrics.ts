import type { KernelReport } from '../model/kernel-report.js';
import type {
  KernelFlowCounters,
  PlaneCounters,
  SourcePortUse,
  TableUse,
  TrafficCounters,
} from '../planes/contract.js';
import type { LineWriterStats } from './line-writer.js';
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
    snapshot.state?.configuration.rules.map((rule) => [rule.name, rule.frontend.name] as const),
  );
  return (snapshot.counters?.arrivals ?? []).map((entry) => {
    // A rule that was removed no longer names its frontend.
    const frontend = frontends.get(entry.rule) ?? '';
    return { labels: { frontend, rule: entry.rule, protocol: entry.protocol }, entry };
  });
}

/** The data plane and the process themselves. */
export const PLANE_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_build_info',
    type: 'gauge',
    help: 'Always 1; the version is in the labels',
    collect: ({ version }) => [{ labels: { version, node: process.version }, value: 1 }],
  },
  {
    name: 'haports_config_info',
    type: 'gauge',
    help: 'Always 1; the digest of the configuration in use is in the label',
    collect: ({ state }) =>
      state === undefined ? [] : [{ labels: { digest: state.configuration.digest }, value: 1 }],
  },
  {
    name: 'haports_forwarding_revision',
    type: 'gauge',
    help: 'Revision of the forwarding state, the epoch of the flow log',
    collect: ({ state }) => (state === undefined ? [] : [{ labels: {}, value: state.revision }]),
  },
  {
    name: 'haports_data_plane_up',
    type: 'gauge',
    help: 'Whether a data worker answered this scrape within a second',
    collect: ({ counters }) => [{ labels: {}, value: counters === undefined ? 0 : 1 }],
  },
  {
    name: 'haports_data_path_availability_ratio',
    type: 'gauge',
    help: 'Listeners open of those wanted; 0 where no data worker answered within a second',
    collect: availability,
  },
  {
    name: 'haports_listeners_open',
    type: 'gauge',
    help: 'Sockets that listen on the frontend',
    collect: (snapshot) => perFrontend(snapshot, ({ open }) => open),
  },
  {
    name: 'haports_listeners_wanted',
    type: 'gauge',
    help: 'Sockets that should listen on the frontend',
    collect: (snapshot) => perFrontend(snapshot, ({ wanted }) => wanted),
  },
  {
    name: 'haports_flow_table_used',
    type: 'gauge',
    help: 'Entries of the flow table in use, by budget',
    collect: (snapshot) => perTable(snapshot, ({ used }) => used),
  },
  {
    name: 'haports_flow_table_limit',
    type: 'gauge',
    help: 'Entries that the flow table may hold, by budget',
    collect: (snapshot) => perTable(snapshot, ({ limit }) => limit),
  },
  {
    name: 'haports_source_ports_used',
    type: 'gauge',
    help: 'Local ports in use towards the backend, where haports chooses them',
    collect: (snapshot) => perSourcePort(snapshot, ({ used }) => used),
  },
  {
    name: 'haports_source_ports_available',
    type: 'gauge',
    help: 'Local ports that upstream sockets to the backend may use, those in use included',
    collect: (snapshot) => perSourcePort(snapshot, ({ available }) => available),
  },
  {
    name: 'haports_event_loop_delay_seconds',
    type: 'gauge',
    help: 'Worst event-loop delay of a data worker in the last 15 to 30 seconds',
    collect: ({ counters }) =>
      (counters?.eventLoopDelaySeconds ?? [])
        .map((value, worker) => ({ labels: { worker: String(worker) }, value }))
        // A worker that is being replaced has none.
        .filter(({ value }) => !Number.isNaN(value)),
  },
  {
    name: 'haports_workers_lost_total',
    type: 'counter',
    help: 'Data workers that died and were replaced',
    collect: ({ counters }) => (counters === undefined ? [] : [{ labels: {}, value: counters.workersLost }]),
  },
  {
    name: 'haports_flow_log_lines_total',
    type: 'counter',
    help: 'Lines written to the flow log',
    collect: (snapshot) => ofFlowLog(snapshot, ({ linesWritten }) => linesWritten),
  },
  {
    name: 'haports_flow_log_lost_lines_total',
    type: 'counter',
    help: 'Lines lost because the flow log could not be written in time',
    collect: (snapshot) => ofFlowLog(snapshot, ({ linesLost }) => linesLost),
  },
  {
    name: 'haports_flow_log_write_errors_total',
    type: 'counter',
    help: 'Failed writes to the flow log',
    collect: (snapshot) => ofFlowLog(snapshot, ({ writeErrors }) => writeErrors),
  },
];

type ListenerUse = PlaneCounters['listeners'][string];

function perFrontend(snapshot: MetricsSnapshot, value: (use: ListenerUse) => number): readonly Sample[] {
  return Object.entries(snapshot.counters?.listeners ?? {}).map(([frontend, use]) => ({
    labels: { frontend },
    value: value(use),
  }));
}

/** Azure's data path availability: a frontend without listeners of its own has none to speak of. */
function availability(snapshot: MetricsSnapshot): readonly Sample[] {
  if (snapshot.counters === undefined) {
    const frontends = new Set(snapshot.state?.configuration.rules.map((rule) => rule.frontend.name));
    return [...frontends].map((frontend) => ({ labels: { frontend }, value: 0 }));
  }
  return perFrontend(snapshot, ({ open, wanted }) => (wanted === 0 ? Number.NaN : open / wanted)).filter(
    ({ value }) => !Number.isNaN(value),
  );
}

function perTable(snapshot: MetricsSnapshot, value: (use: TableUse) => number): readonly Sample[] {
  return Object.entries(snapshot.counters?.table ?? {}).map(([table, use]) => ({
    labels: { table },
    value: value(use),
  }));
}

function perSourcePort(snapshot: MetricsSnapshot, value: (use: SourcePortUse) => number): readonly Sample[] {
  return (snapshot.counters?.sourcePorts ?? []).map((use) => ({
    labels: {
      ...snapshot.backendLabels(use.backendId),
      protocol: use.protocol,
      source_address: use.sourceAddress,
    },
    value: value(use),
  }));
}

function ofFlowLog(snapshot: MetricsSnapshot, value: (stats: LineWriterStats) => number): readonly Sample[] {
  return snapshot.flowLog === undefined ? [] : [{ labels: {}, value: value(snapshot.flowLog) }];
}

/** IANA numbers of protocols that are balanced without ports; others are shown by number. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [1, 'icmp'],
  [4, 'ipip'],
  [41, 'ipv6'],
  [47, 'gre'],
  [50, 'esp'],
  [51, 'ah'],
  [58, 'icmpv6'],
  [132, 'sctp'],
]);

/** What there is only where the flows are the kernel's. */
export const KERNEL_FLOW_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_conntrack_entries',
    type: 'gauge',
    help: "Flows in the kernel's connection tracking, everybody's",
    collect: (snapshot) => ofFlows(snapshot, ({ conntrack }) => conntrack?.used),
  },
  {
    name: 'haports_conntrack_limit',
    type: 'gauge',
    help: "Flows that the kernel's connection tracking may hold (nf_conntrack_max)",
    collect: (snapshot) => ofFlows(snapshot, ({ conntrack }) => conntrack?.limit),
  },
  {
    name: 'haports_unlisted_flows',
    type: 'gauge',
    help: 'Live flows that are counted but not listed, since there are more than limits say',
    collect: (snapshot) => ofFlows(snapshot, ({ unlisted }) => unlisted),
  },
  {
    name: 'haports_flow_event_gaps_total',
    type: 'counter',
    help: "Times that events of the kernel's flows were lost, and all flows were listed anew",
    collect: (snapshot) => ofFlows(snapshot, ({ gaps }) => gaps),
  },
  {
    name: 'haports_other_flows_active',
    type: 'gauge',
    help: 'Live flows of protocols without ports',
    collect: (snapshot) => otherFlows(snapshot, 'active'),
  },
  {
    name: 'haports_other_flows_opened_total',
    type: 'counter',
    help: 'Flows of protocols without ports placed on the backend',
    collect: (snapshot) => otherFlows(snapshot, 'opened'),
  },
];

function ofFlows(
  { counters }: MetricsSnapshot,
  value: (flows: KernelFlowCounters) => number | undefined,
): readonly Sample[] {
  const found = counters?.kernelFlows === undefined ? undefined : value(counters.kernelFlows);
  return found === undefined ? [] : [{ labels: {}, value: found }];
}

function otherFlows(
  { counters, backendLabels }: MetricsSnapshot,
  key: 'active' | 'opened',
): readonly Sample[] {
  return (counters?.kernelFlows?.otherFlows ?? []).map((flows) => {
    const protocol = NAMES.get(flows.protocol) ?? String(flows.protocol);
    const labels: Labels = { ...backendLabels(flows.backendId), protocol };
    return { labels, value: flows[key] };
  });
}

/** What the data plane keeps in the kernel; without capture there are none of these. */
export const KERNEL_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_kernel_in_place',
    type: 'gauge',
    help: 'Whether the nft table was as it should be when last looked at',
    collect: (snapshot) => ofKernel(snapshot, ({ state }) => (state === 'in-place' ? 1 : 0)),
  },
  {
    name: 'haports_kernel_repairs_total',
    type: 'counter',
    help: 'Times that the nft table, routes or addresses were found lost or altered, and put right',
    collect: (snapshot) => ofKernel(snapshot, ({ repairs }) => repairs),
  },
  {
    name: 'haports_kernel_failures_total',
    type: 'counter',
    help: 'Changes of the kernel that failed',
    collect: (snapshot) => ofKernel(snapshot, ({ failures }) => failures),
  },
];

function ofKernel({ kernel }: MetricsSnapshot, value: (report: KernelReport) => number): readonly Sample[] {
  return kernel === undefined ? [] : [{ labels: {}, value: value(kernel) }];
}
