import type { BackendPoolView, BackendView, StatusView } from '../api/views.js';
import { clientFor, type LiveOptions, printJson, printLines } from './client.js';
import { EXIT, type CliDeps, type ExitCode } from './deps.js';
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
  plural,
  printable,
  shorten,
  wrapWords,
  type TableColumn,
} from './output.js';

const LABEL_WIDTH = 15;

/** `haports status`: the running process as a whole. */
export async function statusCommand(deps: CliDeps, options: LiveOptions): Promise<ExitCode> {
  const status = await (await clientFor(deps, options)).status();
  if (options.json) printJson(deps, status);
  else
    printLines(
      deps,
      formatStatus(status, { nowMs: deps.clock.wallMs(), width: deps.terminal.size().columns }),
    );
  return EXIT.fine;
}

/** A status for people; problems and drains last, where they catch the eye. */
export function formatStatus(
  status: StatusView,
  { nowMs, width }: { readonly nowMs: number; readonly width: number },
): readonly string[] {
  const { configuration, table, traffic, backends, drains, problems } = status;
  const lost = status.workersLost === 0 ? '' : `, ${plural(status.workersLost, 'worker')} lost so far`;
  const { lastReload } = configuration;
  const rows: readonly (readonly [string, string])[] = [
    ['haports', `${status.version}, pid ${status.pid}, up ${formatSpan(nowMs - status.startedAtMs)}`],
    ['Workers', `${status.workers === 0 ? 'none: all in one process' : formatCount(status.workers)}${lost}`],
    [
      'Configuration',
      `${configuration.source}, digest ${configuration.digest.slice(0, 12)}, loaded ${formatAgo(configuration.loadedAtMs, nowMs)}`,
    ],
    [
      'Last reload',
      lastReload === undefined
        ? 'none yet'
        : `${formatAgo(lastReload.atMs, nowMs)}, ${lastReload.ok ? 'taken over' : 'refused'}: ${lastReload.message}`,
    ],
    ['Revision', String(status.revision)],
    ['Listeners', listenerText(status)],
    ['Backends', `${backends.serving} of ${backends.total} serving`],
    [
      'Flows',
      `${formatCount(traffic.flowsActive)} live, ${formatSi(traffic.newFlowsPerSecond)} new a second, ${formatCount(traffic.flowsOpened)} in all`,
    ],
    [
      'To backends',
      `${formatBitRate(traffic.bitsToBackendPerSecond)}, ${formatBytes(traffic.bytesToBackend)} in all`,
    ],
    [
      'To clients',
      `${formatBitRate(traffic.bitsToClientPerSecond)}, ${formatBytes(traffic.bytesToClient)} in all`,
    ],
    ['Failures', `${formatCount(traffic.connectFailures)} connects, ${formatCount(traffic.resets)} resets`],
    ...(['tcp', 'udp', 'embryonic'] as const)
      // The kernel plane counts no embryonic flows apart.
      .filter((kind) => kind !== 'embryonic' || table[kind].limit > 0)
      .map(
        (kind, index) =>
          [
            index === 0 ? 'Table' : '',
            budget(kind === 'embryonic' ? kind : kind.toUpperCase(), table[kind]),
          ] as const,
      ),
    ...kernelRows(status.kernel, nowMs),
    ...listed(
      'Drains',
      drains.map((drain) => drainSummary(drain, nowMs)),
      'none',
    ),
    ...listed('Problems', problems, 'none'),
  ];
  return rows.flatMap(([label, text]) =>
    wrapWords(printable(`${label.padEnd(LABEL_WIDTH)}${text}`), width, LABEL_WIDTH),
  );
}

function kernelRows(kernel: StatusView['kernel'], nowMs: number): readonly (readonly [string, string])[] {
  if (kernel === undefined) return [];
  const { table, mode, why, state, sinceMs, repairs, failures, lastFailure, tool } = kernel;
  const failed =
    lastFailure === undefined ? '' : `, last ${formatAgo(lastFailure.atMs, nowMs)}: ${lastFailure.text}`;
  return [
    ['Kernel', `${mode.replace(/^kernel /, '')}: ${why}`],
    ['', `table ${table} ${state.replace('-', ' ')} for ${formatSpan(nowMs - sinceMs)}, ${tool}`],
    ['', `${plural(repairs, 'repair')}, ${plural(failures, 'failure')}${failed}`],
  ];
}

function budget(name: string, { used, limit }: { readonly used: number; readonly limit: number }): string {
  return `${name} ${formatCount(used)} of ${formatCount(limit)} (${formatShare(limit === 0 ? 0 : used / limit)})`;
}

function listed(
  label: string,
  items: readonly string[],
  none: string,
): readonly (readonly [string, string])[] {
  if (items.length === 0) return [[label, none]];
  return items.map((item, index) => [index === 0 ? label : '', item] as const);
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

/** Its mode begins with that word where no socket is in the way of packets. */
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

/** `haports backends [pool]`: every backend with its state, shares and traffic. */
export async function backendsCommand(
  deps: CliDeps,
  pool: string | undefined,
  options: LiveOptions,
): Promise<ExitCode> {
  const client = await clientFor(deps, options);
  const pools = pool === undefined ? await client.pools() : [await client.pool({ pool })];
  if (options.json) printJson(deps, pools);
  else
    printLines(deps, formatPools(pools, { nowMs: deps.clock.wallMs(), width: deps.terminal.size().columns }));
  return EXIT.fine;
}

/** Pools for people, one table each. */
export function formatPools(
  pools: readonly BackendPoolView[],
  { nowMs, width }: { readonly nowMs: number; readonly width: number },
): readonly string[] {
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

/** Why a backend gets no new flows, in words; `serving` where it does. */
export function stateText(backend: Pick<BackendView, 'serving' | 'exclusion' | 'drain'>): string {
  if (backend.exclusion === 'draining' && backend.drain?.phase === 'done') return 'drained';
  if (backend.exclusion !== undefined) {
    return {
      'probe-down': 'probe down',
      'probe-unknown': 'probe unknown',
      'admin-down': 'admin down',
      draining: 'draining',
      'weight-zero': 'weight 0',
      standby: 'standby',
    }[backend.exclusion];
  }
  return backend.serving ? 'serving' : 'not serving';
}

function heading({
  name,
  backends,
  serving,
  servingPriority,
  minimumHealthy,
  rules,
}: BackendPoolView): string {
  const priority = servingPriority === undefined ? 'nobody serves' : `priority ${servingPriority} serves`;
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
