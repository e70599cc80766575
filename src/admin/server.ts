import { randomBytes } from 'node:crypto';
import {
  createServer,
  createServer as createHttpServer,
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { connect, type Server } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { getRequestListener, type HttpBindings } from '@hono/node-server';
import { Hono } from 'hono';
import type { Operations } from '../api/contract.js';
import { formatEndpoint } from '../model/address.js';
import type { AdminOptions, ListenAddress } from '../model/configuration.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import type { FileIdentity, SocketFiles } from '../runtime/files.js';
import type { Logger } from '../runtime/logger.js';
import { createRequestGuard, type RequestGuard } from './guard.js';
import { errorProblem, problem, usageError } from './problem.js';
import { createAdminRoutes, type AdminEnv } from './routes.js';
import { EventStreams, type EventFeedSource, type EventStreamsOptions } from './sse.js';

export interface AdminServerDependencies {
  readonly operations: Operations;
  readonly events: EventFeedSource;
  readonly clock: Clock;
  readonly logger: Logger;
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
  /** Connections on which nothing moves for so long are closed. @default 120000 */
  readonly silenceTimeoutMs?: number;
  readonly streams?: EventStreamsOptions;
}

/** How long answers under way may take when the server stops. */
const STOP_GRACE_MS = 1000;

/**
 * The admin API and dashboard on a Unix socket (mode 0600) and on an address. Size, number and duration of requests are
 * bounded. Owns its sockets from `start` to `stop`.
 */
export class AdminServer {
  readonly #streams: EventStreams;
  readonly #socket: UnixSocketPlace | undefined;
  readonly #listen: AdminOptions;
  readonly #create: (kind: 'socket' | 'http') => HttpServer;
  readonly #servers: HttpServer[] = [];
  #stopped: Promise<void> | undefined;

  constructor(deps: AdminServerDependencies, options: AdminServerOptions) {
    const { operations, events, clock, logger, files } = deps;
    const { listen, takeOver = false } = options;
    this.#listen = listen;
    this.#streams = new EventStreams({ feed: events, clock }, options.streams);
    const { socket, tls, token } = listen;
    this.#socket = socket === undefined ? undefined : new UnixSocketPlace(files, { path: socket, takeOver });
    const app = createAdminRoutes({ operations, streams: this.#streams, logger });
    const limits = {
      maxConnections: options.maxConnections ?? 64,
      requestTimeoutMs: options.requestTimeoutMs ?? 30_000,
      silenceTimeoutMs: options.silenceTimeoutMs ?? 120_000,
    };
    const scheme = tls === undefined ? 'http' : 'https';
    const guard = createRequestGuard({ scheme, ...(token === undefined ? {} : { token }) });
    this.#create = (kind) => {
      const more = kind === 'socket' ? {} : { guard, ...(tls === undefined ? {} : { tls }) };
      const server = createAdminHttpServer(app, { ...limits, ...more });
      // A failed accept (EMFILE) is not the end of the process.
      server.on('error', () => undefined);
      this.#servers.push(server);
      return server;
    };
  }

  /**
   * Listens. Rejects with `LB_LISTEN_FAILED`, and everything closed again, where that is not possible. Resolves with the
   * port of the address, also for port 0.
   */
  async start(): Promise<{ readonly httpPort?: number }> {
    const { http } = this.#listen;
    try {
      await this.#socket?.listen(this.#create('socket'));
      const httpPort = http === undefined ? undefined : await this.#listenHttp(http);
      return httpPort === undefined ? {} : { httpPort };
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

  async #listenHttp({ address, port }: ListenAddress): Promise<number> {
    try {
      const server = this.#create('http');
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host: address.text, port, exclusive: true }, () => {
          server.off('error', reject);
          resolve();
        });
      });
      const bound = server.address();
      return bound === null || typeof bound === 'string' ? port : bound.port;
    } catch (cause) {
      const found = errorCode(cause) ?? errorMessage(cause);
      const message = `Cannot listen for the admin API on ${formatEndpoint(address, port)} (${found}): "admin.http" must be a free address and port of this machine`;
      throw new BalancerError(message, { code: 'LB_LISTEN_FAILED', source: 'system', cause });
    }
  }
}

function closeServer(server: HttpServer): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}

export interface AdminHttpServerOptions {
  readonly tls?: AdminOptions['tls'];
  /** Undefined: whoever can connect may do everything, and by any name. */
  readonly guard?: RequestGuard;
  /** Connections at a time; further ones are closed at once. */
  readonly maxConnections: number;
  /** For the whole request to arrive. */
  readonly requestTimeoutMs: number;
  /** Connections on which nothing moves for so long are closed. Longer than the heartbeat of event streams. */
  readonly silenceTimeoutMs: number;
}

