import type { BackendJson, PoolJson } from './admin-json.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { formatAgo, formatBytes, formatShare, formatSi } from './human.js';
import { clientFor, printJson, printLines, type LiveOptions } from './live-options.js';
import { formatTable, printable, shorten, type TableColumn } from './table.js';

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
  const pools = pool === undefined ? await client.pools() : [await client.pool(pool)];
  if (options.json) printJson(deps, pools);
  else
    printLines(deps, formatPools(pools, { nowMs: deps.clock.wallMs(), width: deps.terminal.size().columns }));
  return EXIT.fine;
}

/** Pools for people, one table each. */
export function formatPools(
  pools: readonly PoolJson[],
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
export function stateText(backend: Pick<BackendJson, 'serving' | 'exclusion' | 'drain'>): string {
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

function heading({ name, backends, serving, servingPriority, minimumHealthy, rules }: PoolJson): string {
  const priority = servingPriority === undefined ? 'nobody serves' : `priority ${servingPriority} serves`;
  const minimum = minimumHealthy > 1 ? `, at least ${minimumHealthy} wanted` : '';
  return `Pool ${name}: ${serving} of ${backends.length} serving, ${priority}${minimum}; rules ${rules.join(', ')}`;
}

function backendCells(backend: BackendJson, nowMs: number): readonly string[] {
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
