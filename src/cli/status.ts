import type { BackendPoolView, BackendView, StatusView } from '../api/views.js';
import { clientFor, type LiveOptions } from './client.js';
import { addConnection, type CliCommand } from './command.js';
import { EXIT } from './deps.js';
import { drainSummary } from './operate.js';
import {
  formatAgo,
  formatBitRate,
  formatBytes,
  formatCount,
  formatShare,
  formatSi,
  formatSpan,
  formatTable,
  labelled,
  plural,
  printable,
  printAnswer,
  shorten,
  type LabelledRow,
  type Layout,
  type TableColumn,
} from './output.js';

/** The running process as a whole. */
export const status: CliCommand = {
  name: 'status',
  summary: 'show the running process as a whole: configuration, traffic, table, drains, problems',
  exitCodes: '0 fine; 1 no process answers, or it refused; 2 bad usage',
  define: (command, { deps, run }) =>
    addConnection(command, 'the status as JSON').action(
      run(async (options: LiveOptions) => {
        printAnswer(deps, options, await (await clientFor(deps, options)).status(), formatStatus);
        return EXIT.fine;
      }),
    ),
};

/** A status for people; problems and drains last, where they catch the eye. */
export function formatStatus(view: StatusView, { nowMs, width }: Layout): readonly string[] {
  const { configuration, table, traffic, backends, drains, problems, workers } = view;
  const { lastReload } = configuration;
  const lost = view.workersLost > 0 ? `, ${plural(view.workersLost, 'worker')} lost so far` : '';
  const reload =
    lastReload &&
    `${formatAgo(lastReload.atMs, nowMs)}, ${lastReload.ok ? 'applied' : 'refused'}: ${lastReload.message}`;
  const transferred = (bitsPerSecond: number, bytes: number): string =>
    `${formatBitRate(bitsPerSecond)}, ${formatBytes(bytes)} in all`;
  return labelled(
    [
      ['haports', `${view.version}, pid ${view.pid}, up ${formatSpan(nowMs - view.startedAtMs)}`],
      ['Workers', `${workers === 0 ? 'none: all in one process' : formatCount(workers)}${lost}`],
      [
        'Configuration',
        `${configuration.source}, digest ${configuration.digest.slice(0, 12)}, loaded ${formatAgo(configuration.loadedAtMs, nowMs)}`,
      ],
      ['Last reload', reload ?? 'none yet'],
      ['Revision', String(view.revision)],
      ['Listeners', listenerText(view)],
      ['Backends', `${backends.serving} of ${backends.total} serving`],
      [
        'Flows',
        `${formatCount(traffic.flowsActive)} live, ${formatSi(traffic.newFlowsPerSecond)} new a second, ${formatCount(traffic.flowsOpened)} in all`,
      ],
      ['To backends', transferred(traffic.bitsToBackendPerSecond, traffic.bytesToBackend)],
      ['To clients', transferred(traffic.bitsToClientPerSecond, traffic.bytesToClient)],
      ['Failures', `${formatCount(traffic.connectFailures)} connects, ${formatCount(traffic.resets)} resets`],
      [
        'Table',
        budget('TCP', table.tcp),
        budget('UDP', table.udp),
        // The kernel plane does not count embryonic flows apart.
        table.embryonic.limit > 0 && budget('embryonic', table.embryonic),
      ],
      kernelRow(view.kernel, nowMs),
      ['Drains', ...(drains.length === 0 ? ['none'] : drains.map((drain) => drainSummary(drain, nowMs)))],
      ['Problems', ...(problems.length === 0 ? ['none'] : problems)],
    ],
    15,
    width,
  );
}

function kernelRow(kernel: StatusView['kernel'], nowMs: number): LabelledRow {
  if (kernel === undefined) return ['Kernel'];
  const { table, mode, why, state, sinceMs, repairs, failures, lastFailure, tool } = kernel;
  const last = lastFailure && `, last ${formatAgo(lastFailure.atMs, nowMs)}: ${lastFailure.text}`;
  return [
    'Kernel',
    `${mode.replace(/^kernel /, '')}: ${why}`,
    `table ${table} ${state.replace('-', ' ')} for ${formatSpan(nowMs - sinceMs)}, ${tool}`,
    `${plural(repairs, 'repair')}, ${plural(failures, 'failure')}${last ?? ''}`,
  ];
}

function budget(name: string, { used, limit }: { readonly used: number; readonly limit: number }): string {
  return `${name} ${formatCount(used)} of ${formatCount(limit)} (${formatShare(limit === 0 ? 0 : used / limit)})`;
}

/** What the numbers of listeners count: sockets of ports, sockets that get captured ports, frontends in the kernel. */
export function listenerText({ listeners: { tcp, udp }, kernel }: StatusView): string {
  if (isForwardedByKernel(kernel))
    return `none: the kernel forwards TCP of ${plural(tcp, 'frontend')}, UDP of ${plural(udp, 'frontend')}`;
  const counts = `${formatCount(tcp)} TCP, ${formatCount(udp)} UDP`;
  return kernel === undefined ? counts : `${counts} sockets, which get all captured ports`;
}

