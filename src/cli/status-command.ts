import type { StatusJson } from './admin-json.js';
import type { CliDeps } from './cli-deps.js';
import { drainSummary } from './drain-text.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import {
  formatAgo,
  formatBitRate,
  formatBytes,
  formatCount,
  formatShare,
  formatSi,
  formatSpan,
  plural,
} from './human.js';
import { listenerText } from './listener-text.js';
import { clientFor, printJson, printLines, type LiveOptions } from './live-options.js';
import { printable } from './table.js';
import { wrapWords } from './wrap-words.js';

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
  status: StatusJson,
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

function kernelRows(kernel: StatusJson['kernel'], nowMs: number): readonly (readonly [string, string])[] {
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
