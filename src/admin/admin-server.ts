import type { Server } from 'node:http';
import { formatEndpoint } from '../model/address.js';
import type { AdminOptions, ListenAddress } from '../model/configuration.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';
import type { SocketFiles } from '../runtime/socket-files.js';
import { createAdminHttpServer } from './admin-http-server.js';
import { createAdminRoutes } from './admin-routes.js';
import { EventStreams, type EventStreamsOptions } from './event-stream.js';
import type { Operations } from './operations.js';
import { createRequestGuard } from './request-guard.js';
import { UnixSocketPlace } from './unix-socket.js';

export interface AdminServerDependencies {
  readonly operations: Operations;
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
  readonly #create: (kind: 'socket' | 'http') => Server;
  readonly #servers: Server[] = [];
  #stopped: Promise<void> | undefined;

  constructor(deps: AdminServerDependencies, options: AdminServerOptions) {
    const { operations, clock, logger, files } = deps;
    const { listen, takeOver = false } = options;
    this.#listen = listen;
    this.#streams = new EventStreams({ feed: operations.events, clock }, options.streams);
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

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}
