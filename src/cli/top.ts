import type { Request } from '../api/contract.js';
import type { BackendPoolView, FlowList, FlowView, StatusView } from '../api/views.js';
import { parseIpAddress } from '../model/address.js';
import { errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import { type AdminClient, clientFor, clientOf, type LiveOptions, printJson, printLines } from './client.js';
import { EXIT, interruptible, type CliDeps, type ExitCode } from './deps.js';
import { backendNames, formatFlows } from './flows.js';
import {
  formatBitRate,
  formatCount,
  formatShare,
  formatSi,
  formatSpan,
  plural,
  printable,
  shorten,
} from './output.js';
import { formatPools, shortListenerText } from './status.js';
import type { ScreenLine, Terminal, TerminalSize } from './terminal.js';

/** Flows in a snapshot that nobody can scroll. */
const SNAPSHOT_FLOWS = 20;

export interface TopOptions extends LiveOptions {
  readonly sort: TopSort;
  readonly filter: string;
}

/**
 * `haports top`: backends and flows, live, on the whole terminal. Where the output is not a terminal, and with
 * `--json`, one snapshot.
 */
export async function topCommand(deps: CliDeps, options: TopOptions): Promise<ExitCode> {
  const client = await clientFor(deps, options);
  const interrupt = interruptible(deps);
  try {
    const start: TopModel = { ...TOP_START, sort: options.sort, filter: options.filter };
    // Before the terminal is taken over: that nobody answers is said in a line.
    const model = { ...start, data: await ask(deps, client, start, interrupt.signal) };
    if (options.json) {
      const { status, pools, flows } = model.data;
      printJson(deps, { status, pools, flows });
    } else if (deps.terminal.isInteractive) {
      const { terminal, clock } = deps;
      const session = new TopSession(
        { terminal, clock, ask: (asked, signal) => ask(deps, client, asked, signal) },
        model,
      );
      await session.run(interrupt.signal);
    } else {
      snapshot(deps, model);
    }
    return EXIT.fine;
  } finally {
    interrupt.release();
  }
}

function snapshot(deps: CliDeps, model: TopModel): void {
  const { columns } = deps.terminal.size();
  const backends = model.data?.pools.reduce((lines, { backends: { length } }) => lines + length + 2, 0) ?? 0;
  // Backends get at most half: twice the longer part is room for both.
  const rows = 2 * Math.max(backends, Math.min(SNAPSHOT_FLOWS, model.data?.flows.flows.length ?? 0) + 2) + 6;
  const lines = renderTop(model, { columns, rows })
    .slice(0, -1)
    .map(({ text }) => text.trimEnd());
  printLines(deps, [...trimEnd(lines), '', 'Output is not a terminal: this is one snapshot']);
}

function trimEnd(lines: readonly string[]): readonly string[] {
  return lines.slice(0, lines.findLastIndex((line) => line !== '') + 1);
}

async function ask(
  { clock }: CliDeps,
  client: AdminClient,
  model: TopModel,
  signal: AbortSignal,
): Promise<TopData> {
  const [status, pools, flows] = await Promise.all([
    client.status({}, { signal }),
    client.pools({}, { signal }),
    client.flows(topQuery(model), { signal }),
  ]);
  return { status, pools, flows, atMs: clock.wallMs() };
}

/** A key by name, or the character that it types. */
export type Key =
  | { readonly name: 'ctrl-c' | 'enter' | 'escape' | 'backspace' | 'up' | 'down' | 'page-up' | 'page-down' }
  | { readonly name: 'character'; readonly text: string };

/** What must be done besides showing the new model. `ask`: the data does not fit it any more. */
export type TopEffect = 'none' | 'ask' | 'quit';

export interface TopStep {
  readonly model: TopModel;
  readonly effect: TopEffect;
}

const FILTER_LENGTH = 64;
const PAGE = 10;

const SEQUENCES: Readonly<Record<string, Key>> = {
  '\u001b[A': { name: 'up' },
  '\u001bOA': { name: 'up' },
  '\u001b[B': { name: 'down' },
  '\u001bOB': { name: 'down' },
  '\u001b[5~': { name: 'page-up' },
  '\u001b[6~': { name: 'page-down' },
  '\u0003': { name: 'ctrl-c' },
  '\r': { name: 'enter' },
  '\n': { name: 'enter' },
  '\u001b': { name: 'escape' },
  '\u007f': { name: 'backspace' },
  '\b': { name: 'backspace' },
};

// CSI and SS3 sequences (ECMA-48, 5.4), else one character.
const TOKEN = /\u001b\[[0-?]*[ -/]*[@-~]|\u001bO[A-Za-z]|[^]/gu;

/** Keys in what a terminal in raw mode sent; sequences of keys that mean nothing here are left out. */
export function decodeKeys(input: string): readonly Key[] {
  return (input.match(TOKEN) ?? []).flatMap((token): readonly Key[] => {
    const known = SEQUENCES[token];
    if (known !== undefined) return [known];
    return /^[\u0000-\u001f]/.test(token) ? [] : [{ name: 'character', text: token }];
  });
}

/** What a key does. Pure. */
export function pressKey(model: TopModel, key: Key): TopStep {
  if (key.name === 'ctrl-c') return { model, effect: 'quit' };
  if (model.typing !== undefined) return typeFilter(model, model.typing, key);
  if (model.help) {
    return { model: { ...model, help: false }, effect: isCharacter(key, 'q') ? 'quit' : 'none' };
  }
  switch (key.name) {
    case 'up':
      return scrolled(model, -1);
    case 'down':
      return scrolled(model, 1);
    case 'page-up':
      return scrolled(model, -PAGE);
    case 'page-down':
      return scrolled(model, PAGE);
    case 'escape':
      return model.filter === ''
        ? shown(model)
        : { model: { ...model, filter: '', scroll: 0 }, effect: 'ask' };
    case 'enter':
    case 'backspace':
      return shown(model);
    case 'character':
      return command(model, key.text);
  }
}

function command(model: TopModel, text: string): TopStep {
  switch (text) {
    case 'q':
      return { model, effect: 'quit' };
    case 'b':
      return shown({ ...model, panes: model.panes === 'backends' ? 'both' : 'backends' });
    case 'f':
      return shown({ ...model, panes: model.panes === 'flows' ? 'both' : 'flows' });
    case 's': {
      const next = TOP_SORTS[(TOP_SORTS.indexOf(model.sort) + 1) % TOP_SORTS.length] ?? 'age';
      return { model: { ...model, sort: next, scroll: 0 }, effect: 'ask' };
    }
    case '/':
      return shown({ ...model, typing: model.filter });
    case 'p':
      return { model: { ...model, paused: !model.paused }, effect: model.paused ? 'ask' : 'none' };
    case '?':
    case 'h':
      return shown({ ...model, help: true });
    case 'k':
      return scrolled(model, -1);
    case 'j':
      return scrolled(model, 1);
    default:
      return shown(model);
  }
}

function typeFilter(model: TopModel, typed: string, key: Key): TopStep {
  const rest = { ...model, typing: undefined };
  switch (key.name) {
    case 'enter':
      return { model: { ...rest, filter: typed.trim(), scroll: 0 }, effect: 'ask' };
    case 'escape':
      return shown(rest);
    case 'backspace':
      return shown({ ...rest, typing: typed.slice(0, -1) });
    case 'character':
      return shown({ ...rest, typing: `${typed}${key.text}`.slice(0, FILTER_LENGTH) });
    case 'ctrl-c':
      return { model, effect: 'quit' };
    case 'up':
    case 'down':
    case 'page-up':
    case 'page-down':
      return shown(model);
  }
}

function scrolled(model: TopModel, by: number): TopStep {
  const last = Math.max(0, (model.data?.flows.flows.length ?? 0) - 1);
  return shown({ ...model, scroll: Math.min(last, Math.max(0, model.scroll + by)) });
}

function shown(model: TopModel): TopStep {
  return { model, effect: 'none' };
}

function isCharacter(key: Key, text: string): boolean {
  return key.name === 'character' && key.text === text;
}

/** By what flows are sorted; `s` goes through them in this order. */
export const TOP_SORTS = ['age', 'bytes', 'rate', 'idle'] as const;

export type TopSort = (typeof TOP_SORTS)[number];

/** One look at the running process. */
export interface TopData {
  readonly status: StatusView;
  readonly pools: readonly BackendPoolView[];
  readonly flows: FlowList;
  /** When it was asked, milliseconds since the epoch. */
  readonly atMs: number;
}

/** Everything that decides what is on the screen. Replaced, never changed. */
export interface TopModel {
  readonly panes: 'both' | 'backends' | 'flows';
  readonly sort: TopSort;
  /** Part of a backend's name or of a client's address; empty: all flows. */
  readonly filter: string;
  /** What has been typed of the next filter; undefined: nobody types one. */
  readonly typing: string | undefined;
  readonly paused: boolean;
  readonly help: boolean;
  /** Flows above the first that is shown. */
  readonly scroll: number;
  /** Absent before the first answer. */
  readonly data?: TopData;
  /** Why the last question had no answer. */
  readonly trouble: string | undefined;
}

export const TOP_START: TopModel = {
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
export function topQuery({ sort, filter, data }: TopModel): Request<'flows'> {
  if (filter === '') return { sort, limit: ENOUGH };
  if (parseIpAddress(filter) !== undefined) {
    const isBackend = data?.pools.some(({ backends }) => backends.some(({ address }) => address === filter));
    if (isBackend !== true) return { sort, limit: ENOUGH, source: filter };
  }
  const backend = data?.pools
    .flatMap(({ backends }) => backends)
    .find(({ id, pool, name }) => id === filter || `${pool}/${name}` === filter);
  return backend === undefined ? { sort, limit: MAXIMUM } : { sort, limit: ENOUGH, backend: backend.id };
}

/** The flows to show: those that hold the filter's text, in the order of the model, whatever the answer's order was. */
export function topFlows({ data, filter, sort }: TopModel): readonly FlowView[] {
  if (data === undefined) return [];
  const names = backendNames(data.pools);
  const text = filter.toLowerCase();
  return data.flows.flows
    .filter(
      (flow) =>
        text === '' ||
        clientOf(flow.tuple).includes(text) ||
        flow.backendId.includes(text) ||
        (names.get(flow.backendId) ?? '').includes(text),
    )
    .toSorted((a, b) => weightFor(sort, b) - weightFor(sort, a));
}

function weightFor(sort: TopSort, flow: FlowView): number {
  switch (sort) {
    case 'age':
      return -flow.openedAtMs;
    case 'bytes':
      return flow.bytesToBackend + flow.bytesToClient;
    case 'rate':
      return flow.bitsPerSecond ?? 0;
    case 'idle':
      return flow.idleMs;
  }
}

const PERIOD_MS = 1000;

export interface TopSessionDeps {
  readonly terminal: Terminal;
  readonly clock: Clock;
  /** One look at the running process. */
  readonly ask: (model: TopModel, signal: AbortSignal) => Promise<TopData>;
}

/** A live view: asks every second, draws at every change. Runs once. */
export class TopSession {
  readonly #deps: TopSessionDeps;
  readonly #end = new AbortController();
  #model: TopModel;
  /** A key wants other data; may be pressed while an answer is under way. */
  #isStale = false;
  #wake: () => void = () => undefined;
  #failure: Error | undefined;

  constructor(deps: TopSessionDeps, first: TopModel) {
    this.#deps = deps;
    this.#model = first;
  }

  /** Until `q`, Ctrl-C or the signal. The terminal is given back whatever happens. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.#stop();
    signal.addEventListener('abort', stop);
    if (signal.aborted) return;
    const screen = this.#deps.terminal.openScreen();
    const draw = (): void => {
      try {
        screen.draw(renderTop(this.#model, this.#deps.terminal.size()));
      } catch (error) {
        // Thrown into an event handler it would leave the terminal as it is.
        this.#failure ??= error instanceof Error ? error : new Error(String(error));
        this.#stop();
      }
    };
    try {
      screen.onInput((input) => {
        this.#press(input);
        draw();
      });
      screen.onResize(draw);
      draw();
      while (!this.#isOver()) {
        await this.#pause();
        if (this.#isOver()) break;
        if (this.#model.paused && !this.#isStale) continue;
        await this.#ask();
        if (!this.#isOver()) draw();
      }
    } finally {
      signal.removeEventListener('abort', stop);
      screen.close();
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  #press(input: string): void {
    for (const key of decodeKeys(input)) {
      const { model, effect } = pressKey(this.#model, key);
      this.#model = model;
      if (effect === 'quit') {
        this.#stop();
        return;
      }
      if (effect === 'ask') {
        this.#isStale = true;
        this.#wake();
      }
    }
  }

  async #ask(): Promise<void> {
    this.#isStale = false;
    try {
      const data = await this.#deps.ask(this.#model, this.#end.signal);
      this.#model = { ...this.#model, data, trouble: undefined };
    } catch (error) {
      this.#model = { ...this.#model, trouble: errorMessage(error) };
    }
  }

  #pause(): Promise<void> {
    if (this.#isStale) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.#deps.clock.setTimer(PERIOD_MS, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }

  #stop(): void {
    this.#end.abort();
    this.#wake();
  }

  #isOver(): boolean {
    return this.#end.signal.aborted;
  }
}

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
