import type { IncomingMessage } from 'node:http';
import { eventData } from '../api/client.js';
import { ROUTES, type Parsed, type Request } from '../api/contract.js';
import {
  flowSort,
  flowState,
  placementReason,
  protocol,
  type BackendPoolView,
  type FeedEvent,
  type FlowList,
  type FlowView,
  type StatusView,
} from '../api/views.js';
import * as words from '../api/words.js';
import { Backoff } from '../runtime/backoff.js';
import type { Clock } from '../runtime/clock.js';
import { clientFor, problemOf, readBody, sendRequest, type AdminClient, type LiveOptions } from './client.js';
import { addConnection, oneOf, wholeNumber, type CliCommand } from './command.js';
import {
  interruptible,
  layoutOf,
  pause,
  printJson,
  printJsonLine,
  printLines,
  type CliDeps,
} from './deps.js';
import * as format from './format.js';

export type FlowSort = Parsed<'flows'>['sort'];

interface FlowsOptions extends LiveOptions, Omit<Request<'flows'>, 'after'> {
  readonly sort: FlowSort;
}

/** Live flows, filtered and sorted by the process. */
export const flows: CliCommand = {
  name: 'flows',
  summary: 'show live flows, filtered and sorted',
  examples: [
    'haports flows --backend nvas/nva-1 --sort bytes --limit 20',
    'haports flows --reason pinned',
    'haports flows --source 192.0.2.7 --json',
  ],
  notes: `
Reasons: hash (its slot's backend), retry (the first could not be reached), rebalanced (moved by flow policy),
fail-open (no backend was eligible), pinned (its hash would now choose another, but existing flows stay).`,
  exitCodes: '0 fine; 1 no process answers, or it refused; 2 bad usage',
  define: (command, { deps, run }) =>
    addConnection(command, 'the flows as JSON')
      .option('--rule <name>', 'only flows of this rule')
      .option('--backend <pool/backend>', 'only flows of this backend')
      .addOption(oneOf('--protocol <protocol>', 'only', protocol.options))
      .option('--source <address>', 'only flows of this client')
      .addOption(oneOf('--state <state>', 'only', flowState.options))
      .addOption(oneOf('--reason <reason>', 'only flows placed for this reason', placementReason.options))
      .addOption(oneOf('--sort <key>', 'largest first', flowSort.options, 'age'))
      .option('--limit <count>', 'flows shown at most, 1 to 1000', wholeNumber(1, 1000), 100)
      .action(run((options: FlowsOptions) => showFlows(deps, options))),
};

async function showFlows(deps: CliDeps, options: FlowsOptions): Promise<void> {
  const { rule, backend, protocol, source, state, reason, sort, limit } = options;
  const query = { rule, backend, protocol, source, state, reason, sort, limit };
  const client = await clientFor(deps, options);
  if (options.json) printJson(deps, await client.flows(query));
  else {
    const [list, pools] = await Promise.all([client.flows(query), client.pools()]);
    const layout = { ...layoutOf(deps), names: backendNames(pools), sort };
    printLines(deps, [...(list.flows.length === 0 ? [] : formatFlows(list.flows, layout)), countText(list)]);
  }
}

function countText({ flows: { length }, matched, next }: FlowList): string {
  if (length === matched && next === undefined) return words.plural(matched, 'flow');
  const of = next === undefined ? ` of ${words.count(matched)}` : '';
  return `${words.count(length)}${of} flows shown (--limit shows more, filters fewer)`;
}

/** A flow, and the name of its backend. */
interface FlowRow {
  readonly flow: FlowView;
  readonly backend: string;
}

/** Left out where no rate is known. */
const RATE = 'BIT/S';

