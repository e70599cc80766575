import type { Request } from '../api/contract.js';
import type { BackendPoolView, FlowList, FlowView, StatusView } from '../api/views.js';
import * as words from '../api/words.js';
import { parseIpAddress } from '../model/address.js';
import { errorMessage } from '../model/errors.js';
import { clientFor, type LiveOptions } from './client.js';
import { addConnection, oneOf, type CliCommand } from './command.js';
import { interruptible, pause, printJson, printLines, type CliDeps } from './deps.js';
import { backendNames, formatFlows } from './flows.js';
import * as format from './format.js';
import { formatPools, shortListenerText } from './status.js';
import type { LineStyle, ScreenLine, TerminalSize } from './terminal.js';

/** By what flows are sorted; `s` goes through them in this order. */
const SORTS = ['age', 'bytes', 'rate', 'idle'] as const;

/** Flows in a snapshot, which cannot be scrolled. */
const SNAPSHOT_FLOWS = 20;

interface TopOptions extends LiveOptions {
  readonly sort: (typeof SORTS)[number];
  readonly filter: string;
}

/** Backends and flows, live, on the whole terminal. Without a terminal, and with `--json`, one snapshot. */
export const top: CliCommand = {
  name: 'top',
  summary: 'watch backends and flows live, on the whole terminal',
  examples: ['haports top', 'haports top --sort rate --filter nvas/nva-1'],
  notes: `
Keys: q quit, b backends, f flows, s sort (age, bytes, rate, idle), / filter by client or backend, p pause, ? help.

Where the output is not a terminal, one snapshot is printed.`,
  exitCodes: '0 fine; 1 no process answers, or it refused; 2 bad usage',
  define: (command, { deps, run }) =>
    addConnection(command, 'one snapshot as JSON')
      .addOption(oneOf('--sort <key>', 'order of flows at the start', SORTS, 'age'))
      .option('--filter <text>', 'only flows whose client or backend contains this', '')
      .action(run((options: TopOptions) => showTop(deps, options))),
};

async function showTop(deps: CliDeps, { json, sort, filter, ...connection }: TopOptions): Promise<void> {
  const client = await clientFor(deps, connection);
  const interrupt = interruptible(deps);
  const ask: AskProcess = async (query, signal) => {
    const [status, pools, flows] = await Promise.all([
      client.status({}, { signal }),
      client.pools({}, { signal }),
      client.flows(query, { signal }),
    ]);
    return { status, pools, flows, atMs: deps.clock.wallMs() };
  };
  try {
    // Before the terminal is taken over: that no process answers is one line.
    const data = await ask(topQuery({ sort, filter }), interrupt.signal);
    const { status, pools, flows } = data;
    const model: TopModel = { ...TOP_START, sort, filter, data };
    if (json) printJson(deps, { status, pools, flows });
    else if (!deps.terminal.isInteractive) printSnapshot(deps, model);
    else await showLive(deps, { first: model, ask, interrupted: interrupt.signal });
  } finally {
    interrupt.release();
  }
}

/** One look at the running process. */
type AskProcess = (query: Request<'flows'>, signal: AbortSignal) => Promise<TopData>;

function printSnapshot(deps: CliDeps, model: TopModel): void {
  const { pools, flows } = model.data;
  const backends = pools.reduce((lines, { backends: { length } }) => lines + length + 2, 0);
  // Backends get at most half: twice the longer part is room for both.
  const rows = 2 * Math.max(backends, Math.min(SNAPSHOT_FLOWS, flows.flows.length) + 2) + 6;
  const { columns } = deps.terminal.size();
  const lines = renderTop(model, { columns, rows }).map(({ text }) => text.trimEnd());
  const end = lines.findLastIndex((line, index) => line !== '' && index < lines.length - 1);
  printLines(deps, [...lines.slice(0, end + 1), '', 'Output is not a terminal: this is one snapshot']);
}

const PERIOD_MS = 1000;

interface LiveView {
  readonly first: TopModel;
  readonly ask: AskProcess;
  readonly interrupted: AbortSignal;
}

