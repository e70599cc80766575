import type { Server } from 'node:http';
import type { ListenAddress } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import { inTime, type Clock } from '../runtime/clock.js';
import { closeServer, createHttpServer, listenOn, type HttpServerOptions } from './http-server.js';
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
  /** Budgets that are exceeded now, by the reason that drops have. @default none */
  readonly overloads?: readonly string[];
}

/** What the server shows; it owns none of it. */
export interface MetricsServerDependencies {
  /** Text of one scrape. */
  readonly metrics: { render(): Promise<{ readonly contentType: string; readonly body: string }> };
  readonly liveness: readonly LivenessCheck[];
  readonly readiness: () => Readiness | Promise<Readiness>;
  readonly clock: Clock;
}

export interface MetricsServerOptions extends Pick<HttpServerOptions, 'maxConnections' | 'requestTimeoutMs'> {
  readonly listen: ListenAddress;
  /** How long a liveness or readiness check may take. @default 2000 */
  readonly livenessTimeoutMs?: number;
}

/**
 * The HTTP server for scrapers and health checks: `GET /metrics`, `/healthz` and `/readyz` (HEAD too). It reads nothing
 * of a request but method and path. Owns its socket from `start` to `stop`.
 */
export class MetricsServer {
  readonly #server: Server;
  readonly #listen: ListenAddress;
  #stopped: Promise<void> | undefined;

  constructor(deps: MetricsServerDependencies, options: MetricsServerOptions) {
    const { listen, livenessTimeoutMs = 2000, ...limits } = options;
    this.#listen = listen;
    this.#server = createHttpServer(createAnswer(deps, livenessTimeoutMs), {
      requestTimeoutMs: 5000,
      maxHeaderBytes: 8192,
      ignoreHost: true,
      ...limits,
    });
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

function createAnswer(
  { metrics, liveness, readiness, clock }: MetricsServerDependencies,
  timeoutMs: number,
): (request: Request) => Response | Promise<Response> {
  const failure = ({ name, answer }: LivenessCheck): Promise<string | undefined> => {
    const answered = answer().then(
      () => undefined,
      (error: unknown) => `The ${name} failed: ${errorMessage(error)}`,
    );
    return inTime(answered, timeoutMs, clock, `The ${name} has not answered`).catch(errorMessage);
  };
  const pages = new Map<string, () => Promise<Response>>([
    [
      '/metrics',
      async () => {
        const { contentType, body } = await metrics.render();
        return new Response(body, { headers: { 'content-type': contentType } });
      },
    ],
    ['/healthz', async () => verdict('Not healthy', await Promise.all(liveness.map(failure)))],
    [
      '/readyz',
      async () => {
        let reasons: readonly string[] = [];
        let overloads: readonly string[] = [];
        const answer = async (): Promise<void> => {
          const known = await readiness();
          reasons = unreadiness(known);
          overloads = known.overloads ?? [];
        };
        // Not to know is not to be ready.
        const problems = [await failure({ name: 'data plane', answer }), ...reasons];
        return verdict('Not ready', problems, overloads.map(overloadText));
      },
    ],
  ]);
  return ({ method, url }) => {
    const page = pages.get(new URL(url).pathname);
    if (page === undefined) return problem(404, 'There are only /metrics, /healthz and /readyz');
    if (method === 'GET' || method === 'HEAD') {
      // The client does not see the error.
      return page().catch(() => problem(500, 'Internal error'));
    }
    return problem(405, 'Only GET and HEAD are allowed', { headers: { allow: 'GET, HEAD' } });
  };
}

function verdict(
  title: string,
  answers: readonly (string | undefined)[],
  degraded: readonly string[] = [],
): Response {
  const reasons = answers.filter((reason) => reason !== undefined);
  if (reasons.length > 0) return problem(503, title, { reasons });
  return Response.json(degraded.length > 0 ? { status: 'degraded', reasons: degraded } : { status: 'ok' });
}

/** It still is ready: to send its clients elsewhere would bring the same load on the others, and end what it serves. */
function overloadText(reason: string): string {
  return `Some new flows are refused: ${reason}`;
}

function unreadiness({ applied, openListeners, stopping, unsteered }: Readiness): readonly string[] {
  return [
    ...(applied ? [] : ['No forwarding state has been applied yet']),
    ...(openListeners > 0 ? [] : ['No listener is open']),
    ...(unsteered === undefined ? [] : [unsteered]),
    ...(stopping ? ['The process is stopping'] : []),
  ];
}
