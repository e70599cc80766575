import { createServer, type Server } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import { formatEndpoint } from '../model/address.js';
import type { ListenAddress } from '../model/configuration.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import { metricsRoutes, type MetricsRoutesDependencies } from './metrics-routes.js';

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
const STOP_GRACE_MS = 1000;

/**
 * The HTTP server for scrapers and health checks. It reads nothing of a request but method and path; size, number
 * and duration of requests are bounded. Owns its socket from `start` to `stop`.
 */
export class MetricsServer {
  readonly #server: Server;
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
      const timer = setTimeout(() => this.#server.closeAllConnections(), STOP_GRACE_MS);
      this.#server.close(() => {
        clearTimeout(timer);
        resolve();
      });
      this.#server.closeIdleConnections();
    });
    return this.#stopped;
  }
}
