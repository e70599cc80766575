import type { PlaneCounters, SourcePortUse, TableUse } from '../dataplane/data-plane.js';
import type { LineWriterStats } from './line-writer.js';
import type { MetricFamily, MetricsSnapshot, Sample } from './metric-family.js';

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
    const frontends = new Set(snapshot.state?.configuration.rules.map((rule) => rule.frontend));
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
