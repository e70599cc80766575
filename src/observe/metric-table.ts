import { estimateSources, mergeSketches } from '../flows/traffic.js';
import type { HealthState, LocalCause } from '../model/configuration.js';
import { DROP_REASONS, type HealthEvent, type KernelReport } from '../model/events.js';
import type { ForwardingState } from '../model/forwarding.js';
import type { LatencyHistogram, PlaneCounters } from '../planes/contract.js';
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
  /** Probes that could not leave this machine, by cause; they are not among the results. */
  readonly inconclusive?: Readonly<Partial<Record<LocalCause, number>>> | undefined;
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

/** What the control process knows when it is scraped. */
export interface MetricsFacts {
  /** Undefined before the first revision. */
  readonly state: ForwardingState | undefined;
  readonly probes: readonly ProbeStatus[];
  /** Absent: no flow log is written. */
  readonly flowLog?: LineWriterStats | undefined;
  /** Those that are raised now; absent: none are looked for. */
  readonly healthEvents?: readonly Pick<HealthEvent, 'name' | 'subject'>[];
  /** Absent: not counted. */
  readonly reloads?: ReloadStats;
  /** Absent: the plane keeps nothing in the kernel. */
  readonly kernel?: KernelReport | undefined;
}

/** Everything that one scrape is made of, read once so that its numbers belong together. */
export interface MetricsSnapshot extends MetricsFacts {
  readonly version: string;
  /** Undefined: no data worker answered in time. */
  readonly counters: PlaneCounters | undefined;
  /** Values of the labels `pool` and `backend` for a backend id. */
  readonly backend: (backendId: string) => readonly [pool: string, backend: string];
}

/** One metric, with what gives its series. */
export interface Metric {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  /** Their values come from the configuration or from closed lists, never from a client. */
  readonly labels: readonly string[];
  readonly help: string;
  /** Values of the labels, in their order, and the value. Series with the same labels are added up. */
  readonly series: (
    snapshot: MetricsSnapshot,
  ) => readonly (readonly [readonly string[], number | LatencyHistogram])[];
  /** What only the reference page says: values of labels, exceptions. */
  readonly note?: string | undefined;
}

/** Metrics that belong together on the reference page. */
export interface MetricSection {
  readonly title: string;
  readonly about?: string;
  readonly metrics: readonly Metric[];
}

/** Values of these labels, and what the value of a series is made from. */
type Item<L extends readonly string[], T> = readonly [{ readonly [K in keyof L]: string }, T];

/** Where the value of a series comes from: a member of the item that is a number, or a function. Undefined: no series. */
type Value<T> =
  | { [K in keyof T & string]: T[K] extends number ? K : never }[keyof T & string]
  | ((from: T) => number | undefined);

/**
 * Metrics with the same labels, made from the same items: by name, the help, the value and the note. Those whose names
 * end in `_total` are counters, the others gauges. To add a metric, add a line to one of these and run
 * `npm run generate`: the reference page and the dashboard follow.
 */
function family<const L extends readonly string[], T>(
  labels: L,
  items: (snapshot: MetricsSnapshot) => readonly Item<NoInfer<L>, T>[],
  metrics: Readonly<Record<string, readonly [help: string, value: Value<NoInfer<T>>, note?: string]>>,
): readonly Metric[] {
  return Object.entries(metrics).map(([name, [help, value, note]]) => ({
    ...{ name, type: name.endsWith('_total') ? 'counter' : 'gauge', labels, help, note },
    series: (snapshot) =>
      items(snapshot).flatMap(([values, from]) => {
        const found = typeof value === 'function' ? value(from) : (from[value] as number);
        return found === undefined ? [] : [[values, found]];
      }),
  }));
}

const TRAFFIC = ['rule', 'pool', 'backend', 'protocol'] as const;
const BACKEND = ['pool', 'backend'] as const;
const PROBE = ['pool', 'backend', 'probe'] as const;

/** The one series of metrics without labels. */
const single = (s: MetricsSnapshot): readonly Item<[], MetricsSnapshot>[] => [[[], s]];

/** The value of an item that is a number. */
const given = (value: number): number => value;

