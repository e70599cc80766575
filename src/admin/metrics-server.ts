import { createServer, type Server } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import type { ListenAddress } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import { inTime, type Clock } from '../runtime/clock.js';
import { closeServer, listenOn } from './listening.js';
import { problem } from './problem.js';

/** Something that must answer for the process to count as alive: the control loop, a data worker. */
export interface LivenessCheck {
  /** `control loop`, `data plane`. */
  readonly name: string;
  /** Resolves when it answers; a rejection counts as no. */
  readonly answer: () => Promise<unknown>;
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

/** What the server shows; it owns none of it. */
export interface MetricsServerDependencies {
  /** Text of one scrape. */
  readonly metrics: { render(): Promise<{ readonly contentType: string; readonly body: string }> };
  readonly liveness: readonly LivenessCheck[];
  readonly readiness: () => Readiness | Promise<Readiness>;
  readonly clock: Clock;
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

/**
 * The HTTP server for scrapers and health checks: `GET /metrics`, `/healthz` and `/readyz` (HEAD too). It reads nothing
 * of a request but method and path; size, number and duration of requests are bounded. Owns its socket from `start` to
 * `stop`.
 */
export class MetricsServer {
  readonly #server: Server;
  readonly #listen: ListenAddress;
  #stopped: Promise<void> | undefined;

  constructor(deps: MetricsServerDependencies, options: MetricsServerOptions) {
    const { listen, livenessTimeoutMs = 2000, maxConnections = 64, requestTimeoutMs = 5000 } = options;
    this.#listen = listen;
    const respond = getRequestListener(createAnswer(deps, livenessTimeoutMs), {
      overrideGlobalObjects: false,
    });
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
    this.#server.maxConnections = maxConnections;
    // A failed accept (EMFILE) is not the end of the process.
    this.#server.on('error', () => undefined);
  }

  /** Listens. Rejects with `LB_LISTEN_FAILED` where that is not possible. Resolves with the port, also for port 0. */
  start(): Promise<number> {
    return listenOn(() => this.#server, this.#listen, { purpose: 'metrics', key: 'metrics.listen' });
  }

  /** Stops listening, lets answers under way end, then closes what is left. Idempotent; never rejects. */
  stop(): Promise<void> {
    this.#stopped ??= closeServer(this.#server);
    return this.#stopped;
  }
}

const NOT_STORED = { 'cache-control': 'no-store' };

function createAnswer(
  deps: MetricsServerDependencies,
  timeoutMs: number,
): (request: Request) => Promise<Response> {
  const { metrics, liveness, readiness, clock } = deps;
  const silence = ({ name, answer }: LivenessCheck): Promise<string | undefined> =>
    inTime(
      answer().then(
        () => undefined,
        (error: unknown) => `The ${name} failed: ${errorMessage(error)}`,
      ),
      timeoutMs,
      clock,
      `The ${name} has not answered`,
    ).catch(errorMessage);
  const pages = new Map<string, () => Promise<Response>>([
    [
      '/metrics',
      async () => {
        const { contentType, body } = await metrics.render();
        return new Response(body, { headers: { 'content-type': contentType, ...NOT_STORED } });
      },
    ],
    [
      '/healthz',
      async () => {
        const reasons = await Promise.all(liveness.map(silence));
        return verdict('Not healthy', reasons);
      },
    ],
    [
      '/readyz',
      async () => {
        const reasons: string[] = [];
        const answer = async (): Promise<void> => void reasons.push(...unreadiness(await readiness()));
        // Not to know is not to be ready.
        const unknown = await silence({ name: 'data plane', answer });
        return verdict('Not ready', unknown === undefined ? reasons : [unknown]);
      },
    ],
  ]);
  return ({ method, url }) => {
    const page = pages.get(new URL(url).pathname);
    if (page === undefined)
      return Promise.resolve(problem(404, 'There are only /metrics, /healthz and /readyz'));
    if (method !== 'GET' && method !== 'HEAD') {
      return Promise.resolve(
        problem(405, 'Only GET and HEAD are allowed', { headers: { allow: 'GET, HEAD' } }),
      );
    }
    // The client is told nothing of the error.
    return page().catch(() => problem(500, 'Internal error'));
  };
}

function verdict(title: string, answers: readonly (string | undefined)[]): Response {
  const reasons = answers.filter((reason) => reason !== undefined);
  if (reasons.length > 0) return problem(503, title, { reasons, headers: NOT_STORED });
  return Response.json({ status: 'ok' }, { headers: NOT_STORED });
}

function unreadiness({ applied, openListeners, stopping, unsteered }: Readiness): readonly string[] {
  return [
    ...(applied ? [] : ['No forwarding state has been applied yet']),
    ...(openListeners > 0 ? [] : ['No listener is open']),
    ...(unsteered === undefined ? [] : [unsteered]),
    ...(stopping ? ['The process is stopping'] : []),
  ];
}