/** Asks every second, draws at every change, until `q`, Ctrl-C or the signal. The terminal is given back in any case. */
async function showLive(
  { terminal, clock }: Pick<CliDeps, 'terminal' | 'clock'>,
  { first, ask, interrupted }: LiveView,
): Promise<void> {
  if (interrupted.aborted) return;
  let model = first;
  /** A key wants other data; may be pressed while an answer is under way. */
  let isStale = false as boolean;
  let wake: () => void = () => undefined;
  let failure: Error | undefined;
  const end = new AbortController();
  const isOver = (): boolean => end.signal.aborted;
  const stop = (): void => {
    end.abort();
    wake();
  };
  interrupted.addEventListener('abort', stop);
  const screen = terminal.openScreen();
  const draw = (): void => {
    try {
      screen.draw(renderTop(model, terminal.size()));
    } catch (error) {
      // Thrown in an event handler, it would leave the terminal taken over.
      failure ??= error instanceof Error ? error : new Error(String(error));
      stop();
    }
  };
  screen.onResize(draw);
  screen.onInput((input) => {
    for (const key of decodeKeys(input)) {
      const step = pressKey(model, key);
      model = step.model;
      if (step.effect === 'quit') {
        stop();
        break;
      }
      if (step.effect === 'none') continue;
      isStale = true;
      wake();
    }
    draw();
  });
  try {
    draw();
    while (!isOver()) {
      const waiting = new AbortController();
      wake = () => waiting.abort();
      if (!isStale) await pause(clock, PERIOD_MS, waiting.signal);
      if (isOver() || (model.paused && !isStale)) continue;
      isStale = false;
      const wasPaused = model.paused;
      try {
        const data = await ask(topQuery(model), end.signal);
        // A picture that was paused meanwhile stays.
        if (wasPaused || !model.paused) model = { ...model, data, trouble: undefined };
      } catch (error) {
        model = { ...model, trouble: errorMessage(error) };
      }
      if (!isOver()) draw();
    }
  } finally {
    interrupted.removeEventListener('abort', stop);
    screen.close();
  }
  if (failure !== undefined) throw failure;
}

/** What must be done besides showing the new model. `ask`: the data does not fit it any more. */
export type TopEffect = 'none' | 'ask' | 'quit';

interface TopStep {
  readonly model: TopModel;
  readonly effect: TopEffect;
}

const FILTER_LENGTH = 64;
const PAGE = 10;

const SEQUENCES: Readonly<Record<string, string>> = {
  '\u001b[A': 'up',
  '\u001bOA': 'up',
  '\u001b[B': 'down',
  '\u001bOB': 'down',
  '\u001b[5~': 'page-up',
  '\u001b[6~': 'page-down',
  '\u0003': 'ctrl-c',
  '\r': 'enter',
  '\n': 'enter',
  '\u001b': 'escape',
  '\u007f': 'backspace',
  '\b': 'backspace',
};