const END_REASONS =
  '`reason`: `closed`, `client-reset`, `backend-reset`, `reset` (kernel data plane: by either), `idle`, ' +
  '`probe-down`, `admin-down`, `removed`, `drain-deadline`, `rule-removed`, `no-backend`, `connect-failed`, ' +
  '`refused` (by the backend, at one of many ports), `embryonic-timeout`, `responses-complete`, `evicted`, ' +
  '`bad-proxy-header`, `shutdown`, `error`';

const FLOWS = [
  family(TRAFFIC, flowRows, {
    haports_flows_active: ['Flows in the flow table', 'flowsActive'],
    haports_flows_opened_total: ['Flows placed on a backend', 'flowsOpened'],
    haports_resets_total: ['RST received from either side, or sent for idleness or policy', 'resets'],
    haports_connect_retries_total: [
      'New TCP flows that had to try another backend after this one',
      'connectRetries',
    ],
    haports_connect_failures_total: ['Attempts to connect to this backend that failed', 'connectFailures'],
  }),
  family(
    [...TRAFFIC, 'reason'],
    (s: MetricsSnapshot) => byWord(flowRows(s), ({ flowsEnded }) => flowsEnded),
    {
      haports_flows_ended_total: ['Flows ended, by reason', given, END_REASONS],
    },
  ),
  family([...TRAFFIC, 'direction'], directions, {
    haports_flow_bytes_total: [
      'Payload bytes carried, by direction',
      'bytes',
      '`direction`: `to_backend`, `to_client`',
    ],
    haports_flow_packets_total: ['Datagrams (UDP) or reads (TCP) carried, by direction', 'packets'],
  }),
  {
    ...{ name: 'haports_connect_duration_seconds', type: 'histogram', labels: BACKEND },
    help: 'Time from the first attempt to connect upstream until connected',
    series: connectTimes,
  } satisfies Metric,
  family([...BACKEND, 'protocol', 'outcome'], upstreamConnections, {
    haports_upstream_connections_total: [
      'Upstream sockets wanted from our own address, by outcome',
      given,
      '`outcome`: `succeeded`, `failed`',
    ],
  }),
  family(['frontend', 'rule', 'protocol'], arrivals, {
    haports_arrivals_total: [
      'TCP connections accepted, or first datagrams of UDP flows',
      'arrivals',
      'kernel data plane: the first packets of flows that found a backend, answered or not',
    ],
  }),
  family(
    ['frontend', 'rule', 'protocol', 'reason'],
    (s: MetricsSnapshot) => byWord(arrivals(s), ({ drops }) => drops),
    {
      haports_drops_total: [
        'Connections or datagrams that got no flow or were thrown away, by reason',
        given,
        `\`reason\`: ${DROP_REASONS.map((reason) => `\`${reason}\``).join(', ')}; absent on the kernel data plane, ` +
          'where what the ruleset refuses never is a flow',
      ],
    },
  ),
  family(['rule'], distinctSources, {
    haports_rule_distinct_sources: [
      'Estimate of distinct client addresses since the data plane started',
      given,
      'about 3 % off',
    ],
  }),
  family(BACKEND, lastFlows, {
    haports_backend_last_flow_timestamp_seconds: [
      'When the backend got its last new flow',
      (atMs) => atMs / 1000,
      'absent before the first',
    ],
  }),
].flat();

const HEALTH = [
  family(PROBE, probes, {
    haports_probe_up: [
      'Whether the probe finds the backend up: 1 up, 0 down or not known yet',
      ({ health }) => bit(health === 'up'),
    ],
    haports_probe_duration_seconds: [
      'How long the last probe took',
      ({ lastDurationMs }) => lastDurationMs && lastDurationMs / 1000,
    ],
  }),
  family([...PROBE, 'to'], (s: MetricsSnapshot) => byWord(probes(s), ({ transitions }) => transitions), {
    haports_probe_transitions_total: [
      'Changes of probe state, by what it changed to',
      given,
      '`to`: `up`, `down`',
    ],
  }),
  family([...PROBE, 'verdict'], (s: MetricsSnapshot) => byWord(probes(s), ({ results = {} }) => results), {
    haports_probe_results_total: ['Probes done, by verdict', given, '`verdict`: `success`, `failure`'],
  }),
  family(
    [...PROBE, 'reason'],
    (s: MetricsSnapshot) => byWord(probes(s), ({ inconclusive = {} }) => inconclusive),
    {
      haports_probe_inconclusive_total: [
        'Probes that could not leave this machine and say nothing about the backend, by reason',
        given,
        '`reason`: `descriptors`, `memory`, `ports`, `source-address`, `forbidden`; absent before the first',
      ],
    },
  ),
  family(PROBE, members, {
    haports_backend_eligible: [
      'Whether the backend may get new flows, probe and admin state taken together',
      ({ eligible }) => bit(eligible),
    ],
    haports_backend_serving: [
      'Whether the backend is in the table: eligible, and in the serving priority group',
      ({ serving }) => bit(serving),
    ],
    haports_backend_weight: ['Weight that the table was built with', 'effectiveWeight'],
  }),
  family(
    [...PROBE, 'state'],
    (s: MetricsSnapshot) => byWord(members(s), ({ adminState }) => ({ [adminState]: 1 })),
    {
      haports_backend_admin_state: [
        'Admin state of the backend: 1 for the one it is in',
        given,
        '`state`: `none`, `up`, `down`',
      ],
    },
  ),
  family(['pool', 'probe'], views, {
    haports_pool_backends: ['Backends in the pool', ({ backends }) => backends.length],
    haports_pool_eligible_backends: [
      'Backends of the pool that may get new flows',
      ({ backends }) => backends.filter(({ eligible }) => eligible).length,
    ],
  }),
].flat();

const CONFIGURATION = [
  family(['version', 'node'], ({ version }: MetricsSnapshot) => [[[version, process.version], 1]], {
    haports_build_info: ['Always 1; the version is in the labels', given],
  }),
  family(
    ['digest'],
    ({ state }: MetricsSnapshot) => (state === undefined ? [] : [[[state.configuration.digest], 1]]),
    {
      haports_config_info: ['Always 1; the digest of the configuration in use is in the label', given],
    },
  ),
  family(['frontend', 'address'], frontendAddresses, {
    haports_frontend_info: ['Always 1; the address of the frontend is in the label', given],
  }),
  family([...BACKEND, 'address'], backendAddresses, {
    haports_backend_info: ['Always 1; the address of the backend is in the label', given],
  }),
  family(['rule', 'frontend', 'pool', 'distribution'], ruleFacts, {
    haports_rule_info: [
      'Always 1; what the rule balances, and by which fields of a flow, is in the labels',
      given,
      '`distribution`: `five-tuple`, `source-ip-protocol`, `source-ip`',
    ],
  }),
  family(['outcome'], ({ reloads }: MetricsSnapshot) => byWord([[[], reloads]], outcomes), {
    haports_reloads_total: [
      'Reloads of the configuration, by outcome',
      given,
      '`outcome`: `succeeded`, `failed`',
    ],
  }),
  family([], single, {
    haports_config_last_reload_timestamp_seconds: [
      'When a configuration was last activated or refused, the start included',
      ({ reloads }) => reloads?.lastAtMs && reloads.lastAtMs / 1000,
    ],
    haports_config_last_reload_success: [
      'Whether that configuration was activated: 1 yes, 0 refused and the previous one stays active',
      ({ reloads }) => (reloads?.lastAtMs === undefined ? undefined : bit(reloads.lastSucceeded)),
    ],
  }),
].flat();

const OPERATION = [
  family(['name', 'subject'], activeHealthEvents, {
    haports_health_event_active: [
      'Health events that are raised: always 1, absent once resolved',
      given,
      '`subject`: a frontend, pool or backend id; see [health events](../health-events.md)',
    ],
  }),
  family(BACKEND, drainFlows, {
    haports_drain_flows: ['Flows left on a backend that is being drained', given, 'absent otherwise'],
  }),
].flat();

const DATA_PLANE = [
  family([], single, {
    haports_forwarding_revision: [
      'Revision of the forwarding state, the epoch of the flow log',
      ({ state }) => state?.revision,
    ],
    haports_data_plane_up: [
      'Whether a data worker answered this scrape within a second',
      ({ counters }) => bit(counters !== undefined),
    ],
    haports_workers_lost_total: [
      'Data workers that died and were replaced',
      ({ counters }) => counters?.workersLost,
    ],
    haports_flow_log_lines_total: ['Lines written to the flow log', ({ flowLog }) => flowLog?.linesWritten],
    haports_flow_log_lost_lines_total: [
      'Lines lost because the flow log could not be written in time',
      ({ flowLog }) => flowLog?.linesLost,
    ],
    haports_flow_log_write_errors_total: [
      'Failed writes to the flow log',
      ({ flowLog }) => flowLog?.writeErrors,
    ],
  }),
  family(['frontend'], availability, {
    haports_data_path_availability_ratio: [
      'Listeners open of those wanted; 0 where no data worker answered within a second',
      given,
    ],
  }),
  family(['frontend'], ({ counters }: MetricsSnapshot) => byName(counters?.listeners), {
    haports_listeners_open: ['Sockets that listen on the frontend', 'open'],
    haports_listeners_wanted: ['Sockets that should listen on the frontend', 'wanted'],
  }),
  family(['table'], ({ counters }: MetricsSnapshot) => byName(counters?.table), {
    haports_flow_table_used: [
      'Entries of the flow table in use, by budget',
      'used',
      '`table`: `tcp`, `udp`, `embryonic`',
    ],
    haports_flow_table_limit: ['Entries that the flow table may hold, by budget', 'limit'],
  }),
  family([], single, {
    haports_flow_descriptors_used: [
      'Files and sockets that flows take: two for TCP, one for UDP',
      ({ counters }) => counters?.descriptors?.used,
    ],
    haports_flow_descriptors_limit: [
      'Files and sockets that flows may take: what the limit leaves beside listeners and a reserve',
      ({ counters }) => counters?.descriptors?.limit,
    ],
  }),
  family([...BACKEND, 'protocol', 'source_address'], sourcePorts, {
    haports_source_ports_used: [
      'Local ports in use towards the backend, where haports chooses them',
      'used',
      '`source_address`: one of our own',
    ],
    haports_source_ports_available: [
      'Local ports that upstream sockets to the backend may use, those in use included',
      'available',
    ],
  }),
  family(['worker'], workerDelays, {
    haports_event_loop_delay_seconds: [
      'Worst event-loop delay of a data worker in the last 15 to 30 seconds',
      given,
      'absent while the worker is being replaced',
    ],
  }),
].flat();

const KERNEL = family([], single, {
  haports_kernel_in_place: [
    'Whether the nft table, routes and addresses were as they should be when last looked at',
    ({ kernel }) => kernel && bit(kernel.state === 'in-place'),
  ],
  haports_kernel_repairs_total: [
    'Times that the nft table, routes or addresses were found lost or altered, and repaired',
    ({ kernel }) => kernel?.repairs,
  ],
  haports_kernel_failures_total: ['Changes of the kernel that failed', ({ kernel }) => kernel?.failures],
});

const KERNEL_FLOWS = [
  family([], single, {
    haports_conntrack_entries: [
      "Flows in the kernel's connection tracking, those of other programs included",
      ({ counters }) => counters?.kernelFlows?.conntrack?.used,
      'a warning is logged at 75 % of the limit',
    ],
    haports_conntrack_limit: [
      "Flows that the kernel's connection tracking may hold (nf_conntrack_max)",
      ({ counters }) => counters?.kernelFlows?.conntrack?.limit,
    ],
    haports_unlisted_flows: [
      'Live flows that are forwarded and counted but not listed, since there are more than limits say',
      ({ counters }) => counters?.kernelFlows?.unlisted,
    ],
    haports_flow_event_gaps_total: [
      "Times that events of the kernel's flows were lost, and all flows were listed again",
      ({ counters }) => counters?.kernelFlows?.gaps,
      'flows that came and went in between are missing',
    ],
  }),
  family([...BACKEND, 'protocol'], otherFlows, {
    haports_other_flows_active: [
      'Live flows of protocols without ports',
      'active',
      '`protocol`: `icmp`, `gre`, `esp` ..., or its number',
    ],
    haports_other_flows_opened_total: ['Flows of protocols without ports placed on the backend', 'opened'],
  }),
].flat();

/** Every metric that haports itself exports; `process_*` and `nodejs_*` of the control process come on top. */
export const METRICS: readonly MetricSection[] = [
  { title: 'Flows and traffic', metrics: FLOWS },
  { title: 'Health', about: '`probe` is empty for rules without one.', metrics: HEALTH },
  {
    title: 'Configuration',
    about: 'The `_info` metrics are there to join others with, by `* on (...) group_left (...)`.',
    metrics: CONFIGURATION,
  },
  { title: 'Operation', metrics: OPERATION },
  { title: 'Data plane and process', metrics: DATA_PLANE },
  {
    title: 'What haports keeps in the kernel',
    about: 'Absent on the userspace data plane without capture.',
    metrics: KERNEL,
  },
  {
    title: 'Flows of the kernel data plane',
    about: 'Absent on the userspace data plane.',
    metrics: KERNEL_FLOWS,
  },
];

function bit(value: boolean): number {
  return value ? 1 : 0;
}

/** An item for each name. */
function byName<T>(record: Readonly<Record<string, T>> = {}): Item<['name'], T>[] {
  return Object.entries(record).map(([name, value]) => [[name], value]);
}

/** For each of these items, one for each word that it counts by; the word is one label more. */
function byWord<L extends readonly string[], T>(
  items: readonly (readonly [L, T])[],
  counts: (from: T) => Readonly<Partial<Record<string, number>>>,
): (readonly [readonly [...L, string], number])[] {
  return items.flatMap(([labels, from]) =>
    Object.entries(counts(from)).map(([word, count = 0]) => [[...labels, word] as const, count] as const),
  );
}

function flowRows({ counters, backend }: MetricsSnapshot) {
  return (counters?.traffic ?? []).map((row) => {
    return [[row.rule, ...backend(row.backendId), row.protocol], row] as const;
  });
}

function directions(s: MetricsSnapshot) {
  return flowRows(s).flatMap(([labels, row]) => {
    const toBackend = { bytes: row.bytesToBackend, packets: row.packetsToBackend };
    const toClient = { bytes: row.bytesToClient, packets: row.packetsToClient };
    return [[[...labels, 'to_backend'], toBackend] as const, [[...labels, 'to_client'], toClient] as const];
  });
}

function connectTimes({ counters, backend }: MetricsSnapshot) {
  return Object.entries(counters?.connectSeconds ?? {}).map(([id, times]) => [backend(id), times] as const);
}

/** Azure's SNAT connection count. A UDP flow has its own connected socket, so each one opened is one connection. */
function upstreamConnections(s: MetricsSnapshot) {
  return [
    ...connectTimes(s).map(([labels, { count }]) => [[...labels, 'tcp', 'succeeded'], count] as const),
    ...flowRows(s).flatMap(([[, ...labels], { protocol, connectFailures, flowsOpened }]) => {
      const failed = [[...labels, 'failed'], connectFailures] as const;
      return protocol === 'tcp' ? [failed] : [failed, [[...labels, 'succeeded'], flowsOpened] as const];
    }),
  ];
}

function arrivals({ state, counters }: MetricsSnapshot) {
  const frontends = new Map(
    state?.configuration.rules.map(({ name, frontend }) => [name, frontend.name] as const),
  );
  // A rule that was removed no longer names its frontend.
  return (counters?.arrivals ?? []).map((row) => {
    return [[frontends.get(row.rule) ?? '', row.rule, row.protocol], row] as const;
  });
}

function distinctSources({ counters }: MetricsSnapshot): Item<['rule'], number>[] {
  const sketches = new Map<string, Uint8Array>();
  for (const { rule, sourceSketch } of counters?.arrivals ?? []) {
    if (sourceSketch === undefined) continue;
    const other = sketches.get(rule);
    sketches.set(rule, other === undefined ? sourceSketch : mergeSketches(other, sourceSketch));
  }
  return [...sketches].map(([rule, sketch]) => [[rule], Math.round(estimateSources(sketch))]);
}

function lastFlows({ counters, backend }: MetricsSnapshot) {
  const lastAtMs = new Map<string, number>();
  for (const { backendId, lastFlowAtMs: atMs } of counters?.traffic ?? []) {
    if (atMs !== undefined) lastAtMs.set(backendId, Math.max(lastAtMs.get(backendId) ?? 0, atMs));
  }
  return [...lastAtMs].map(([id, atMs]) => [backend(id), atMs] as const);
}

function probes({ probes: statuses, backend }: MetricsSnapshot) {
  return statuses.map((status) => [[...backend(status.backendId), status.probe], status] as const);
}

function views({ state }: MetricsSnapshot) {
  return (state?.views ?? []).map((view) => [[view.pool.name, view.probe?.name ?? ''], view] as const);
}

function members(s: MetricsSnapshot) {
  return views(s).flatMap(([[pool, probe], { backends }]) =>
    backends.map((member) => [[pool, member.backend.name, probe], member] as const),
  );
}

function frontendAddresses({ state }: MetricsSnapshot): Item<['frontend', 'address'], number>[] {
  return (state?.configuration.frontends ?? []).map(({ name, address }) => [[name, address.text], 1]);
}

function backendAddresses({ state }: MetricsSnapshot) {
  return (state?.configuration.backendPools ?? []).flatMap(({ name: pool, backends }) =>
    backends.map(({ name, address }) => [[pool, name, address.text], 1] as const),
  );
}

function ruleFacts({ state }: MetricsSnapshot) {
  return (state?.configuration.rules ?? []).map(({ name, frontend, pool, distribution }) => {
    return [[name, frontend.name, pool.name, distribution], 1] as const;
  });
}

function outcomes(reloads: ReloadStats | undefined): Readonly<Record<string, number>> {
  return reloads === undefined ? {} : { succeeded: reloads.succeeded, failed: reloads.failed };
}

function activeHealthEvents({ healthEvents = [] }: MetricsSnapshot): Item<['name', 'subject'], number>[] {
  return healthEvents.map(({ name, subject }) => [[name, subject], 1]);
}

function drainFlows({ state, counters, backend }: MetricsSnapshot) {
  const draining = new Set(
    (state?.views ?? []).flatMap(({ backends }) =>
      backends.flatMap((member) => (member.exclusion === 'draining' ? [member.backend.id] : [])),
    ),
  );
  if (counters === undefined) return [];
  return [...draining].map((id) => {
    const left = counters.traffic.filter(({ backendId }) => backendId === id);
    return [backend(id), left.reduce((sum, { flowsActive }) => sum + flowsActive, 0)] as const;
  });
}

/** Azure's data path availability. A frontend that wants no listeners has none. */
function availability({ state, counters }: MetricsSnapshot): Item<['frontend'], number>[] {
  if (counters === undefined) {
    return [...new Set(state?.configuration.rules.map(({ frontend }) => frontend.name))].map((name) => [
      [name],
      0,
    ]);
  }
  return byName(counters.listeners).flatMap(([labels, { open, wanted }]) =>
    wanted === 0 ? [] : [[labels, open / wanted]],
  );
}

function sourcePorts({ counters, backend }: MetricsSnapshot) {
  return (counters?.sourcePorts ?? []).map((use) => {
    return [[...backend(use.backendId), use.protocol, use.sourceAddress], use] as const;
  });
}

function workerDelays({ counters }: MetricsSnapshot): Item<['worker'], number>[] {
  return (counters?.eventLoopDelaySeconds ?? []).flatMap((seconds, worker) =>
    Number.isNaN(seconds) ? [] : [[[String(worker)], seconds]],
  );
}

/** Protocols that are balanced without ports, by IANA number; others are shown by number. */
const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  ...{ 1: 'icmp', 4: 'ipip', 41: 'ipv6', 47: 'gre', 50: 'esp', 51: 'ah', 58: 'icmpv6', 132: 'sctp' },
};

function otherFlows({ counters, backend }: MetricsSnapshot) {
  return (counters?.kernelFlows?.otherFlows ?? []).map((row) => {
    const protocol = PROTOCOL_NAMES[row.protocol] ?? String(row.protocol);
    return [[...backend(row.backendId), protocol], row] as const;
  });
}
