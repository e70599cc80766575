import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { successStatus } from '../../../src/api/contract.js';
import { feedEvent, type FeedEvent } from '../../../src/api/views.js';
import { assertShape, checkAnswer, routeOf } from '../../support/contract.js';

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  /** The query, as it was sent, with its `?`. */
  readonly search: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

export interface Answer {
  /** @default that of success, as the contract has it */
  readonly status?: number;
  /** JSON; absent: no body. */
  readonly json?: unknown;
  /** Instead of `json`, as it is. */
  readonly text?: string;
}

/** An admin API that answers what a test says, on a Unix socket or a loopback port, and remembers what it was asked. */
export class FakeAdmin {
  readonly seen: SeenRequest[] = [];
  /** By `GET /v1/status`; a function is called for each request. */
  readonly answers = new Map<string, Answer | ((request: SeenRequest) => Answer | Promise<Answer>)>();
  /** What `GET /v1/events` sends at once. */
  events: readonly FeedEvent[] = [];
  socket = '';
  port = 0;
  readonly #streams = new Set<ServerResponse>();
  readonly #server: Server;
  #folder = '';

  constructor() {
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
  }

  async start(): Promise<this> {
    this.#folder = await mkdtemp(join(tmpdir(), 'haports-cli-'));
    this.socket = join(this.#folder, 'haports.sock');
    this.#server.listen(this.socket);
    await once(this.#server, 'listening');
    return this;
  }

  /** On loopback instead. */
  async startTcp(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    const address = this.#server.address();
    if (typeof address === 'object' && address !== null) this.port = address.port;
    return this;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    if (this.#folder !== '') await rm(this.#folder, { recursive: true, force: true });
  }

  /** The requests, as `GET /v1/status`. */
  get asked(): readonly string[] {
    return this.seen.map(({ method, path }) => `${method} ${path}`);
  }

  get streams(): number {
    return this.#streams.size;
  }

  send(event: FeedEvent): void {
    for (const stream of this.#streams) stream.write(eventText(event));
  }

  /** Breaks every event stream. */
  cut(): void {
    for (const stream of this.#streams) stream.destroy();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.setEncoding('utf8');
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const url = new URL(request.url ?? '/', 'http://localhost');
    const seen: SeenRequest = {
      method: request.method ?? '',
      path: url.pathname,
      search: url.search,
      query: Object.fromEntries(url.searchParams),
      headers: request.headers,
      body,
    };
    this.seen.push(seen);
    if (seen.path === '/v1/events') {
      this.#streams.add(response);
      response.on('close', () => this.#streams.delete(response));
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const since = Number(seen.headers['last-event-id'] ?? seen.query['since'] ?? Infinity);
      response.write(': hello\n\n');
      for (const event of this.events.filter(({ id }) => id > since)) response.write(eventText(event));
      return;
    }
    const known = this.answers.get(`${seen.method} ${seen.path}`);
    const answer = typeof known === 'function' ? await known(seen) : known;
    const { json, text, ...sent } = checked(
      seen,
      answer ?? problem(404, 'LB_NOT_FOUND', 'This test has no such answer'),
    );
    const status = sent.status ?? successOf(seen);
    const type = status >= 400 ? 'application/problem+json' : 'application/json';
    response.writeHead(status, { 'content-type': type });
    response.end(text ?? (json === undefined ? '' : JSON.stringify(json)));
  }
}

function successOf({ method, path }: Pick<SeenRequest, 'method' | 'path'>): number {
  const route = routeOf(method, path);
  return route === undefined ? 200 : successStatus(route);
}

/** The answer, or why it is not what the contract says. */
function checked({ method, path }: Pick<SeenRequest, 'method' | 'path'>, answer: Answer): Answer {
  if (answer.text !== undefined) return answer;
  try {
    checkAnswer(method, path, answer.status ?? successOf({ method, path }), answer.json);
    return answer;
  } catch (error) {
    return problem(500, 'LB_INTERNAL', `This answer of the test is none of the API: ${String(error)}`);
  }
}

export function problem(status: number, code: string, detail: string, more: object = {}): Answer {
  return { status, json: { type: 'about:blank', status, title: 'Refused', detail, code, ...more } };
}

function eventText(event: FeedEvent): string {
  assertShape(feedEvent, event);
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}
