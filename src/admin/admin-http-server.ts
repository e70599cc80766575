import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { getRequestListener, type HttpBindings } from '@hono/node-server';
import type { Hono } from 'hono';
import type { AdminOptions } from '../model/configuration.js';
import { errorProblem, usageError } from './error-problem.js';
import type { RequestGuard } from './request-guard.js';
import type { AdminEnv } from './routes/admin-env.js';
import { withSecurityHeaders } from './security-headers.js';

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
export function createAdminHttpServer(app: Hono<AdminEnv>, options: AdminHttpServerOptions): Server {
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
  const server: Server =
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
