import { createServer, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { getRequestListener, type HttpBindings } from '@hono/node-server';
import type { Hono } from 'hono';
import type { Operations } from '../api/contract.js';
import type { AdminOptions } from '../model/configuration.js';
import type { ControlEvent } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';
import type { SocketFiles } from '../runtime/files.js';
import { createRequestGuard, type RequestGuard } from './guard.js';
import { UnixSocketListener, closeServer, listenOn } from './listening.js';
import { errorProblem, usageError } from './problem.js';
import { createAdminRoutes, type AdminEnv } from './routes.js';
import { EventStreams, type EventFeedSource, type EventStreamsOptions } from './sse.js';

export interface AdminServerDependencies {
  readonly operations: Operations;
  readonly events: EventFeedSource;
  readonly clock: Clock;
  readonly onEvent: (event: ControlEvent) => void;
  readonly files: SocketFiles;
}

export interface AdminServerOptions {
  readonly listen: AdminOptions;
  /** Takes the Unix socket from a process that still answers on it. @default false */
  readonly takeOver?: boolean;
  /** Connections at a time, on each of socket and address. @default 64 */
  readonly maxConnections?: number;
  /** For the whole request to arrive. @default 30000 */
  readonly requestTimeoutMs?: number;
  /** Connections on which nothing moves for so long are closed. Longer than the heartbeat of streams. @default 120000 */
  readonly silenceTimeoutMs?: number;
  readonly streams?: EventStreamsOptions;
}

/**
 * The admin API and dashboard on a Unix socket (mode 0600) and on an address. Size, number and duration of requests are
 * bounded. Owns its sockets from `start` to `stop`.
 */
export class AdminServer {
  readonly #streams: EventStreams;
  readonly #listen: AdminOptions;
  readonly #socket: UnixSocketListener | undefined;
  readonly #create: (guard?: RequestGuard, tls?: AdminOptions['tls']) => Server;
  readonly #servers: Server[] = [];
  #stopped: Promise<void> | undefined;

  constructor(deps: AdminServerDependencies, options: AdminServerOptions) {
    const { operations, events, clock, files, onEvent } = deps;
    const { listen, takeOver } = options;
    this.#streams = new EventStreams({ feed: events, clock }, options.streams);
    this.#listen = listen;
    const { socket: path } = listen;
    this.#socket = path === undefined ? undefined : new UnixSocketListener(files, { path, takeOver });
    const app = createAdminRoutes({ operations, streams: this.#streams, onEvent });
    this.#create = (guard, tls) => {
      const server = createAdminHttpServer(app, { ...options, guard, tls });
      this.#servers.push(server);
      return server;
    };
  }

  /**
   * Listens. Rejects with `LB_LISTEN_FAILED`, and everything closed again, where that is not possible. Resolves with the
   * port of the address, also for port 0.
   */
  async start(): Promise<{ readonly httpPort?: number }> {
    const { http, tls, token } = this.#listen;
    try {
      await this.#socket?.listen(this.#create());
      if (http === undefined) return {};
      const guard = createRequestGuard({ scheme: tls === undefined ? 'http' : 'https', token });
      const words = { purpose: 'the admin API', key: 'admin.http' };
      return { httpPort: await listenOn(() => this.#create(guard, tls), http, words) };
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** Stops listening, ends event streams, lets answers under way end, then closes what is left. Never rejects. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    await this.#socket?.release();
    const closed = this.#servers.map(closeServer);
    this.#streams.closeAll();
    await Promise.all(closed);
  }
}

interface HttpServerOptions extends Omit<AdminServerOptions, 'listen'> {
  readonly tls: AdminOptions['tls'];
  /** Undefined: anyone who can connect may do everything, and by any name. */
  readonly guard: RequestGuard | undefined;
}

/** A server that is yet to listen. Throws where certificate and key cannot be used. */
function createAdminHttpServer(app: Hono<AdminEnv>, options: HttpServerOptions): Server {
  const { tls, guard, maxConnections = 64, requestTimeoutMs = 30_000, silenceTimeoutMs = 120_000 } = options;
  const fetch = async (request: Request, env: HttpBindings): Promise<Response> => {
    try {
      const { pathname } = new URL(request.url);
      guard?.({ method: request.method, path: pathname, headers: env.incoming.headers });
      return withSecurityHeaders(await app.fetch(request, env));
    } catch (error) {
      return withSecurityHeaders(errorProblem(error));
    }
  };
  const respond = getRequestListener((request, env) => fetch(request, env as HttpBindings), {
    overrideGlobalObjects: false,
    // Host or target make no URL: nothing else gets here.
    errorHandler: () =>
      withSecurityHeaders(errorProblem(usageError('Host or path of the request is no URL'))),
  });
  const limits = {
    maxHeaderSize: 16_384,
    headersTimeout: Math.min(5000, requestTimeoutMs),
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: 5000,
    connectionsCheckingInterval: Math.min(1000, requestTimeoutMs),
    keepAlive: true,
  };
  const server: Server =
    tls === undefined
      ? createServer(limits)
      : createHttpsServer({
          ...limits,
          cert: tls.certificate,
          key: tls.key,
          minVersion: 'TLSv1.2',
          handshakeTimeout: requestTimeoutMs,
        });
  server.on('request', (request, response) => {
    // Of no meaning on a Unix socket, so that a strange one is not even parsed.
    if (guard === undefined) request.headers.host = 'localhost';
    respond(request, response).catch(() => response.destroy());
  });
  server.maxHeadersCount = 64;
  server.maxConnections = maxConnections;
  server.timeout = silenceTimeoutMs;
  // A failed accept (EMFILE) is not the end of the process.
  server.on('error', () => undefined);
  return server;
}

/** On every answer, unless the answer says otherwise itself (the dashboard has a policy of its own). */
const HEADERS: Readonly<Record<string, string>> = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
};

/** The same answer with what keeps browsers from sniffing, storing, framing and embedding it. */
function withSecurityHeaders(response: Response): Response {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) if (!headers.has(name)) headers.set(name, value);
  return new Response(response.body, { status: response.status, headers });
}