/** The same, for little room. */
export function shortListenerText({ listeners: { tcp, udp }, kernel }: StatusView): string {
  if (isForwardedByKernel(kernel)) return 'forwarded by the kernel';
  const counts = `${formatCount(tcp)} TCP ${formatCount(udp)} UDP`;
  return kernel === undefined ? `listeners ${counts}` : `captured by ${counts} sockets`;
}

/** Then packets pass no socket. */
function isForwardedByKernel(kernel: StatusView['kernel']): boolean {
  return kernel?.mode.startsWith('kernel') === true;
}

const COLUMNS: readonly TableColumn[] = [
  { title: 'BACKEND' },
  { title: 'STATE', importance: 11, minimum: 13 },
  { title: 'FLOWS', align: 'right', importance: 10 },
  { title: 'NEW/S', align: 'right', importance: 8 },
  { title: 'WEIGHT', importance: 7, minimum: 6 },
  { title: 'HASH', align: 'right', importance: 6 },
  { title: 'REAL', align: 'right', importance: 6 },
  { title: 'ADMIN', importance: 4, minimum: 5 },
  { title: 'LAST NEW', align: 'right', importance: 5 },
  { title: 'TO IT', align: 'right', importance: 3 },
  { title: 'FROM IT', align: 'right', importance: 3 },
  { title: 'FAILED', align: 'right', importance: 2 },
  { title: 'ADDRESS', importance: 9, minimum: 11 },
  { title: 'PROBE SAYS', importance: 1, minimum: 12 },
];

/** `op`: an operator's. */
const WEIGHT_FROM = { operator: 'op', 'probe-header': 'probe', 'slow-start': 'slow start' } as const;

/** Every backend with its state, shares and traffic. */
export const backends: CliCommand = {
  name: 'backends',
  summary: 'show every backend: state, shares, traffic, what its probe says',
  examples: ['haports backends nvas'],
  exitCodes: '0 fine; 1 no process answers, or there is no such pool; 2 bad usage',
  define: (command, { deps, run }) =>
    addConnection(command, 'pools and backends as JSON')
      .argument('[pool]', 'only this pool')
      .action(
        run(async (pool: string | undefined, options: LiveOptions) => {
          const client = await clientFor(deps, options);
          const pools = pool === undefined ? await client.pools() : [await client.pool({ pool })];
          printAnswer(deps, options, pools, formatPools);
          return EXIT.fine;
        }),
      ),
};

/** Pools for people, one table each. */
export function formatPools(pools: readonly BackendPoolView[], { nowMs, width }: Layout): readonly string[] {
  return pools.flatMap((pool, index) => [
    ...(index === 0 ? [] : ['']),
    shorten(printable(heading(pool)), width),
    ...formatTable(
      COLUMNS,
      pool.backends.map((backend) => backendCells(backend, nowMs)),
      { width },
    ),
  ]);
}

const EXCLUDED = {
  'probe-down': 'probe down',
  'probe-unknown': 'probe unknown',
  'admin-down': 'admin down',
  draining: 'draining',
  'weight-zero': 'weight 0',
  standby: 'standby',
} as const;

/** Why a backend gets no new flows, in words; `serving` where it does. */
function stateText({ serving, exclusion, drain }: BackendView): string {
  if (exclusion === 'draining' && drain?.phase === 'done') return 'drained';
  return exclusion === undefined ? (serving ? 'serving' : 'not serving') : EXCLUDED[exclusion];
}

function heading({
  name,
  backends,
  serving,
  servingPriority,
  minimumHealthy,
  rules,
}: BackendPoolView): string {
  const priority = servingPriority === undefined ? 'no backend serves' : `priority ${servingPriority} serves`;
  const minimum = minimumHealthy > 1 ? `, at least ${minimumHealthy} wanted` : '';
  return `Pool ${name}: ${serving} of ${backends.length} serving, ${priority}${minimum}; rules ${rules.join(', ')}`;
}

function backendCells(backend: BackendView, nowMs: number): readonly string[] {
  const { traffic, weightOrigin, adminStateOrigin, adminState } = backend;
  const probes = backend.probes.map(
    ({ probe, state, last }) => `${probe} ${state}${last === undefined ? '' : `: ${last.evidence}`}`,
  );
  return [
    backend.name,
    stateText(backend),
    formatSi(traffic.flowsActive),
    formatSi(traffic.newFlowsPerSecond),
    weightOrigin === 'configured'
      ? String(backend.weight)
      : `${backend.weight} (${WEIGHT_FROM[weightOrigin]})`,
    formatShare(backend.hashShare),
    formatShare(backend.realShare),
    adminStateOrigin === 'configured' ? adminState : `${adminState} (op)`,
    formatAgo(backend.lastNewFlowAtMs, nowMs),
    formatBytes(traffic.bytesToBackend),
    formatBytes(traffic.bytesToClient),
    formatSi(traffic.connectFailures),
    backend.address,
    probes.length === 0 ? 'no probe' : probes.join('; '),
  ];
}
