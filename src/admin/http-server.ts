import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { getRequestListener, type HttpBindings } from '@hono/node-server';
import { formatEndpoint } from '../model/address.js';
import type { AdminOptions, ListenAddress } from '../model/configuration.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import { errorProblem, usageError } from './problem.js';

export interface HttpServerOptions {
  readonly tls?: AdminOptions['tls'];
  /** Of the request line and all headers. @default 16384 */
  readonly maxHeaderBytes?: number;
  /** Connections at a time; further ones are closed at once. @default 64 */
  readonly maxConnections?: number;
  /** For the whole request to arrive. @default 30000 */
  readonly requestTimeoutMs?: number;
  /** Connections on which nothing moves for so long are closed. Longer than the heartbeat of streams. @default 120000 */
  readonly silenceTimeoutMs?: number;
  /** `Host` has no meaning: one that is no host name is not even parsed. @default false */
  readonly ignoreHost?: boolean;
}

/** What keeps browsers from sniffing, storing, framing and embedding an answer, unless the answer says otherwise. */
const HEADERS: Readonly<Record<string, string>> = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
};

function withSecurityHeaders(response: Response): Response {
  const headers = new Headers({ ...HEADERS, ...Object.fromEntries(response.headers) });
  return new Response(response.body, { status: response.status, headers });
}

/**
 * A server that is yet to listen; size, number and duration of requests are bounded. What `answer` throws becomes a
 * problem document. Throws where certificate and key cannot be used.
 */
export function createHttpServer(
  answer: (request: Request, bindings: HttpBindings) => Response | Promise<Response>,
  options: HttpServerOptions = {},
): Server {
  const { tls, maxConnections = 64, requestTimeoutMs = 30_000, silenceTimeoutMs = 120_000 } = options;
  const fetch = async (request: Request, bindings: HttpBindings): Promise<Response> => {
    try {
      return withSecurityHeaders(await answer(request, bindings));
    } catch (error) {
      return withSecurityHeaders(errorProblem(error));
    }
  };
  const respond = getRequestListener((request, bindings) => fetch(request, bindings as HttpBindings), {
    overrideGlobalObjects: false,
    // Host or target make no URL: nothing else gets here.
    errorHandler: () =>
      withSecurityHeaders(errorProblem(usageError('Host or path of the request is no URL'))),
  });
  const limits = {
    maxHeaderSize: options.maxHeaderBytes ?? 16_384,
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
    if (options.ignoreHost) request.headers.host = 'localhost';
    respond(request, response).catch(() => response.destroy());
  });
  server.maxHeadersCount = 64;
  server.maxConnections = maxConnections;
  server.timeout = silenceTimeoutMs;
  // A failed accept (EMFILE) does not end the process.
  server.on('error', () => undefined);
  return server;
}

/**
 * Makes the server that `create` gives listen on an address. Rejects with `LB_LISTEN_FAILED` where that is not possible,
 * in words that name `purpose` and the `key` of the configuration. Resolves with the port, also for port 0.
 */
export async function listenOn(
  create: () => Server,
  { address, port }: ListenAddress,
  { purpose, key }: { readonly purpose: string; readonly key: string },
): Promise<number> {
  try {
    const server = create().listen({ host: address.text, port, exclusive: true });
    await once(server, 'listening');
    const bound = server.address();
    return bound === null || typeof bound === 'string' ? port : bound.port;
  } catch (cause) {
    const found = errorCode(cause) ?? errorMessage(cause);
    const message = `Cannot listen for ${purpose} on ${formatEndpoint(address, port)} (${found}): "${key}" must be a free address and port of this machine`;
    throw new BalancerError(message, { code: 'LB_LISTEN_FAILED', source: 'system', cause });
  }
}

/** How long answers under way may take when a server stops. */
const STOP_GRACE_MS = 1000;

/** Stops listening, lets answers under way end, then closes what is left. Never rejects. */
export function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}
