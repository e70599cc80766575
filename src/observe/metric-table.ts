import { estimateSources, mergeSketches } from '../flows/traffic.js';
import type { HealthState } from '../model/configuration.js';
import { DROP_REASONS, type HealthEvent } from '../model/events.js';
import type { BackendState, ForwardingState, PoolView } from '../model/forwarding.js';
import type { KernelReport } from '../model/kernel-report.js';
import type {
  LatencyHistogram,
  PlaneCounters,
  SourcePortUse,
  TableUse,
  TrafficCounters,
} from '../planes/contract.js';
import type { LineWriterStats } from './line-writer.js';

/** One probe of one backend as it stands. */
export interface ProbeStatus {
  readonly pool: string;
  readonly backendId: string;
  readonly probe: string;
  readonly health: HealthState;
  /** Changes of state since the start, by what it changed to. */
  readonly transitions: Readonly<Record<'up' | 'down', number>>;
  /** Probes done since the start, by verdict; absent: not counted. */
  readonly results?: Readonly<Record<'success' | 'failure', number>> | undefined;
  /** How long the last probe took; absent: none has ended yet. */
  readonly lastDurationMs?: number | undefined;
}

/** How reloads have gone since the start of the process. */
export interface ReloadStats {
  readonly succeeded: number;
  readonly failed: number;
  /** Wall clock: when the last one ended, the start included; absent: none yet. */
  readonly lastAtMs?: number | undefined;
  readonly lastSucceeded: boolean;
}

/** Everything that one scrape is made of, read once so that its numbers belong together. */
export interface MetricsSnapshot {
  readonly version: string;
  /** Undefined before the first revision. */
  readonly state: ForwardingState | undefined;
  readonly probes: readonly ProbeStatus[];
  /** Undefined: no data worker answered in time. */
  readonly counters: PlaneCounters | undefined;
  readonly flowLog: LineWriterStats | undefined;
  /** Those that are raised now. */
  readonly healthEvents: readonly Pick<HealthEvent, 'name' | 'subject'>[];
  readonly reloads: ReloadStats | undefined;
  readonly kernel: KernelReport | undefined;
  /** Values of the labels `pool` and `backend` for a backend id. */
  readonly backend: (backendId: string) => readonly [pool: string, backend: string];
}

/** Values of the labels, in their order, and then the value of the series. */
type Row<L extends readonly string[], V> = readonly [...{ readonly [K in keyof L]: string }, V];

export interface Metric {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  /** Their values come from the configuration or from closed lists, never from a client. */
  readonly labels: readonly string[];
  readonly help: string;
  /** Rows with the same labels are added up. No rows: the metric is absent. */
  readonly rows: (snapshot: MetricsSnapshot) => readonly (readonly unknown[])[];
  /** What only the reference page says: values of labels, exceptions. */
  readonly note?: string | undefined;
}

/** Metrics that belong together on the reference page. */
export interface MetricSection {
  readonly title: string;
  readonly about?: string;
  readonly metrics: readonly Metric[];
}

/**
 * A counter where the name ends in `_total`, else a gauge. To add a metric, add one of these and run `npm run generate`: the
 * reference page and the dashboard follow.
 */
function metric<const L extends readonly string[]>(
  name: string,
  labels: L,
  help: string,
  rows: (snapshot: MetricsSnapshot) => readonly Row<L, number>[],
  note?: string,
): Metric {
  return { name, type: name.endsWith('_total') ? 'counter' : 'gauge', labels, help, rows, note };
}

function histogram<const L extends readonly string[]>(
  name: string,
  labels: L,
  help: string,
  rows: (snapshot: MetricsSnapshot) => readonly Row<L, LatencyHistogram>[],
): Metric {
  return { name, type: 'histogram', labels, help, rows };
}

const TRAFFIC = ['rule', 'pool', 'backend', 'protocol'] as const;
const ARRIVALS = ['frontend', 'rule', 'protocol'] as const;
const PROBE = ['pool', 'backend', 'probe'] as const;

/** One series without labels; undefined: none. */
function single(
  name: string,
  help: string,
  value: (snapshot: MetricsSnapshot) => number | undefined,
  note?: string,
): Metric {
  const rows = (s: MetricsSnapshot): readonly Row<[], number>[] => {
    const found = value(s);
    return found === undefined ? [] : [[found]];
  };
  return metric(name, [], help, rows, note);
}