/** A server that is yet to listen. Throws where certificate and key cannot be used. */
export function createAdminHttpServer(app: Hono<AdminEnv>, options: AdminHttpServerOptions): HttpServer {
  const { tls, guard, requestTimeoutMs } = options;
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
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    // Of no meaning on a Unix socket, so that a strange one is not even parsed.
    if (guard === undefined) request.headers.host = 'localhost';
    respond(request, response).catch(() => response.destroy());
  };
  const limits = {
    maxHeaderSize: 16_384,
    headersTimeout: Math.min(5000, requestTimeoutMs),
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: 5000,
    connectionsCheckingInterval: Math.min(1000, requestTimeoutMs),
    keepAlive: true,
  };
  const server: HttpServer =
    tls === undefined
      ? createHttpServer(limits, listener)
      : createHttpsServer(
          {
            ...limits,
            cert: tls.certificate,
            key: tls.key,
            minVersion: 'TLSv1.2',
            handshakeTimeout: requestTimeoutMs,
          },
          listener,
        );
  server.maxHeadersCount = 64;
  server.maxConnections = options.maxConnections;
  server.timeout = options.silenceTimeoutMs;
  return server;
}

export interface UnixSocketOptions {
  readonly path: string;
  /** Takes the path from a process that still answers there: it hands over to this one. @default false */
  readonly takeOver?: boolean;
}

/** sun_path of Linux holds 108 bytes, one of them the zero at the end (unix(7)). */
const MAX_PATH_BYTES = 107;

const CONNECT_TIMEOUT_MS = 2000;

/** Nobody but the owner may connect: that takes write permission (unix(7)). */
const OWNER_ONLY_UMASK = 0o177;

/**
 * The place of a Unix socket in the file system. The server binds another name beside it, with mode 0600 from the
 * first moment, which is then renamed: at no time is there a path without a listener, and when the server closes, libuv
 * removes the name that was bound, which by then may not be that of a successor.
 */
export class UnixSocketPlace {
  readonly #files: SocketFiles;
  readonly #path: string;
  readonly #takeOver: boolean;
  #ownId: string | undefined;

  constructor(files: SocketFiles, { path, takeOver }: UnixSocketOptions) {
    this.#files = files;
    this.#path = path;
    this.#takeOver = takeOver ?? false;
  }

  /**
   * Makes the server listen here. Rejects with `LB_LISTEN_FAILED` where the path is too long, is no socket, or another
   * process answers on it. A socket that nobody answers on is replaced.
   */
  async listen(server: Server): Promise<void> {
    if (Buffer.byteLength(this.#path) > MAX_PATH_BYTES) {
      throw this.#failed(`it has ${Buffer.byteLength(this.#path)} bytes, must be at most ${MAX_PATH_BYTES}`);
    }
    try {
      await this.#assertFree();
      const temporary = temporaryName(this.#path);
      await bind(server, temporary);
      this.#ownId = (await this.#files.identify(temporary))?.id;
      await this.#files.rename(temporary, this.#path);
    } catch (cause) {
      if (cause instanceof BalancerError) throw cause;
      throw this.#failed(errorCode(cause) ?? errorMessage(cause), cause);
    }
  }

  /** Removes the socket, unless another process has taken the path. Never rejects. */
  async release(): Promise<void> {
    const ownId = this.#ownId;
    this.#ownId = undefined;
    if (ownId === undefined) return;
    try {
      if ((await this.#files.identify(this.#path))?.id === ownId) await this.#files.remove(this.#path);
    } catch {
      // A socket that nobody answers on is in nobody's way.
    }
  }

  async #assertFree(): Promise<void> {
    const found: FileIdentity | undefined = await this.#files.identify(this.#path);
    if (found === undefined) return;
    if (!found.isSocket) throw this.#failed('there is something else that is no socket');
    if (this.#takeOver) return;
    const refusal = await connectionRefusal(this.#path);
    if (refusal === undefined) throw this.#failed('another process answers there');
    // Refused: bound once, and closed since. Everything else, a full backlog (EAGAIN) too, is no proof of that.
    if (refusal !== 'ECONNREFUSED' && refusal !== 'ENOENT') {
      throw this.#failed(`whether another process listens there cannot be told (${refusal})`);
    }
  }

  #failed(found: string, cause?: unknown): BalancerError {
    const message = `Cannot listen for the admin API on "${this.#path}": ${found}; "admin.socket" must be a path where a Unix socket can be made`;
    return new BalancerError(message, { code: 'LB_LISTEN_FAILED', source: 'system', cause });
  }
}

/** A name in the same folder that is no longer than the path, or short. */
function temporaryName(path: string): string {
  const room = MAX_PATH_BYTES - Buffer.byteLength(path) + Buffer.byteLength(basename(path));
  return join(dirname(path), `.${randomBytes(8).toString('hex')}`.slice(0, room));
}

/** Libuv binds within the call, so nothing else of this thread is made with this umask. */
async function bind(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    const umask = process.umask(OWNER_ONLY_UMASK);
    try {
      server.listen({ path }, () => {
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(umask);
    }
  });
}

/** The system's code; undefined: somebody answers. */
function connectionRefusal(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path, timeout: CONNECT_TIMEOUT_MS });
    const settle = (refusal: string | undefined): void => {
      socket.destroy();
      resolve(refusal);
    };
    socket.once('connect', () => settle(undefined));
    socket.once('timeout', () => settle('ETIMEDOUT'));
    socket.on('error', (error) => settle(errorCode(error) ?? errorMessage(error)));
  });
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
export function withSecurityHeaders(response: Response): Response {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) if (!headers.has(name)) headers.set(name, value);
  return new Response(response.body, { status: response.status, headers });
}

