import type { Server } from 'node:http';
import type { AdminOptions } from '../model/configuration.js';
import type { SocketFiles } from '../runtime/files.js';
import { createRequestGuard } from './guard.js';
import { closeServer, createHttpServer, listenOn, type HttpServerOptions } from './http-server.js';
import { createAdminRoutes, type AdminRoutesDependencies } from './routes.js';
import { EventStreams, type EventStreamsDependencies, type EventStreamsOptions } from './sse.js';
import { UnixSocketListener } from './unix-socket.js';

export interface AdminServerDependencies
  extends Omit<AdminRoutesDependencies, 'streams'>, EventStreamsDependencies {
  readonly files: SocketFiles;
}

export interface AdminServerOptions extends Omit<HttpServerOptions, 'tls' | 'ignoreHost'> {
  readonly listen: AdminOptions;
  /** Takes the Unix socket from a process that still answers on it. @default false */
  readonly takeOver?: boolean;
  readonly streams?: EventStreamsOptions;
}

/**
 * The admin API and dashboard on a Unix socket (mode 0600) and on an address. Owns its sockets from `start` to `stop`.
 */
export class AdminServer {
  readonly #streams: EventStreams;
  readonly #options: AdminServerOptions;
  readonly #socket: UnixSocketListener | undefined;
  readonly #app: ReturnType<typeof createAdminRoutes>;
  readonly #servers: Server[] = [];
  #stopped: Promise<void> | undefined;

  constructor(deps: AdminServerDependencies, options: AdminServerOptions) {
    const { listen, takeOver } = options;
    this.#streams = new EventStreams(deps, options.streams);
    this.#options = options;
    this.#app = createAdminRoutes({ ...deps, streams: this.#streams });
    const { socket: path } = listen;
    this.#socket = path === undefined ? undefined : new UnixSocketListener(deps.files, { path, takeOver });
  }

  /**
   * Listens. Rejects with `LB_LISTEN_FAILED`, and everything closed again, where that is not possible. Resolves with the
   * port of the address, also for port 0.
   */
  async start(): Promise<{ readonly httpPort?: number }> {
    const { http } = this.#options.listen;
    try {
      await this.#socket?.listen(this.#createSocketServer());
      if (http === undefined) return {};
      const words = { purpose: 'the admin API', key: 'admin.http' };
      return { httpPort: await listenOn(() => this.#createGuardedServer(), http, words) };
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

  /** Anyone who can connect may do everything, and by any name. */
  #createSocketServer(): Server {
    const server = createHttpServer((request, env) => this.#app.fetch(request, env), {
      ...this.#options,
      ignoreHost: true,
    });
    this.#servers.push(server);
    return server;
  }

  #createGuardedServer(): Server {
    const { tls, token } = this.#options.listen;
    const guard = createRequestGuard({ scheme: tls === undefined ? 'http' : 'https', token });
    const server = createHttpServer(
      (request, env) => {
        const { pathname: path } = new URL(request.url);
        guard({ method: request.method, path, headers: env.incoming.headers });
        return this.#app.fetch(request, env);
      },
      { ...this.#options, tls },
    );
    this.#servers.push(server);
    return server;
  }
}
