import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';
import { dashboardRoutes } from '../../../../src/admin/dashboard.js';
import { problem } from '../../../../src/admin/problem.js';
import type { AdminState } from '../../../../src/model/configuration.js';
import type { BackendView, DrainStatus, FeedEvent } from '../../../../src/api/views.js';
import { checkAnswer } from '../../../support/contract.js';
import {
  DOWN,
  EXPLANATION,
  FRONTENDS,
  RULES,
  backend,
  drain,
  feedEvent,
  flow,
  pool,
  status,
} from './fixtures.js';

/** A write that the page asked for. */
export interface Written {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
}

/** The admin API with made-up answers, and the dashboard as it is served. For tests of the page only. */
export class FakeApi {
  readonly written: Written[] = [];
  /** Last-Event-ID of each event stream that was opened; undefined: none was sent. */
  readonly resumedFrom: (string | undefined)[] = [];
  /** Wanted as bearer token where set. */
  token: string | undefined;
  /** Refuse a drain with LB_CONFLICT until it is forced. */
  wantsForce = false;
  /** Answer 503 to everything but the page. */
  broken = false;
  backends: BackendView[] = [backend(1), backend(2), backend(3), backend(4, DOWN)];
  liveFlow = false;
  problems: readonly string[] = [];
  #drain: DrainStatus | undefined;
  #events: FeedEvent[] = Array.from({ length: 12 }, (_, index) => feedEvent(index + 1));
  readonly #streams = new Set<ReadableStreamDefaultController<Uint8Array>>();
  readonly #server: Server;
  port = 0;

  private constructor() {
    const listener = getRequestListener(this.#routes().fetch, { overrideGlobalObjects: false });
    this.#server = createServer((request, response) => void listener(request, response));
  }

  static async start(): Promise<FakeApi> {
    const api = new FakeApi();
    await api.#listen(0);
    return api;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  async #listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, '127.0.0.1', resolve);
    });
    this.port = (this.#server.address() as AddressInfo).port;
  }

  /** Closes every connection and the port, as a process that dies. */
  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    this.#streams.clear();
    await closed;
  }

  /** The same port again. */
  async startAgain(): Promise<void> {
    await this.#listen(this.port);
  }

  cutStreams(): void {
    for (const stream of this.#streams) stream.close();
    this.#streams.clear();
  }

  tell(event: FeedEvent): void {
    this.#events.push(event);
    for (const stream of this.#streams) stream.enqueue(frame(event));
  }

  /** Flows that the drained backend still has. */
  setDrain(flowsLeft: number | undefined): void {
    this.#drain = flowsLeft === undefined ? undefined : drain(flowsLeft);
  }

  #pool() {
    const drained = this.#drain;
    return pool(
      this.backends.map((one) =>
        drained?.backendId !== one.id
          ? one
          : { ...one, serving: false, exclusion: 'draining', hashShare: 0, drain: drained },
      ),
    );
  }

  #routes(): Hono {
    const app = new Hono();
    app.route('/', dashboardRoutes());
    app.use('/v1/*', async (context, next) => {
      if (this.broken)
        return problem(503, 'Not ready', { detail: 'The data plane does not answer', code: 'LB_INTERNAL' });
      if (this.token !== undefined && context.req.header('authorization') !== `Bearer ${this.token}`) {
        return problem(401, 'Unauthorized', { detail: 'No token was given', code: 'LB_UNAUTHORIZED' });
      }
      if (!['GET', 'HEAD'].includes(context.req.method)) {
        const text = await context.req.text();
        this.written.push({
          method: context.req.method,
          path: new URL(context.req.url).pathname,
          body: text === '' ? undefined : JSON.parse(text),
        });
      }
      await next();
      await assertContract(context.req.method, context.req.path, context.res);
      return undefined;
    });
    app.get('/v1/status', () =>
      Response.json({ ...status(this.#drain === undefined ? [] : [this.#drain]), problems: this.problems }),
    );
    app.get('/v1/frontends', () => Response.json(FRONTENDS));
    app.get('/v1/rules', () => Response.json(RULES));
    app.get('/v1/pools', () => Response.json([this.#pool()]));
    app.get('/v1/flows', (context) => {
      const protocol = context.req.query('protocol');
      const all = Array.from({ length: 60 }, (_, index) => flow(index + 1));
      const flows = all.filter(({ tuple }) => protocol === undefined || tuple.protocol === protocol);
      return Response.json({ flows, matched: flows.length });
    });
    app.get('/v1/explain', (context) => {
      const destination = context.req.query('destination');
      if (destination !== '127.0.0.1:8000') {
        const detail = `"destination" is ${JSON.stringify(destination)}, must be an address and a port`;
        return problem(400, 'Bad request', { detail, code: 'LB_USAGE' });
      }
      const tuple = {
        protocol: 'tcp' as const,
        source: '192.0.2.7',
        sourcePort: 40_000,
        destination: '127.0.0.1',
        destinationPort: 8000,
      };
      const live = flow(1, { tuple, backendId: 'nvas/127.0.0.13', reason: 'pinned' });
      return Response.json(this.liveFlow ? { ...EXPLANATION, flow: live } : EXPLANATION);
    });
    app.put('/v1/backends/:pool/:backend/admin-state', async (context) => {
      const { adminState } = await context.req.json<{ adminState: AdminState | 'configured' }>();
      const address = context.req.param('backend');
      this.backends = this.backends.map((one) =>
        one.address !== address
          ? one
          : {
              ...one,
              adminState: adminState === 'configured' ? 'none' : adminState,
              adminStateOrigin: adminState === 'configured' ? 'configured' : 'operator',
            },
      );
      return new Response(null, { status: 204 });
    });
    app.post('/v1/backends/:pool/:backend/drain', async (context) => {
      const { force } = await context.req.json<{ force: boolean }>();
      if (this.wantsForce && !force) {
        const detail = 'Pool "nvas" would have 0 serving backends, must keep 1';
        return problem(409, 'Conflict', { detail, code: 'LB_CONFLICT' });
      }
      this.#drain = drain(40);
      return Response.json(this.#drain, { status: 202 });
    });
    app.delete('/v1/backends/:pool/:backend/drain', () => {
      this.#drain = undefined;
      return new Response(null, { status: 204 });
    });
    app.get('/v1/events', (context) => {
      const lastId = context.req.header('last-event-id');
      this.resumedFrom.push(lastId);
      const since = Number(lastId ?? context.req.query('since'));
      const missed = this.#events.filter(({ id }) => id > since);
      let own: ReadableStreamDefaultController<Uint8Array> | undefined;
      const body = new ReadableStream<Uint8Array>({
        start: (controller) => {
          own = controller;
          controller.enqueue(new TextEncoder().encode(': hello\n\n'));
          for (const event of missed) controller.enqueue(frame(event));
          this.#streams.add(controller);
        },
        cancel: () => {
          if (own !== undefined) this.#streams.delete(own);
        },
      });
      return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
    });
    return app;
  }
}

async function assertContract(method: string, path: string, response: Response): Promise<void> {
  if (response.headers.get('content-type') === 'text/event-stream') return;
  const text = await response.clone().text();
  checkAnswer(method, path, response.status, text === '' ? undefined : JSON.parse(text));
}

function frame(event: FeedEvent): Uint8Array {
  return new TextEncoder().encode(
    `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`,
  );
}
