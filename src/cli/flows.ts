import type { IncomingMessage } from 'node:http';
import { ROUTES, type Parsed, type Request } from '../api/contract.js';
import type { BackendPoolView, FeedEvent, FlowView } from '../api/views.js';
import { Backoff } from '../runtime/backoff.js';
import type { Clock } from '../runtime/clock.js';
import {
  type AdminClient,
  clientFor,
  clientOf,
  frontendOf,
  type LiveOptions,
  printJson,
  printJsonLine,
  printLines,
  problemOf,
  readBody,
  sendRequest,
} from './client.js';
import { EXIT, interruptible, pause, type CliDeps, type ExitCode } from './deps.js';
import {
  formatBytes,
  formatCount,
  formatSi,
  formatSpan,
  formatTable,
  plural,
  printable,
  type TableColumn,
} from './output.js';

export interface FlowsOptions extends LiveOptions, Omit<Request<'flows'>, 'after'> {
  readonly sort: FlowSort;
}

export type FlowSort = Parsed<'flows'>['sort'];

/** `haports flows`: live flows, filtered and sorted by the process. */
export async function flowsCommand(deps: CliDeps, options: FlowsOptions): Promise<ExitCode> {
  const { rule, backend, protocol, source, state, reason, sort, limit } = options;
  const client = await clientFor(deps, options);
  const query = { rule, backend, protocol, source, state, reason, sort, limit };
  if (options.json) {
    printJson(deps, await client.flows(query));
    return EXIT.fine;
  }
  const [list, pools] = await Promise.all([client.flows(query), client.pools()]);
  const { flows, matched } = list;
  const of = list.next === undefined ? ` of ${formatCount(matched)}` : '';
  printLines(deps, [
    ...(flows.length === 0
      ? []
      : formatFlows(flows, {
          nowMs: deps.clock.wallMs(),
          width: deps.terminal.size().columns,
          names: backendNames(pools),
          sort,
        })),
    flows.length < matched || list.next !== undefined
      ? `${formatCount(flows.length)}${of} flows shown (--limit shows more, filters fewer)`
      : plural(matched, 'flow'),
  ]);
  return EXIT.fine;
}

/** Left out where no rate is known. */
const RATE = 'BIT/S';

const COLUMNS: readonly TableColumn[] = [
  { title: 'PROTO', importance: 6.5, minimum: 5 },
  { title: 'CLIENT', importance: 12, minimum: 47 },
  { title: 'FRONTEND', importance: 6, minimum: 21 },
  { title: 'BACKEND', importance: 11, minimum: 10 },
  { title: 'REASON', importance: 9, minimum: 10 },
  { title: 'STATE', importance: 4, minimum: 11 },
  { title: 'AGE', align: 'right', importance: 10 },
  { title: 'IDLE', align: 'right', importance: 8 },
  { title: 'TO IT', align: 'right', importance: 3 },
  { title: 'FROM IT', align: 'right', importance: 3 },
  { title: RATE, align: 'right', importance: 7 },
  { title: 'RULE', importance: 2, minimum: 8 },
  { title: 'ENDPOINT', importance: 1, minimum: 12 },
];

/** Columns that tell why one flow stands before another: they give way last. */
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

/** A table of flows, title first. Addresses are not shortened before all else is gone. */
export function formatFlows(
  flows: readonly FlowView[],
  options: {
    readonly nowMs: number;
    readonly width: number;
    readonly names: ReadonlyMap<string, string>;
    /** What they are sorted by. @default 'none' */
    readonly sort?: FlowSort;
  },
): readonly string[] {
  const { nowMs, width, names, sort = 'none' } = options;
  const hasRates = flows.some(({ bitsPerSecond }) => bitsPerSecond !== undefined);
  const columns = COLUMNS.filter(({ title }) => hasRates || title !== RATE).map((column) =>
    SORTED_BY[sort].includes(column.title) ? { ...column, importance: FOREMOST } : column,
  );
  return formatTable(
    columns,
    flows.map((flow) => [
      flow.tuple.protocol,
      clientOf(flow.tuple),
      frontendOf(flow.tuple),
      names.get(flow.backendId) ?? flow.backendId,
      flow.reason,
      flow.state,
      formatSpan(nowMs - flow.openedAtMs),
      formatSpan(flow.idleMs),
      formatBytes(flow.bytesToBackend),
      formatBytes(flow.bytesToClient),
      ...(hasRates ? [flow.bitsPerSecond === undefined ? '-' : formatSi(flow.bitsPerSecond)] : []),
      flow.rule,
      flow.backendEndpoint,
    ]),
    { width },
  );
}

/** Remembered events come in one go; a pause this long is their end. */
const QUIET_MS = 300;

export interface EventsOptions extends LiveOptions {
  readonly follow: boolean;
  readonly since?: number;
}

/** `haports events`: what happened, as the log has it; with --follow as it happens. `--json`: one event a line. */
export async function eventsCommand(deps: CliDeps, options: EventsOptions): Promise<ExitCode> {
  const client = await clientFor(deps, options);
  const interrupt = interruptible(deps);
  const { signal } = interrupt;
  const print = (event: FeedEvent): void =>
    options.json ? printJsonLine(deps, event) : printLines(deps, [formatEvent(event)]);
  try {
    if (!options.follow) {
      const since = options.since ?? 0;
      for (const event of await rememberedEvents(client, deps.clock, { since, quietMs: QUIET_MS, signal })) {
        print(event);
      }
      return EXIT.fine;
    }
    const onConnection = (change: 'lost' | 'restored' | 'restarted'): void =>
      deps.err(`haports: ${CONNECTION[change]}\n`);
    const since = options.since === undefined ? {} : { since: options.since };
    for await (const event of followEvents(client, deps.clock, { ...since, signal, onConnection }))
      print(event);
    return EXIT.fine;
  } catch (error) {
    if (signal.aborted) return EXIT.fine;
    throw error;
  } finally {
    interrupt.release();
  }
}