export interface MetricsServerOptions {
  readonly listen: ListenAddress;
  /** How long a liveness or readiness check may take. @default 2000 */
  readonly livenessTimeoutMs?: number;
  /** Connections at a time; further ones are closed at once. @default 64 */
  readonly maxConnections?: number;
  /** For the whole request to arrive. @default 5000 */
  readonly requestTimeoutMs?: number;
}

/** How long answers under way may take when the server stops. */
const METRICS_SERVER_STOP_GRACE_MS = 1000;

/**
 * The HTTP server for scrapers and health checks. It reads nothing of a request but method and path; size, number
 * and duration of requests are bounded. Owns its socket from `start` to `stop`.
 */
export class MetricsServer {
  readonly #server: HttpServer;
  readonly #listen: ListenAddress;
  #stopped: Promise<void> | undefined;

  constructor(deps: MetricsRoutesDependencies, options: MetricsServerOptions) {
    this.#listen = options.listen;
    const routes = metricsRoutes(deps, { livenessTimeoutMs: options.livenessTimeoutMs ?? 2000 });
    const respond = getRequestListener(routes.fetch, { overrideGlobalObjects: false });
    const requestTimeoutMs = options.requestTimeoutMs ?? 5000;
    this.#server = createServer(
      {
        maxHeaderSize: 8192,
        headersTimeout: requestTimeoutMs,
        requestTimeout: requestTimeoutMs,
        keepAliveTimeout: 5000,
        connectionsCheckingInterval: Math.min(1000, requestTimeoutMs),
      },
      (request, response) => {
        // Nothing here depends on the name we were called by, so a strange one is not even parsed.
        request.headers.host = 'localhost';
        respond(request, response).catch(() => response.destroy());
      },
    );
    this.#server.maxHeadersCount = 64;
    this.#server.maxConnections = options.maxConnections ?? 64;
  }

  /** Listens. Rejects with `LB_LISTEN_FAILED` where that is not possible. Resolves with the port, also for port 0. */
  async start(): Promise<number> {
    const { address, port } = this.#listen;
    await new Promise<void>((resolve, reject) => {
      const failed = (cause: Error) => {
        const found = errorCode(cause) ?? errorMessage(cause);
        const message = `Cannot listen for metrics on ${formatEndpoint(address, port)} (${found}): "metrics.listen" must be a free address and port of this machine`;
        reject(new BalancerError(message, { code: 'LB_LISTEN_FAILED', source: 'system', cause }));
      };
      this.#server.once('error', failed);
      this.#server.listen({ host: address.text, port, exclusive: true }, () => {
        this.#server.off('error', failed);
        // A failed accept (EMFILE) is not the end of the process.
        this.#server.on('error', () => undefined);
        resolve();
      });
    });
    const bound = this.#server.address();
    return bound === null || typeof bound === 'string' ? port : bound.port;
  }

  /** Stops listening, lets answers under way end, then closes what is left. Idempotent; never rejects. */
  stop(): Promise<void> {
    this.#stopped ??= new Promise((resolve) => {
      const timer = setTimeout(() => this.#server.closeAllConnections(), METRICS_SERVER_STOP_GRACE_MS);
      this.#server.close(() => {
        clearTimeout(timer);
        resolve();
      });
      this.#server.closeIdleConnections();
    });
    return this.#stopped;
  }
}