const COLUMNS: readonly format.TableColumn<FlowRow>[] = [
  format.left('PROTO', ({ flow }) => flow.tuple.protocol, { importance: 6.5, minimum: 5 }),
  format.left('CLIENT', ({ flow }) => words.clientOf(flow.tuple), { importance: 12, minimum: 47 }),
  format.left('FRONTEND', ({ flow }) => words.frontendOf(flow.tuple), { importance: 6, minimum: 21 }),
  format.left('BACKEND', ({ backend }) => backend, { importance: 11, minimum: 10 }),
  format.left('REASON', ({ flow }) => flow.reason, { importance: 9, minimum: 10 }),
  format.left('STATE', ({ flow }) => flow.state, { importance: 4, minimum: 11 }),
  format.right('AGE', ({ flow }, nowMs) => words.span(nowMs - flow.openedAtMs), 10),
  format.right('IDLE', ({ flow }) => words.span(flow.idleMs), 8),
  format.right('TO IT', ({ flow }) => words.bytes(flow.bytesToBackend), 3),
  format.right('FROM IT', ({ flow }) => words.bytes(flow.bytesToClient), 3),
  format.right(RATE, ({ flow: { bitsPerSecond: rate } }) => (rate === undefined ? '-' : words.si(rate)), 7),
  format.left('RULE', ({ flow }) => flow.rule, { importance: 2, minimum: 8 }),
  format.left('ENDPOINT', ({ flow }) => flow.backendEndpoint, { importance: 1, minimum: 12 }),
];

/** The columns that flows are sorted by give way last. */
const SORTED_BY: Readonly<Record<FlowSort, readonly string[]>> = {
  age: ['AGE'],
  idle: ['IDLE'],
  bytes: ['TO IT', 'FROM IT'],
  rate: [RATE],
  none: [],
};

const FOREMOST = 13;

/** Names of backends by id, for showing flows. */
export function backendNames(pools: readonly BackendPoolView[]): ReadonlyMap<string, string> {
  return new Map(
    pools.flatMap(({ backends }) => backends.map(({ id, pool, name }) => [id, `${pool}/${name}`])),
  );
}

interface FlowsLayout extends format.Layout {
  /** Of backends, by id. */
  readonly names: ReadonlyMap<string, string>;
  /** What the flows are sorted by. @default 'none' */
  readonly sort?: FlowSort;
}

/** A table of flows, title first. Addresses are not shortened before all else is gone. */
export function formatFlows(
  flows: readonly FlowView[],
  { names, sort = 'none', ...layout }: FlowsLayout,
): readonly string[] {
  const hasRates = flows.some(({ bitsPerSecond }) => bitsPerSecond !== undefined);
  const columns = COLUMNS.filter(({ title }) => hasRates || title !== RATE).map((column) =>
    SORTED_BY[sort].includes(column.title) ? { ...column, importance: FOREMOST } : column,
  );
  const rows = flows.map((flow) => ({ flow, backend: names.get(flow.backendId) ?? flow.backendId }));
  return format.table(columns, rows, layout);
}

/** Remembered events come at once; a pause this long is their end. */
const QUIET_MS = 300;

interface EventsOptions extends LiveOptions {
  readonly follow: boolean;
  readonly since?: number;
}

/** What happened, as the log has it; with --follow as it happens. */
export const events: CliCommand = {
  name: 'events',
  summary: 'show what has happened: health, drains, reloads, operators',
  examples: ['haports events', 'haports events --follow --json', 'haports events --since 1200'],
  notes: `
Ids grow by one with each event; --follow shows only new ones unless --since says from where.`,
  exitCodes: '0 fine; 1 no process answers, or it refused; 2 bad usage',
  define: (command, { deps, run }) =>
    addConnection(command, 'one event a line as JSON')
      .option('-f, --follow', 'keep showing events as they happen', false)
      .option('--since <id>', 'only events with a higher id', wholeNumber(0, Number.MAX_SAFE_INTEGER))
      .action(run((options: EventsOptions) => showEvents(deps, options))),
};

const CONNECTION = {
  lost: 'Connection lost, reconnecting',
  restored: 'Reconnected',
  restarted: 'Another haports process answers now; its events from the first on',
} as const;