const CONNECTION = {
  lost: 'The connection is lost, trying again',
  restored: 'The connection is there again',
  restarted: 'Another haports process answers now; its events from the first on',
} as const;

/** `2026-11-20T12:03:04.123Z  17 warn  health-changed  nva-1 is down: HTTP 503`. */
export function formatEvent({ id, atMs, level, type, message }: FeedEvent): string {
  return printable(`${new Date(atMs).toISOString()}  ${id} ${level.padEnd(5)} ${type}  ${message}`);
}

/** The server sends a comment every 15 s: three of them missing is a connection that is gone. */
const SILENCE_MS = 45_000;

const FIRST_RETRY_MS = 250;
const MAXIMUM_RETRY_MS = 5000;

export interface FollowOptions {
  /** Remembered events with an id above this come first; absent: only new ones. */
  readonly since?: number;
  readonly signal: AbortSignal;
  /** Told when the connection is lost, and when it is there again. */
  readonly onConnection?: (change: 'lost' | 'restored' | 'restarted') => void;
}

/**
 * Events as they happen, until aborted. A connection that breaks is made again and goes on after the last event; a
 * process that was started anew counts its events from 1 again and is followed from its first. Throws if the first
 * connection fails, as AdminClient does.
 */
export async function* followEvents(
  client: AdminClient,
  clock: Clock,
  options: FollowOptions,
): AsyncGenerator<FeedEvent, void> {
  const { signal, onConnection } = options;
  const backoff = new Backoff({ firstMs: FIRST_RETRY_MS, maxMs: MAXIMUM_RETRY_MS });
  const isOver = (): boolean => signal.aborted;
  let server = await client.status({}, { signal });
  let last = options.since;
  let connection = await connect(client, last, signal);
  for (;;) {
    try {
      for await (const event of eventsOf(connection)) {
        last = event.id;
        backoff.reset();
        yield event;
      }
    } catch (error) {
      if (!isOver() && error instanceof SyntaxError) throw error;
    } finally {
      connection.destroy();
    }
    if (isOver()) return;
    onConnection?.('lost');
    for (;;) {
      await pause(clock, backoff.nextMs(), signal);
      if (isOver()) return;
      try {
        const now = await client.status({}, { signal });
        const isAnother = now.pid !== server.pid || now.startedAtMs !== server.startedAtMs;
        server = now;
        if (isAnother) last = 0;
        connection = await connect(client, last, signal);
        onConnection?.(isAnother ? 'restarted' : 'restored');
        break;
      } catch {
        // Not there yet.
      }
    }
  }
}

/**
 * Events that the process remembers with an id above `since`, oldest first: what comes before `quietMs` of silence, or
 * ten times that where events never cease.
 */
export async function rememberedEvents(
  client: AdminClient,
  clock: Clock,
  options: { readonly since: number; readonly quietMs: number; readonly signal: AbortSignal },
): Promise<readonly FeedEvent[]> {
  const connection = await connect(client, options.since, options.signal);
  const events: FeedEvent[] = [];
  const quiet = (): void => void connection.destroy();
  let cancel = clock.setTimer(options.quietMs, quiet);
  const cancelLimit = clock.setTimer(options.quietMs * 10, quiet);
  try {
    for await (const event of eventsOf(connection)) {
      events.push(event);
      cancel();
      cancel = clock.setTimer(options.quietMs, quiet);
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
      ...(since === undefined ? {} : { 'last-event-id': String(since) }),
    },
    timeoutMs: SILENCE_MS,
    signal,
  });
  if (response.statusCode === 200) return response;
  throw problemOf(response.statusCode ?? 0, await readBody(client.target, response));
}

async function* eventsOf(response: IncomingMessage): AsyncGenerator<FeedEvent, void> {
  const parser = new EventStreamParser();
  response.setEncoding('utf8');
  for await (const piece of response) {
    for (const { data } of parser.feed(String(piece))) yield JSON.parse(data) as FeedEvent;
  }
}

/** One server-sent event. */
export interface ServerSentEvent {
  readonly id?: string;
  /** @default 'message' */
  readonly event: string;
  readonly data: string;
}

/**
 * Turns pieces of a text/event-stream into events, as the HTML standard, section 9.2.6 has it. Comments (heartbeats)
 * give nothing. Feed it decoded text in any pieces.
 */
export class EventStreamParser {
  #rest = '';
  #id: string | undefined;
  #event = '';
  #data: string[] = [];

  feed(piece: string): readonly ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    const text = this.#rest + piece;
    let from = 0;
    for (;;) {
      const end = /\r\n|\n|\r/g;
      end.lastIndex = from;
      const match = end.exec(text);
      // A CR at the very end may be the first half of CRLF.
      if (match === null || (match[0] === '\r' && match.index === text.length - 1)) break;
      const done = this.#line(text.slice(from, match.index));
      if (done !== undefined) events.push(done);
      from = match.index + match[0].length;
    }
    this.#rest = text.slice(from);
    return events;
  }

  #line(line: string): ServerSentEvent | undefined {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#event = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    return undefined;
  }

  #dispatch(): ServerSentEvent | undefined {
    const data = this.#data;
    const event = this.#event === '' ? 'message' : this.#event;
    this.#data = [];
    this.#event = '';
    if (data.length === 0) return undefined;
    return { event, data: data.join('\n'), ...(this.#id === undefined ? {} : { id: this.#id }) };
  }
}