/** A series for each rule, backend and protocol. */
function perFlowRow(name: string, help: string, value: (row: TrafficCounters) => number): Metric {
  return metric(name, TRAFFIC, help, (s) => traffic(s).map((row) => [...flowLabels(s, row), value(row)]));
}

function perDirection(
  name: string,
  help: string,
  values: (row: TrafficCounters) => readonly [toBackend: number, toClient: number],
): Metric {
  const rows = (s: MetricsSnapshot) =>
    traffic(s).flatMap((row) => {
      const [toBackend, toClient] = values(row);
      const labels = flowLabels(s, row);
      return [[...labels, 'to_backend', toBackend] as const, [...labels, 'to_client', toClient] as const];
    });
  const note = '`direction`: `to_backend`, `to_client`';
  return metric(name, [...TRAFFIC, 'direction'], help, rows, note);
}

/** A series for each probe of a backend and each word that it is counted by. */
function perProbeCount(
  name: string,
  word: string,
  help: string,
  counts: (probe: ProbeStatus) => Readonly<Record<string, number>> | undefined,
  note: string,
): Metric {
  const rows = (s: MetricsSnapshot) =>
    s.probes.flatMap((probe) =>
      Object.entries(counts(probe) ?? {}).map(
        ([found, count]) => [...s.backend(probe.backendId), probe.probe, found, count] as const,
      ),
    );
  return metric(name, [...PROBE, word], help, rows, note);
}

/** A series for each backend as each probe sees it. */
function perMember(name: string, help: string, value: (member: BackendState) => number): Metric {
  return metric(name, PROBE, help, (s) => members(s).map(([labels, member]) => [...labels, value(member)]));
}

function perPool(name: string, help: string, value: (view: PoolView) => number): Metric {
  return metric(name, ['pool', 'probe'], help, ({ state }) =>
    (state?.views ?? []).map((view) => [view.pool.name, view.probe?.name ?? '', value(view)]),
  );
}

function perFrontend(name: string, help: string, value: (use: ListenerUse) => number): Metric {
  return metric(name, ['frontend'], help, ({ counters }) =>
    Object.entries(counters?.listeners ?? {}).map(([frontend, use]) => [frontend, value(use)]),
  );
}

function perTable(name: string, help: string, value: (use: TableUse) => number): Metric {
  const rows = ({ counters }: MetricsSnapshot) =>
    Object.entries(counters?.table ?? {}).map(([table, use]) => [table, value(use)] as const);
  return metric(name, ['table'], help, rows, '`table`: `tcp`, `udp`, `embryonic`');
}

function perSourcePorts(name: string, help: string, value: (use: SourcePortUse) => number): Metric {
  const labels = ['pool', 'backend', 'protocol', 'source_address'] as const;
  return metric(name, labels, help, ({ counters, backend }) =>
    (counters?.sourcePorts ?? []).map((use) => {
      return [...backend(use.backendId), use.protocol, use.sourceAddress, value(use)];
    }),
  );
}

/** A series for each backend and IP protocol without ports. */
function perOtherFlows(name: string, help: string, key: 'opened' | 'active'): Metric {
  const rows = ({ counters, backend }: MetricsSnapshot) =>
    (counters?.kernelFlows?.otherFlows ?? []).map((row) => {
      const protocol = PROTOCOL_NAMES[row.protocol] ?? String(row.protocol);
      return [...backend(row.backendId), protocol, row[key]] as const;
    });
  const note = '`protocol`: `icmp`, `gre`, `esp` ..., or its number';
  return metric(name, ['pool', 'backend', 'protocol'], help, rows, note);
}

