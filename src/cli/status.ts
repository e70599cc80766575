import type { BackendPoolView, BackendView, StatusView } from '../api/views.js';
import * as words from '../api/words.js';
import { clientFor, type LiveOptions } from './client.js';
import { addConnection, type CliCommand } from './command.js';
import { printAnswer } from './deps.js';
import * as format from './format.js';

/** The running process as a whole. */
export const status: CliCommand = {
  name: 'status',
  summary: 'show the running process as a whole: configuration, traffic, table, drains, problems',
  exitCodes: '0 fine; 1 no process answers, or it refused; 2 bad usage',
  define: (command, { deps, run }) =>
    addConnection(command, 'the status as JSON').action(
      run(async (options: LiveOptions) =>
        printAnswer(deps, options, await (await clientFor(deps, options)).status(), formatStatus),
      ),
    ),
};

/** A status for people; problems and drains last, where they catch the eye. */
export function formatStatus(view: StatusView, { nowMs, width }: format.Layout): readonly string[] {
  const { configuration, table, traffic, backends, drains, problems, workers } = view;
  const { lastReload } = configuration;
  const lost = view.workersLost > 0 ? `, ${words.plural(view.workersLost, 'worker')} lost so far` : '';
  const reload =
    lastReload &&
    `${words.ago(lastReload.atMs, nowMs)}, ${lastReload.ok ? 'applied' : 'refused'}: ${lastReload.message}`;
  const transferred = (bitsPerSecond: number, bytes: number): string =>
    `${words.bitRate(bitsPerSecond)}, ${words.bytes(bytes)} in all`;
  const rows = {
    haports: `${view.version}, pid ${view.pid}, up ${words.span(nowMs - view.startedAtMs)}`,
    Workers: `${workers === 0 ? 'none: all in one process' : words.count(workers)}${lost}`,
    Configuration: `${configuration.source}, digest ${configuration.digest.slice(0, 12)}, loaded ${words.ago(configuration.loadedAtMs, nowMs)}`,
    'Last reload': reload ?? 'none yet',
    Revision: String(view.revision),
    Listeners: listenerText(view),
    Backends: `${backends.serving} of ${backends.total} serving`,
    Flows: `${words.count(traffic.flowsActive)} live, ${words.si(traffic.newFlowsPerSecond)} new a second, ${words.count(traffic.flowsOpened)} in all`,
    'To backends': transferred(traffic.bitsToBackendPerSecond, traffic.bytesToBackend),
    'To clients': transferred(traffic.bitsToClientPerSecond, traffic.bytesToClient),
    Failures: `${words.count(traffic.connectFailures)} connects, ${words.count(traffic.resets)} resets`,
    Table: [
      budget('TCP', table.tcp),
      budget('UDP', table.udp),
      // The kernel plane does not count embryonic flows apart.
      table.embryonic.limit > 0 && budget('embryonic', table.embryonic),
    ],
    Kernel: view.kernel && kernelTexts(view.kernel, nowMs),
    Drains: drains.length === 0 ? 'none' : drains.map((drain) => words.drainSummary(drain, nowMs)),
    Problems: problems.length === 0 ? 'none' : problems,
  };
  return format.labelled(rows, 15, width);
}

function kernelTexts(kernel: NonNullable<StatusView['kernel']>, nowMs: number): readonly string[] {
  const { table, mode, why, state, sinceMs, repairs, failures, lastFailure, tool } = kernel;
  const last = lastFailure && `, last ${words.ago(lastFailure.atMs, nowMs)}: ${lastFailure.text}`;
  return [
    `${mode.replace(/^kernel /, '')}: ${why}`,
    `table ${table} ${state.replace('-', ' ')} for ${words.span(nowMs - sinceMs)}, ${tool}`,
    `${words.plural(repairs, 'repair')}, ${words.plural(failures, 'failure')}${last ?? ''}`,
  ];
}

function budget(name: string, { used, limit }: { readonly used: number; readonly limit: number }): string {
  return `${name} ${words.count(used)} of ${words.count(limit)} (${words.share(limit === 0 ? 0 : used / limit)})`;
}

/** What the numbers of listeners count: sockets of ports, sockets that get captured ports, frontends in the kernel. */
export function listenerText({ listeners: { tcp, udp }, kernel }: StatusView): string {
  if (isForwardedByKernel(kernel))
    return `none: the kernel forwards TCP of ${words.plural(tcp, 'frontend')}, UDP of ${words.plural(udp, 'frontend')}`;
  const counts = `${words.count(tcp)} TCP, ${words.count(udp)} UDP`;
  return kernel === undefined ? counts : `${counts} sockets, which get all captured ports`;
}

/** The same, for little room. */
export function shortListenerText({ listeners: { tcp, udp }, kernel }: StatusView): string {
  if (isForwardedByKernel(kernel)) return 'forwarded by the kernel';
  const counts = `${words.count(tcp)} TCP ${words.count(udp)} UDP`;
  return kernel === undefined ? `listeners ${counts}` : `captured by ${counts} sockets`;
}

/** Then packets pass no socket. */
function isForwardedByKernel(kernel: StatusView['kernel']): boolean {
  return kernel?.mode.startsWith('kernel') === true;
}

const COLUMNS: readonly format.TableColumn<BackendView>[] = [
  format.left('BACKEND', ({ name }) => name),
  format.left('STATE', stateText, { importance: 11, minimum: 13 }),
  format.right('FLOWS', ({ traffic }) => words.si(traffic.flowsActive), 10),
  format.right('NEW/S', ({ traffic }) => words.si(traffic.newFlowsPerSecond), 8),
  format.left('WEIGHT', weightText, { importance: 7, minimum: 6 }),
  format.right('HASH', ({ hashShare }) => words.share(hashShare), 6),
  format.right('REAL', ({ realShare }) => words.share(realShare), 6),
  format.left('ADMIN', adminText, { importance: 4, minimum: 5 }),
  format.right('LAST NEW', ({ lastNewFlowAtMs }, nowMs) => words.ago(lastNewFlowAtMs, nowMs), 5),
  format.right('TO IT', ({ traffic }) => words.bytes(traffic.bytesToBackend), 3),
  format.right('FROM IT', ({ traffic }) => words.bytes(traffic.bytesToClient), 3),
  format.right('FAILED', ({ traffic }) => words.si(traffic.connectFailures), 2),
  format.left('ADDRESS', ({ address }) => address, { importance: 9, minimum: 11 }),
  format.left('PROBE SAYS', probeText, { importance: 1, minimum: 12 }),
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
        }),
      ),
};

/** Pools for people, one table each. */
export function formatPools(pools: readonly BackendPoolView[], layout: format.Layout): readonly string[] {
  return pools.flatMap((pool, index) => [
    ...(index === 0 ? [] : ['']),
    format.shorten(format.printable(heading(pool)), layout.width),
    ...format.table(COLUMNS, pool.backends, layout),
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

function weightText({ weight, weightOrigin }: BackendView): string {
  return weightOrigin === 'configured' ? String(weight) : `${weight} (${WEIGHT_FROM[weightOrigin]})`;
}

function adminText({ adminState, adminStateOrigin }: BackendView): string {
  return adminStateOrigin === 'configured' ? adminState : `${adminState} (op)`;
}

function probeText({ probes }: BackendView): string {
  const verdicts = probes.map(
    ({ probe, state, last }) => `${probe} ${state}${last ? `: ${last.evidence}` : ''}`,
  );
  return verdicts.length === 0 ? 'no probe' : verdicts.join('; ');
}
