import { METRICS, type Metric } from '../src/observe/metric-table.js';

const INTRODUCTION = `# Metrics

<!-- Written by \`npm run generate\` from src/observe/metric-table.ts; edit that, and tools/metrics-page.ts. -->

\`GET /metrics\` on \`metrics.listen\` gives the Prometheus text format 0.0.4. \`GET /healthz\` is 200 while the control
loop and every data worker answer within 2 s. \`GET /readyz\` is 200 once a forwarding state has been applied, at least one
listener is open, the process is not stopping and, with capture, its table is in the kernel; its \`status\` is \`degraded\`
instead of \`ok\` while flows are refused for want of table entries, descriptors or ports. Both answer 503 with the
reasons otherwise (RFC 9457 JSON).

Rules that hold for every metric:

- **Labels are bounded.** Their values are names from the configuration, or words from a closed list. Nothing that a
  client chooses (address, port) becomes a label. The number of series grows with rules x backends x protocols.
- **Counters are totals since the data plane started**; they start again at 0 with it. A series appears with its
  first event.
- **A scrape is one moment.** If a data worker does not answer within a second, the scrape still succeeds: series that
  need it are absent, \`haports_data_plane_up\` and \`haports_data_path_availability_ratio\` are 0.
- A backend that was removed but still has flows is shown by its address instead of its name.
- Seconds and bytes, no other units. Bytes are payload, without IP, TCP and UDP headers; on the kernel data plane they
  are whole packets, as conntrack counts them, and stay 0 while \`net.netfilter.nf_conntrack_acct\` is 0.

\`process_*\` and \`nodejs_*\` are prom-client's default metrics of the control process.

A [Grafana dashboard](../../deploy/grafana/haports.json) and [alert rules](../../deploy/prometheus/alerts.yml) come with
haports.
`;

/** Azure's metric, the same here, the difference, and the recording rule in deploy/prometheus/azure.yml. */
const AZURE: readonly (readonly [azure: string, here: string, difference: string, rule: string])[] = [
  [
    'Data path availability (`VipAvailability`)',
    '`haports_data_path_availability_ratio`',
    'Azure probes the frontend in band; here it is the share of wanted listeners that are open in a worker that answered within a second',
    'haports_azure_vip_availability',
  ],
  [
    'Health probe status (`DipAvailability`)',
    '`haports_probe_up`; with the admin state, as Azure shows it: `haports_backend_eligible`',
    'the average over a pool is the aggregate',
    'haports_azure_dip_availability',
  ],
  [
    'SYN count (`SYNCount`)',
    '`haports_arrivals_total{protocol="tcp"}`',
    'counts completed handshakes: the kernel answers the SYN',
    'haports_azure_syn_count_total',
  ],
  [
    'Byte count (`ByteCount`)',
    '`haports_flow_bytes_total`',
    'payload only; `direction` as in Azure',
    'haports_azure_byte_count_total',
  ],
  [
    'Packet count (`PacketCount`)',
    '`haports_flow_packets_total`',
    'UDP: datagrams. TCP: chunks read, since a proxy sees no segments',
    'haports_azure_packet_count_total',
  ],
  [
    'SNAT connection count (`SnatConnectionCount`)',
    '`haports_upstream_connections_total`',
    '`outcome` is Azure\'s connection state; flows refused for want of a port are `haports_drops_total{reason="ports-exhausted"}`',
    'haports_azure_snat_connection_count_total',
  ],
  [
    'Allocated SNAT ports (`AllocatedSnatPorts`)',
    '`haports_source_ports_available`',
    'only where haports chooses the ports: UDP, and TCP with `sourceAddresses`',
    'haports_azure_allocated_snat_ports',
  ],
  [
    'Used SNAT ports (`UsedSnatPorts`)',
    '`haports_source_ports_used`',
    "as above; events at 75 % and at the end, as Azure's HighSnatPortUsage and SnatPortExhaustion",
    'haports_azure_used_snat_ports',
  ],
];

const AZURE_INTRODUCTION = `## Azure's names

For dashboards and alerts that come from Azure, Prometheus can record these metrics under Azure's names and dimensions, in
its units (availability in percent), added up per frontend or backend: load
[deploy/prometheus/azure.yml](../../deploy/prometheus/azure.yml) as a rule file. \`protocol_type\`: \`TCP\`, \`UDP\`;
\`direction\`: \`In\`, \`Out\`; \`connection_state\`: \`Successful\`, \`Failed\`.
`;

function code(text: string): string {
  return `\`${text}\``;
}

function tableOf(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`;
  return line(columns) + line(columns.map(() => '-')) + rows.map(line).join('');
}

function row({ name, type, labels, help, note }: Metric): readonly string[] {
  return [code(name), type, labels.map(code).join(', '), note === undefined ? help : `${help}; ${note}`];
}

/** The whole page, not formatted yet. */
export function metricsPage(): string {
  const sections = METRICS.map(({ title, about, metrics }) => {
    const table = tableOf(['metric', 'type', 'labels', 'meaning'], metrics.map(row));
    return `## ${title}\n\n${about === undefined ? '' : `${about}\n\n`}${table}`;
  });
  const azure = AZURE.map(([name, here, difference, rule]) => [name, here, difference, code(rule)]);
  const azureTable = tableOf(['Azure Load Balancer', 'here', 'difference', 'recorded as'], azure);
  return [INTRODUCTION, ...sections, `${AZURE_INTRODUCTION}\n${azureTable}`].join('\n');
}