async function showEvents(deps: CliDeps, { json, follow, since, ...options }: EventsOptions): Promise<void> {
  const client = await clientFor(deps, options);
  const interrupt = interruptible(deps);
  const { signal } = interrupt;
  const onConnection = (change: keyof typeof CONNECTION): void =>
    deps.err(`haports: ${CONNECTION[change]}\n`);
  try {
    const source = follow
      ? followEvents(client, deps.clock, { since, signal, onConnection })
      : await rememberedEvents(client, deps.clock, { since: since ?? 0, signal });
    for await (const event of source) {
      if (json) printJsonLine(deps, event);
      else printLines(deps, [formatEvent(event)]);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    interrupt.release();
  }
}

/** `2026-11-20T12:03:04.123Z  17 warn  health-changed  nva-1 is down: HTTP 503`. */
export function formatEvent({ id, atMs, level, type, message }: FeedEvent): string {
  return format.printable(`${new Date(atMs).toISOString()}  ${id} ${level.padEnd(5)} ${type}  ${message}`);
}

/** The server sends a comment every 15 s: three missing ones mean a lost connection. */
const SILENCE_MS = 45_000;

const FIRST_RETRY_MS = 250;
const MAXIMUM_RETRY_MS = 5000;

interface FollowOptions {
  /** Remembered events with an id above this come first; absent: only new ones. */
  readonly since?: number;
  readonly signal: AbortSignal;
  /** Called when the connection is lost, and when it is back. */
  readonly onConnection: (change: 'lost' | 'restored' | 'restarted') => void;
}

/**
 * Events as they happen, until aborted. After a broken connection it continues after the last event; a process that
 * was restarted counts its events from 1 again and is followed from its first. Throws if the first connection fails,
 * as AdminClient does.
 */
async function* followEvents(
  client: AdminClient,
  clock: Clock,
  { since, signal, onConnection }: FollowOptions,
): AsyncGenerator<FeedEvent, void> {
  const backoff = new Backoff({ firstMs: FIRST_RETRY_MS, maxMs: MAXIMUM_RETRY_MS });
  const isOver = (): boolean => signal.aborted;
  let last = since;
  let server: StatusView | undefined;
  for (;;) {
    let isConnected = false;
    try {
      const now = await client.status({}, { signal });
      const isAnother = now.pid !== server?.pid || now.startedAtMs !== server.startedAtMs;
      if (server !== undefined && isAnother) last = 0;
      const connection = await connect(client, last, signal);
      if (server !== undefined) onConnection(isAnother ? 'restarted' : 'restored');
      server = now;
      isConnected = true;
      for await (const event of eventsOf(connection)) {
        last = event.id;
        backoff.reset();
        yield event;
      }
    } catch (error) {
      if (!isOver() && (server === undefined || error instanceof SyntaxError)) throw error;
    }
    if (isConnected && !isOver()) onConnection('lost');
    await pause(clock, backoff.nextMs(), signal);
    if (isOver()) return;
  }
}

/**
 * Events that the process remembers with an id above `since`, oldest first: what comes before a pause of QUIET_MS, or
 * within ten times that where events never cease.
 */
async function rememberedEvents(
  client: AdminClient,
  clock: Clock,
  options: { readonly since: number; readonly signal: AbortSignal },
): Promise<readonly FeedEvent[]> {
  const connection = await connect(client, options.since, options.signal);
  const events: FeedEvent[] = [];
  const quiet = (): void => void connection.destroy();
  let cancel = clock.setTimer(QUIET_MS, quiet);
  const cancelLimit = clock.setTimer(QUIET_MS * 10, quiet);
  try {
    for await (const event of eventsOf(connection)) {
      events.push(event);
      cancel();
      cancel = clock.setTimer(QUIET_MS, quiet);
    }
  } catch (error) {
    if (!connection.destroyed) throw error;
  } finally {
    cancel();
    cancelLimit();
    connection.destroy();
  }
  return events;
}

async function connect(
  client: AdminClient,
  since: number | undefined,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const response = await sendRequest(client.target, {
    method: 'GET',
    path: `${ROUTES.events.path}${since === undefined ? '' : `?since=${since}`}`,
    headers: {
      accept: 'text/event-stream',
      ...(since !== undefined && { 'last-event-id': String(since) }),
    },
    timeoutMs: SILENCE_MS,
    signal,
  });
  if (response.statusCode === 200) return response;
  throw problemOf(response.statusCode ?? 0, await readBody(client.target, response));
}

/** Destroys the response in the end. */
async function* eventsOf(response: IncomingMessage): AsyncGenerator<FeedEvent, void> {
  for await (const data of eventData(response.setEncoding('utf8'))) yield JSON.parse(data) as FeedEvent;
}