// CSI and SS3 sequences (ECMA-48, 5.4), else one character.
const TOKEN = /\u001b\[[0-?]*[ -/]*[@-~]|\u001bO[A-Za-z]|[^]/gu;

/**
 * Keys in what a terminal in raw mode sent: the name of a key, or the one character that it types. Sequences of keys that
 * mean nothing here are left out.
 */
export function decodeKeys(input: string): readonly string[] {
  return (input.match(TOKEN) ?? [])
    .map((token) => SEQUENCES[token] ?? token)
    .filter((key) => !/^[\u0000-\u001f]/.test(key));
}

type Pressed = (model: TopModel) => readonly [change: Partial<TopModel>, effect?: TopEffect];

const scroll =
  (by: number): Pressed =>
  ({ data, scroll: from }) => {
    const last = Math.max(0, data.flows.flows.length - 1);
    return [{ scroll: Math.min(last, Math.max(0, from + by)) }];
  };

const KEYS: Readonly<Record<string, Pressed>> = {
  q: () => [{}, 'quit'],
  b: ({ panes }) => [{ panes: panes === 'backends' ? 'both' : 'backends' }],
  f: ({ panes }) => [{ panes: panes === 'flows' ? 'both' : 'flows' }],
  s: ({ sort }) => [{ sort: SORTS[(SORTS.indexOf(sort) + 1) % SORTS.length] ?? 'age', scroll: 0 }, 'ask'],
  '/': ({ filter }) => [{ typing: filter }],
  escape: ({ filter }) => (filter === '' ? [{}] : [{ filter: '', scroll: 0 }, 'ask']),
  p: ({ paused }) => [{ paused: !paused }, paused ? 'ask' : 'none'],
  '?': () => [{ help: true }],
  h: () => [{ help: true }],
  k: scroll(-1),
  up: scroll(-1),
  j: scroll(1),
  down: scroll(1),
  'page-up': scroll(-PAGE),
  'page-down': scroll(PAGE),
};

/** While a filter is typed. */
const TYPING_KEYS: Readonly<Record<string, Pressed>> = {
  enter: ({ typing = '' }) => [{ typing: undefined, filter: typing.trim(), scroll: 0 }, 'ask'],
  escape: () => [{ typing: undefined }],
  backspace: ({ typing = '' }) => [{ typing: typing.slice(0, -1) }],
};

/** What a key does. Pure. */
export function pressKey(model: TopModel, key: string): TopStep {
  const [change, effect = 'none'] = pressed(model, key);
  return { model: { ...model, ...change }, effect };
}

function pressed(model: TopModel, key: string): ReturnType<Pressed> {
  if (key === 'ctrl-c') return [{}, 'quit'];
  if (model.help) return [{ help: false }, key === 'q' ? 'quit' : 'none'];
  const { typing } = model;
  if (typing === undefined) return KEYS[key]?.(model) ?? [{}];
  const isCharacter = /^.$/su.test(key);
  return (
    TYPING_KEYS[key]?.(model) ?? [isCharacter ? { typing: `${typing}${key}`.slice(0, FILTER_LENGTH) } : {}]
  );
}

/** One look at the running process. */
interface TopData {
  readonly status: StatusView;
  readonly pools: readonly BackendPoolView[];
  readonly flows: FlowList;
  /** When it was asked, milliseconds since the epoch. */
  readonly atMs: number;
}

/** Everything that decides what is on the screen. Replaced, never changed. */
export interface TopModel {
  readonly panes: 'both' | 'backends' | 'flows';
  readonly sort: (typeof SORTS)[number];
  /** Part of a backend's name or of a client's address; empty: all flows. */
  readonly filter: string;
  /** What has been typed of the next filter; undefined: none is being typed. */
  readonly typing: string | undefined;
  readonly paused: boolean;
  readonly help: boolean;
  /** Flows above the first that is shown. */
  readonly scroll: number;
  readonly data: TopData;
  /** Why the last question had no answer. */
  readonly trouble: string | undefined;
}

export const TOP_START: Omit<TopModel, 'data'> = {
  panes: 'both',
  sort: 'age',
  filter: '',
  typing: undefined,
  paused: false,
  help: false,
  scroll: 0,
  trouble: undefined,
};

/** Flows asked for where the process can filter; else as many as it gives, to filter here. */
const ENOUGH = 200;
const MAXIMUM = 1000;

/** Which flows to ask for. The process filters where the filter is a whole address or backend. */
export function topQuery({
  sort,
  filter,
  data,
}: Pick<TopModel, 'sort' | 'filter'> & Partial<TopModel>): Request<'flows'> {
  if (filter === '') return { sort, limit: ENOUGH };
  const backends = data?.pools.flatMap((pool) => pool.backends) ?? [];
  if (parseIpAddress(filter) !== undefined && !backends.some(({ address }) => address === filter)) {
    return { sort, limit: ENOUGH, source: filter };
  }
  const backend = backends.find(({ id, pool, name }) => id === filter || `${pool}/${name}` === filter);
  return backend === undefined ? { sort, limit: MAXIMUM } : { sort, limit: ENOUGH, backend: backend.id };
}

/** The flows to show: those that hold the filter's text, in the order of the model, whatever the answer's order was. */
export function topFlows({ data, filter, sort }: TopModel): readonly FlowView[] {
  const names = backendNames(data.pools);
  const text = filter.toLowerCase();
  return data.flows.flows
    .filter(
      (flow) =>
        text === '' ||
        words.clientOf(flow.tuple).includes(text) ||
        flow.backendId.includes(text) ||
        (names.get(flow.backendId) ?? '').includes(text),
    )
    .toSorted((a, b) => SORT_KEYS[sort](b) - SORT_KEYS[sort](a));
}

/** Largest first. */
const SORT_KEYS: Readonly<Record<TopModel['sort'], (flow: FlowView) => number>> = {
  age: ({ openedAtMs }) => -openedAtMs,
  bytes: ({ bytesToBackend, bytesToClient }) => bytesToBackend + bytesToClient,
  rate: ({ bitsPerSecond = 0 }) => bitsPerSecond,
  idle: ({ idleMs }) => idleMs,
};

const HELP: readonly string[] = [
  'q      quit (Ctrl-C too)',
  'b      backends only, and back',
  'f      flows only, and back',
  's      sort flows by age, bytes, rate, idle',
  '/      show only flows of a client or backend: type a part of it, Enter; Esc clears',
  'p      pause, and resume',
  'j k    scroll flows (arrows, Page Up, Page Down too)',
  '?      this help',
  '',
  "REASON  hash: its slot's backend       retry: the first could not be reached",
  '        pinned: its hash has moved on, the flow has not',
  '        rebalanced: moved by policy    fail-open: none was eligible',
  '',
  'Any key goes back.',
];

/** The whole screen: exactly as many lines as there are rows, none wider than the columns. Pure. */
export function renderTop(model: TopModel, { columns, rows }: TerminalSize): readonly ScreenLine[] {
  const head = headLines(model);
  const foot = line(footText(model), 'header');
  const room = Math.max(0, rows - head.length - 1);
  const body = model.help ? HELP.map((text) => line(text)) : panes(model, { columns, rows: room });
  const filled = Array.from({ length: room }, (_, index) => body[index] ?? line(''));
  return [...head, ...filled, foot].slice(-rows).map(({ text: whole, style }) => {
    const text = format.shorten(format.printable(whole), columns);
    return line(style === 'header' ? text.padEnd(columns) : text, style);
  });
}

function line(text: string, style: LineStyle = 'plain'): ScreenLine {
  return { text, style };
}

function headLines({ data, trouble }: TopModel): readonly ScreenLine[] {
  const { status, atMs } = data;
  const { traffic, backends, table, problems } = status;
  const draining = status.drains.filter(({ phase }) => phase !== 'done').length;
  const program = `haports ${status.version}  up ${words.span(atMs - status.startedAtMs)}  revision ${status.revision}`;
  const serving = `${backends.serving} of ${backends.total} backends serving${draining === 0 ? '' : `, ${draining} draining`}`;
  const flows = `${words.plural(traffic.flowsActive, 'flow')}  ${words.si(traffic.newFlowsPerSecond)} new/s`;
  const rates = `in ${words.bitRate(traffic.bitsToBackendPerSecond)}  out ${words.bitRate(traffic.bitsToClientPerSecond)}`;
  const embryonic = table.embryonic.limit === 0 ? '' : `  embryonic ${use(table.embryonic)}`;
  return [
    line(`${program}  ${serving}`, 'title'),
    line(`${flows}  ${rates}  ${shortListenerText(status)}`),
    line(`table  TCP ${use(table.tcp)}  UDP ${use(table.udp)}${embryonic}`),
    problems.length === 0
      ? line('no problems', 'dim')
      : line(`${words.plural(problems.length, 'problem')}: ${problems.join('; ')}`, 'alert'),
    ...(trouble === undefined ? [] : [line(trouble, 'alert')]),
  ];
}

function panes(model: TopModel, room: TerminalSize): readonly ScreenLine[] {
  const { data } = model;
  if (model.panes === 'flows') return flowLines(model, data, room);
  const backends = backendLines(data, room);
  if (model.panes === 'backends') return backends;
  // Flows have at least half of the room.
  const most = Math.floor(room.rows / 2);
  const more = line(`${backends.length - most + 1} more lines (b)`, 'dim');
  const shown = backends.length <= most ? backends : [...backends.slice(0, Math.max(0, most - 1)), more];
  return [...shown, ...flowLines(model, data, { ...room, rows: room.rows - shown.length })];
}

function backendLines({ pools, atMs }: TopData, { columns }: TerminalSize): readonly ScreenLine[] {
  return formatPools(pools, { nowMs: atMs, width: columns })
    .filter((text) => text !== '')
    .map((text) => {
      if (text.startsWith('BACKEND')) return line(text, 'header');
      if (text.startsWith('Pool ')) return line(text, 'title');
      return line(text, / (?:probe|admin) down/.test(text) ? 'alert' : 'plain');
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
    line(`Flows ${range} of ${words.count(matched)} by ${model.sort}${filter}`, 'title'),
    line(title, 'header'),
    ...lines.map((text) => line(text)),
  ];
}

function footText({ typing, paused, sort }: TopModel): string {
  if (typing !== undefined) return `Client or backend: ${typing}_  (Enter applies, Esc cancels)`;
  return `${paused ? 'PAUSED  ' : ''}q quit  b backends  f flows  s sort: ${sort}  / filter  p ${paused ? 'resume' : 'pause'}  ? help`;
}

function use({ used, limit }: { readonly used: number; readonly limit: number }): string {
  return `${words.si(used)}/${words.si(limit)} ${words.share(limit === 0 ? 0 : used / limit)}`;
}