/** What the routes show; the server owns none of it. */
export interface MetricsRoutesDependencies {
  /** Text of one scrape. */
  readonly metrics: { render(): Promise<{ readonly contentType: string; readonly body: string }> };
  readonly liveness: readonly LivenessCheck[];
  readonly readiness: () => Readiness | Promise<Readiness>;
  readonly clock: Clock;
}

export interface MetricsRoutesOptions {
  /** How long a liveness or readiness check may take, in ms. */
  readonly livenessTimeoutMs: number;
}

/** `GET /metrics`, `/healthz`, `/readyz` (HEAD too); everything else is a problem document. */
export function metricsRoutes(deps: MetricsRoutesDependencies, options: MetricsRoutesOptions): Hono {
  const app = new Hono();
  app.get('/metrics', async () => {
    const { contentType, body } = await deps.metrics.render();
    return new Response(body, { headers: { 'content-type': contentType, 'cache-control': 'no-store' } });
  });
  app.get('/healthz', async () =>
    verdict('Not healthy', await livenessReasons(deps.liveness, options.livenessTimeoutMs, deps.clock)),
  );
  app.get('/readyz', async () =>
    verdict('Not ready', await readinessReasons(deps.readiness, options.livenessTimeoutMs, deps.clock)),
  );
  for (const path of ['/metrics', '/healthz', '/readyz']) {
    app.all(path, () => problem(405, 'Only GET and HEAD are allowed', { headers: { allow: 'GET, HEAD' } }));
  }
  app.notFound(() => problem(404, 'There are only /metrics, /healthz and /readyz'));
  // Nothing of the error is told to whoever asked.
  app.onError(() => problem(500, 'Internal error'));
  return app;
}

function verdict(title: string, reasons: Reasons): Response {
  const headers = { 'cache-control': 'no-store' };
  if (reasons.length > 0) return problem(503, title, { reasons, headers });
  return Response.json({ status: 'ok' }, { headers });
}

/** Something that must answer for the process to count as alive: the control loop, a data worker. */
export interface LivenessCheck {
  /** `control loop`, `data plane`. */
  readonly name: string;
  /** Resolves when it answers; a rejection counts as no. */
  answer(): Promise<unknown>;
}

/** What readiness is made of. */
export interface Readiness {
  /** A revision has been applied. */
  readonly applied: boolean;
  readonly openListeners: number;
  readonly stopping: boolean;
  /** Why nothing reaches the listeners; absent: they are reached. */
  readonly unsteered?: string;
}

/** Why not; empty: all is well. */
export type Reasons = readonly string[];

/** Asks and gives `timeoutMs`: not to know is not to be ready. Never rejects. */
export async function readinessReasons(
  ask: () => Readiness | Promise<Readiness>,
  timeoutMs: number,
  clock: Clock,
): Promise<Reasons> {
  const reasons: string[] = [];
  const answer = async () => {
    const readiness = await ask();
    if (!readiness.applied) reasons.push('No forwarding state has been applied yet');
    if (readiness.openListeners === 0) reasons.push('No listener is open');
    if (readiness.unsteered !== undefined) reasons.push(readiness.unsteered);
    if (readiness.stopping) reasons.push('The process is stopping');
  };
  const silence = await livenessReason({ name: 'data plane', answer }, timeoutMs, clock);
  return silence === undefined ? reasons : [silence];
}

/** Asks all at once and gives each `timeoutMs`. Never rejects. */
export async function livenessReasons(
  checks: readonly LivenessCheck[],
  timeoutMs: number,
  clock: Clock,
): Promise<Reasons> {
  const reasons = await Promise.all(checks.map((check) => livenessReason(check, timeoutMs, clock)));
  return reasons.filter((reason) => reason !== undefined);
}

async function livenessReason(
  check: LivenessCheck,
  timeoutMs: number,
  clock: Clock,
): Promise<string | undefined> {
  let cancel: (() => void) | undefined;
  const timeout = new Promise<string>((resolve) => {
    cancel = clock.setTimer(timeoutMs, () =>
      resolve(`The ${check.name} has not answered in ${timeoutMs} ms`),
    );
  });
  const answer = check.answer().then(
    () => undefined,
    (error: unknown) => `The ${check.name} failed: ${errorMessage(error)}`,
  );
  try {
    return await Promise.race([answer, timeout]);
  } finally {
    cancel?.();
  }
}