/** Every metric that haports itself exports; `process_*` and `nodejs_*` of the control process come on top. */
export const METRICS: readonly MetricSection[] = [
  {
    title: 'Flows and traffic',
    metrics: [
      perFlowRow('haports_flows_active', 'Flows in the flow table', (row) => row.flowsActive),
      perFlowRow('haports_flows_opened_total', 'Flows placed on a backend', (row) => row.flowsOpened),
      metric(
        'haports_flows_ended_total',
        [...TRAFFIC, 'reason'],
        'Flows ended, by reason',
        (s) =>
          traffic(s).flatMap((row) =>
            Object.entries(row.flowsEnded).map(
              ([reason, count]) => [...flowLabels(s, row), reason, count] as const,
            ),
          ),
        '`reason`: `closed`, `client-reset`, `backend-reset`, `reset` (kernel data plane: by either), `idle`, ' +
          '`probe-down`, `admin-down`, `removed`, `drain-deadline`, `rule-removed`, `no-backend`, `connect-failed`, ' +
          '`embryonic-timeout`, `responses-complete`, `bad-proxy-header`, `shutdown`, `error`',
      ),
      perDirection('haports_flow_bytes_total', 'Payload bytes carried, by direction', (row) => [
        row.bytesToBackend,
        row.bytesToClient,
      ]),
      perDirection(
        'haports_flow_packets_total',
        'Datagrams (UDP) or reads (TCP) carried, by direction',
        (row) => [row.packetsToBackend, row.packetsToClient],
      ),
      perFlowRow(
        'haports_resets_total',
        'RST received from either side, or sent for idleness or policy',
        (row) => row.resets,
      ),
      perFlowRow(
        'haports_connect_retries_total',
        'New TCP flows that had to try another backend after this one',
        (row) => row.connectRetries,
      ),
      perFlowRow(
        'haports_connect_failures_total',
        'Attempts to connect to this backend that failed',
        (row) => row.connectFailures,
      ),
      histogram(
        'haports_connect_duration_seconds',
        ['pool', 'backend'],
        'Time from the first attempt to connect upstream until connected',
        (s) => connectTimes(s).map(([backendId, histogram]) => [...s.backend(backendId), histogram]),
      ),
      metric(
        'haports_upstream_connections_total',
        ['pool', 'backend', 'protocol', 'outcome'],
        'Upstream sockets wanted from our own address, by outcome',
        upstreamConnections,
        '`outcome`: `succeeded`, `failed`',
      ),
      metric(
        'haports_arrivals_total',
        ARRIVALS,
        'TCP connections accepted, or first datagrams of UDP flows',
        (s) => arrivals(s).map(([labels, row]) => [...labels, row.arrivals]),
        'kernel data plane: the first packets of flows that found a backend, answered or not',
      ),
      metric(
        'haports_drops_total',
        [...ARRIVALS, 'reason'],
        'Connections or datagrams that got no flow or were thrown away, by reason',
        (s) =>
          arrivals(s).flatMap(([labels, row]) =>
            Object.entries(row.drops).map(([reason, count]) => [...labels, reason, count] as const),
          ),
        `\`reason\`: ${DROP_REASONS.map((reason) => `\`${reason}\``).join(', ')}; absent on the kernel data plane, ` +
          'where what the ruleset refuses never is a flow',
      ),
      metric(
        'haports_rule_distinct_sources',
        ['rule'],
        'Estimate of distinct client addresses since the data plane started',
        distinctSources,
        'about 3 % off',
      ),
      metric(
        'haports_backend_last_flow_timestamp_seconds',
        ['pool', 'backend'],
        'When the backend got its last new flow',
        lastFlows,
        'absent before the first',
      ),
    ],
  },
  {
    title: 'Health',
    about: '`probe` is empty for rules without one.',
    metrics: [
      metric(
        'haports_probe_up',
        PROBE,
        'Whether the probe finds the backend up: 1 up, 0 down or not known yet',
        (s) =>
          s.probes.map(({ backendId, probe, health }) => [
            ...s.backend(backendId),
            probe,
            bit(health === 'up'),
          ]),
      ),
      perProbeCount(
        'haports_probe_transitions_total',
        'to',
        'Changes of probe state, by what it changed to',
        ({ transitions }) => transitions,
        '`to`: `up`, `down`',
      ),
      perProbeCount(
        'haports_probe_results_total',
        'verdict',
        'Probes done, by verdict',
        ({ results }) => results,
        '`verdict`: `success`, `failure`',
      ),
      metric('haports_probe_duration_seconds', PROBE, 'How long the last probe took', (s) =>
        s.probes.flatMap(({ backendId, probe, lastDurationMs: ms }) =>
          ms === undefined ? [] : [[...s.backend(backendId), probe, ms / 1000] as const],
        ),
      ),
      perMember(
        'haports_backend_eligible',
        'Whether the backend may get new flows, probe and admin state taken together',
        ({ eligible }) => bit(eligible),
      ),
      perMember(
        'haports_backend_serving',
        'Whether the backend is in the table: eligible, and in the serving priority group',
        ({ serving }) => bit(serving),
      ),
      perMember(
        'haports_backend_weight',
        'Weight that the table was built with',
        ({ effectiveWeight }) => effectiveWeight,
      ),
      metric(
        'haports_backend_admin_state',
        [...PROBE, 'state'],
        'Admin state of the backend: 1 for the one it is in',
        (s) => members(s).map(([labels, { adminState }]) => [...labels, adminState, 1]),
        '`state`: `none`, `up`, `down`',
      ),
      perPool('haports_pool_backends', 'Backends in the pool', ({ backends }) => backends.length),
      perPool(
        'haports_pool_eligible_backends',
        'Backends of the pool that may get new flows',
        ({ backends }) => backends.filter(({ eligible }) => eligible).length,
      ),
    ],
  },
  {
    title: 'Configuration',
    about: 'The `_info` metrics are there to join others with, by `* on (...) group_left (...)`.',
    metrics: [
      metric('haports_build_info', ['version', 'node'], 'Always 1; the version is in the labels', (s) => [
        [s.version, process.version, 1],
      ]),
      metric(
        'haports_config_info',
        ['digest'],
        'Always 1; the digest of the configuration in use is in the label',
        ({ state }) => (state === undefined ? [] : [[state.configuration.digest, 1]]),
      ),
      metric(
        'haports_frontend_info',
        ['frontend', 'address'],
        'Always 1; the address of the frontend is in the label',
        ({ state }) =>
          (state?.configuration.frontends ?? []).map(({ name, address }) => [name, address.text, 1]),
      ),
      metric(
        'haports_backend_info',
        ['pool', 'backend', 'address'],
        'Always 1; the address of the backend is in the label',
        ({ state }) =>
          (state?.configuration.backendPools ?? []).flatMap(({ name: pool, backends }) =>
            backends.map(({ name, address }) => [pool, name, address.text, 1] as const),
          ),
      ),
      metric(
        'haports_rule_info',
        ['rule', 'frontend', 'pool', 'distribution'],
        'Always 1; what the rule balances, and by which fields of a flow, is in the labels',
        ({ state }) =>
          (state?.configuration.rules ?? []).map((rule) => {
            return [rule.name, rule.frontend.name, rule.pool.name, rule.distribution, 1];
          }),
        '`distribution`: `five-tuple`, `source-ip-protocol`, `source-ip`',
      ),
      metric(
        'haports_reloads_total',
        ['outcome'],
        'Reloads of the configuration, by outcome',
        ({ reloads }) =>
          (['succeeded', 'failed'] as const).flatMap((key) => (reloads ? [[key, reloads[key]]] : [])),
        '`outcome`: `succeeded`, `failed`',
      ),
      single(
        'haports_config_last_reload_timestamp_seconds',
        'When a configuration was last activated or refused, the start included',
        ({ reloads }) => (reloads?.lastAtMs === undefined ? undefined : reloads.lastAtMs / 1000),
      ),
      single(
        'haports_config_last_reload_success',
        'Whether that configuration was activated: 1 yes, 0 refused and the previous one stays active',
        ({ reloads }) => (reloads?.lastAtMs === undefined ? undefined : bit(reloads.lastSucceeded)),
      ),
    ],
  },
  {
    title: 'Operation',
    metrics: [
      metric(
        'haports_health_event_active',
        ['name', 'subject'],
        'Health events that are raised: always 1, absent once resolved',
        ({ healthEvents }) => healthEvents.map(({ name, subject }) => [name, subject, 1]),
        '`subject`: a frontend, pool, rule or backend id; see [health events](../health-events.md)',
      ),
      metric(
        'haports_drain_flows',
        ['pool', 'backend'],
        'Flows left on a backend that is being drained',
        drainFlows,
        'absent otherwise',
      ),
    ],
  },
  {
    title: 'Data plane and process',
    metrics: [
      single(
        'haports_forwarding_revision',
        'Revision of the forwarding state, the epoch of the flow log',
        ({ state }) => state?.revision,
      ),
      single(
        'haports_data_plane_up',
        'Whether a data worker answered this scrape within a second',
        ({ counters }) => bit(counters !== undefined),
      ),
      metric(
        'haports_data_path_availability_ratio',
        ['frontend'],
        'Listeners open of those wanted; 0 where no data worker answered within a second',
        availability,
      ),
      perFrontend('haports_listeners_open', 'Sockets that listen on the frontend', ({ open }) => open),
      perFrontend(
        'haports_listeners_wanted',
        'Sockets that should listen on the frontend',
        ({ wanted }) => wanted,
      ),
      perTable('haports_flow_table_used', 'Entries of the flow table in use, by budget', ({ used }) => used),
      perTable(
        'haports_flow_table_limit',
        'Entries that the flow table may hold, by budget',
        ({ limit }) => limit,
      ),
      perSourcePorts(
        'haports_source_ports_used',
        'Local ports in use towards the backend, where haports chooses them',
        ({ used }) => used,
      ),
      perSourcePorts(
        'haports_source_ports_available',
        'Local ports that upstream sockets to the backend may use, those in use included',
        ({ available }) => available,
      ),
      metric(
        'haports_event_loop_delay_seconds',
        ['worker'],
        'Worst event-loop delay of a data worker in the last 15 to 30 seconds',
        ({ counters }) =>
          (counters?.eventLoopDelaySeconds ?? [])
            .map((seconds, worker) => [String(worker), seconds] as const)
            .filter(([, seconds]) => !Number.isNaN(seconds)),
        'absent while the worker is being replaced',
      ),
      single(
        'haports_workers_lost_total',
        'Data workers that died and were replaced',
        ({ counters }) => counters?.workersLost,
      ),
      single(
        'haports_flow_log_lines_total',
        'Lines written to the flow log',
        ({ flowLog }) => flowLog?.linesWritten,
      ),
      single(
        'haports_flow_log_lost_lines_total',
        'Lines lost because the flow log could not be written in time',
        ({ flowLog }) => flowLog?.linesLost,
      ),
      single(
        'haports_flow_log_write_errors_total',
        'Failed writes to the flow log',
        ({ flowLog }) => flowLog?.writeErrors,
      ),
    ],
  },
  {
    title: 'What haports keeps in the kernel',
    about: 'Absent on the userspace data plane without capture.',
    metrics: [
      single(
        'haports_kernel_in_place',
        'Whether the nft table, routes and addresses were as they should be when last looked at',
        ({ kernel }) => (kernel === undefined ? undefined : bit(kernel.state === 'in-place')),
      ),
      single(
        'haports_kernel_repairs_total',
        'Times that the nft table, routes or addresses were found lost or altered, and repaired',
        ({ kernel }) => kernel?.repairs,
      ),
      single(
        'haports_kernel_failures_total',
        'Changes of the kernel that failed',
        ({ kernel }) => kernel?.failures,
      ),
    ],
  },
  {
    title: 'Flows of the kernel data plane',
    about: 'Absent on the userspace data plane.',
    metrics: [
      single(
        'haports_conntrack_entries',
        "Flows in the kernel's connection tracking, those of other programs included",
        ({ counters }) => counters?.kernelFlows?.conntrack?.used,
        'a warning is logged at 75 % of the limit',
      ),
      single(
        'haports_conntrack_limit',
        "Flows that the kernel's connection tracking may hold (nf_conntrack_max)",
        ({ counters }) => counters?.kernelFlows?.conntrack?.limit,
      ),
      single(
        'haports_unlisted_flows',
        'Live flows that are forwarded and counted but not listed, since there are more than limits say',
        ({ counters }) => counters?.kernelFlows?.unlisted,
      ),
      single(
        'haports_flow_event_gaps_total',
        "Times that events of the kernel's flows were lost, and all flows were listed again",
        ({ counters }) => counters?.kernelFlows?.gaps,
        'flows that came and went in between are missing',
      ),
      perOtherFlows('haports_other_flows_active', 'Live flows of protocols without ports', 'active'),
      perOtherFlows(
        'haports_other_flows_opened_total',
        'Flows of protocols without ports placed on the backend',
        'opened',
      ),
    ],
  },
];

type ListenerUse = PlaneCounters['listeners'][string];

/** Protocols that are balanced without ports, by IANA number; others are shown by number. */
const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  ...{ 1: 'icmp', 4: 'ipip', 41: 'ipv6', 47: 'gre', 50: 'esp', 51: 'ah', 58: 'icmpv6', 132: 'sctp' },
};

function bit(value: boolean): number {
  return value ? 1 : 0;
}

function traffic({ counters }: MetricsSnapshot): readonly TrafficCounters[] {
  return counters?.traffic ?? [];
}

function flowLabels({ backend }: MetricsSnapshot, row: TrafficCounters) {
  return [row.rule, ...backend(row.backendId), row.protocol] as const;
}

function connectTimes({ counters }: MetricsSnapshot) {
  return Object.entries(counters?.connectSeconds ?? {});
}

/** Azure's SNAT connection count. A UDP flow has its own connected socket, so each one opened is one connection. */
function upstreamConnections(s: MetricsSnapshot) {
  return [
    ...connectTimes(s).map(([id, { count }]) => [...s.backend(id), 'tcp', 'succeeded', count] as const),
    ...traffic(s).flatMap(({ backendId, protocol, connectFailures, flowsOpened }) => {
      const failed = [...s.backend(backendId), protocol, 'failed', connectFailures] as const;
      const succeeded = [...s.backend(backendId), protocol, 'succeeded', flowsOpened] as const;
      return protocol === 'udp' ? [failed, succeeded] : [failed];
    }),
  ];
}

function arrivals({ state, counters }: MetricsSnapshot) {
  const frontends = new Map(
    state?.configuration.rules.map(({ name, frontend }) => [name, frontend.name] as const),
  );
  // A rule that was removed no longer names its frontend.
  return (counters?.arrivals ?? []).map(
    (row) => [[frontends.get(row.rule) ?? '', row.rule, row.protocol], row] as const,
  );
}

function distinctSources({ counters }: MetricsSnapshot) {
  const sketches = new Map<string, Uint8Array>();
  for (const { rule, sourceSketch } of counters?.arrivals ?? []) {
    if (sourceSketch === undefined) continue;
    const other = sketches.get(rule);
    sketches.set(rule, other === undefined ? sourceSketch : mergeSketches(other, sourceSketch));
  }
  return [...sketches].map(([rule, sketch]) => [rule, Math.round(estimateSources(sketch))] as const);
}

function lastFlows(s: MetricsSnapshot) {
  const lastAtMs = new Map<string, number>();
  for (const { backendId, lastFlowAtMs: atMs } of traffic(s)) {
    if (atMs !== undefined) lastAtMs.set(backendId, Math.max(lastAtMs.get(backendId) ?? 0, atMs));
  }
  return [...lastAtMs].map(([backendId, atMs]) => [...s.backend(backendId), atMs / 1000] as const);
}

function members({ state }: MetricsSnapshot) {
  return (state?.views ?? []).flatMap(({ pool, probe, backends }) =>
    backends.map((member) => [[pool.name, member.backend.name, probe?.name ?? ''], member] as const),
  );
}

function drainFlows(s: MetricsSnapshot) {
  if (s.counters === undefined) return [];
  const draining = new Set(
    members(s).flatMap(([, { backend, exclusion }]) => (exclusion === 'draining' ? [backend.id] : [])),
  );
  return [...draining].map((id) => {
    const left = traffic(s).filter(({ backendId }) => backendId === id);
    return [...s.backend(id), left.reduce((sum, { flowsActive }) => sum + flowsActive, 0)] as const;
  });
}

/** Azure's data path availability. A frontend that wants no listeners has none. */
function availability({ state, counters }: MetricsSnapshot) {
  if (counters === undefined) {
    const frontends = new Set(state?.configuration.rules.map(({ frontend }) => frontend.name));
    return [...frontends].map((frontend) => [frontend, 0] as const);
  }
  return Object.entries(counters.listeners).flatMap(([frontend, { open, wanted }]) =>
    wanted === 0 ? [] : [[frontend, open / wanted] as const],
  );
}
