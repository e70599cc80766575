import type { SourcePortUse } from '../dataplane/data-plane.js';
import type { Protocol } from '../model/five-tuple.js';
import type { Labels, MetricFamily, MetricsSnapshot, Sample } from './metric-family.js';

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
    const isUsed = state?.configuration.rules.some((rule) => rule.frontend === frontend) ?? false;
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
  const { frontends, rules } = state?.configuration ?? { frontends: [], rules: [] };
  const addresses = new Map(frontends.map(({ name, address }) => [name, address.text]));
  const frontendOf = new Map(rules.map(({ name, frontend }) => [name, frontend]));
  return (rule) => {
    const frontend = frontendOf.get(rule) ?? '';
    return { frontend, frontend_ip_address: addresses.get(frontend) ?? '' };
  };
}

/** An id is `pool/address`. */
function backendLabels(backendId: string): Labels {
  const slash = backendId.indexOf('/');
  return { pool: backendId.slice(0, Math.max(0, slash)), backend_ip_address: backendId.slice(slash + 1) };
}
