import { backendNames, formatFlows } from './flow-text.js';
import { formatPools } from './backends-command.js';
import { formatBitRate, formatCount, formatShare, formatSi, formatSpan, plural } from './human.js';
import { shortListenerText } from './listener-text.js';
import { printable, shorten } from './table.js';
import type { ScreenLine, TerminalSize } from './terminal.js';
import { topFlows, type TopData, type TopModel } from './top-model.js';

const HELP: readonly string[] = [
  'q      quit (Ctrl-C too)',
  'b      backends only, and back',
  'f      flows only, and back',
  's      sort flows by age, bytes, rate, idle',
  '/      show only flows of a client or backend: type a part of it, Enter; Esc clears',
  'p      pause, and go on',
  'j k    scroll flows (arrows, Page Up, Page Down too)',
  '?      this help',
  '',
  "REASON  hash: its slot's backend       retry: the first could not be reached",
  '        pinned: its hash has moved on, the flow has not',
  '        rebalanced: moved by policy    fail-open: nobody was eligible',
  '',
  'Any key goes back.',
];

/** The whole screen: exactly as many lines as there are rows, none wider than the columns. Pure. */
export function renderTop(model: TopModel, { columns, rows }: TerminalSize): readonly ScreenLine[] {
  const head = headLines(model);
  const foot: ScreenLine = { text: footText(model), style: 'header' };
  const room = Math.max(0, rows - head.length - 1);
  const body: readonly ScreenLine[] = model.help
    ? HELP.map((text) => ({ text }))
    : panes(model, { columns, rows: room });
  const filled = Array.from({ length: room }, (_, index): ScreenLine => body[index] ?? { text: '' });
  return [...head, ...filled, foot].slice(-rows).map((line) => {
    const text = shorten(printable(line.text), columns);
    return { ...line, text: line.style === 'header' ? text.padEnd(columns) : text };
  });
}

function headLines({ data, trouble }: TopModel): readonly ScreenLine[] {
  const alert: readonly ScreenLine[] = trouble === undefined ? [] : [{ text: trouble, style: 'alert' }];
  if (data === undefined) return [{ text: 'haports', style: 'title' }, ...alert];
  const { status, atMs } = data;
  const { traffic, backends, table, problems } = status;
  const drains = status.drains.filter(({ phase }) => phase !== 'done').length;
  return [
    {
      text:
        `haports ${status.version}  up ${formatSpan(atMs - status.startedAtMs)}  revision ${status.revision}  ` +
        `${backends.serving} of ${backends.total} backends serving${drains === 0 ? '' : `, ${drains} draining`}`,
      style: 'title',
    },
    {
      text:
        `${plural(traffic.flowsActive, 'flow')}  ${formatSi(traffic.newFlowsPerSecond)} new/s  ` +
        `in ${formatBitRate(traffic.bitsToBackendPerSecond)}  out ${formatBitRate(traffic.bitsToClientPerSecond)}  ` +
        shortListenerText(status),
    },
    {
      text: `table  TCP ${use(table.tcp)}  UDP ${use(table.udp)}${table.embryonic.limit === 0 ? '' : `  embryonic ${use(table.embryonic)}`}`,
    },
    problems.length === 0
      ? { text: 'no problems', style: 'dim' }
      : { text: `${plural(problems.length, 'problem')}: ${problems.join('; ')}`, style: 'alert' },
    ...alert,
  ];
}

function panes(model: TopModel, room: TerminalSize): readonly ScreenLine[] {
  const { data } = model;
  if (data === undefined) return [];
  switch (model.panes) {
    case 'backends':
      return backendLines(data, room);
    case 'flows':
      return flowLines(model, data, room);
    case 'both': {
      const backends = backendLines(data, room);
      // Flows have at least half of the room.
      const most = Math.floor(room.rows / 2);
      const shown =
        backends.length <= most
          ? backends
          : [
              ...backends.slice(0, Math.max(0, most - 1)),
              { text: `${backends.length - most + 1} more lines (b)`, style: 'dim' as const },
            ];
      return [...shown, ...flowLines(model, data, { ...room, rows: room.rows - shown.length })];
    }
  }
}

function backendLines({ pools, atMs }: TopData, { columns }: TerminalSize): readonly ScreenLine[] {
  return formatPools(pools, { nowMs: atMs, width: columns })
    .filter((text) => text !== '')
    .map((text) => {
      if (text.startsWith('BACKEND')) return { text, style: 'header' };
      if (text.startsWith('Pool ')) return { text, style: 'title' };
      return / (?:probe|admin) down/.test(text) ? { text, style: 'alert' } : { text };
    });
}

function flowLines(model: TopModel, data: TopData, { columns, rows }: TerminalSize): readonly ScreenLine[] {
  const flows = topFlows(model);
  const room = Math.max(1, rows - 2);
  const scroll = Math.min(model.scroll, Math.max(0, flows.length - room));
  const seen = flows.slice(scroll, scroll + room);
  const [title = '', ...lines] = formatFlows(seen, {
    nowMs: data.atMs,
    width: columns,
    names: backendNames(data.pools),
    sort: model.sort,
  });
  const range = seen.length === 0 ? 'none' : `${scroll + 1}-${scroll + seen.length}`;
  const matched = model.filter === '' ? data.flows.matched : flows.length;
  const filter = model.filter === '' ? '' : `, only "${model.filter}"`;
  return [
    { text: `Flows ${range} of ${formatCount(matched)} by ${model.sort}${filter}`, style: 'title' },
    { text: title, style: 'header' },
    ...lines.map((text) => ({ text })),
  ];
}

function footText({ typing, paused, sort }: TopModel): string {
  if (typing !== undefined) return `Client or backend: ${typing}_  (Enter shows, Esc leaves it)`;
  return `${paused ? 'PAUSED  ' : ''}q quit  b backends  f flows  s sort: ${sort}  / filter  p ${paused ? 'go on' : 'pause'}  ? help`;
}

function use({ used, limit }: { readonly used: number; readonly limit: number }): string {
  return `${formatSi(used)}/${formatSi(limit)} ${formatShare(limit === 0 ? 0 : used / limit)}`;
}
