import type { HttpBindings } from '@hono/node-server';
import { Hono, type Context } from 'hono';
import {
  ROUTES,
  partsOf,
  readFields,
  successStatus,
  type Fields,
  type OperationName,
  type Operations,
  type Parsed,
  type Route,
} from '../api/contract.js';
import { openApiDocument } from '../api/openapi.js';
import { BalancerError } from '../model/errors.js';
import type { ControlEvent } from '../model/events.js';
import { dashboardRoutes } from './dashboard.js';
import { errorProblem, isTellable, problem, usageError } from './problem.js';
import type { EventStreams } from './sse.js';

/** What comes with a request from the server; nothing where a test calls the routes directly. */
export interface AdminEnv {
  readonly Bindings: Partial<HttpBindings>;
}

/** What the routes show and do; the caller owns all of it. */
export interface AdminRoutesDependencies {
  readonly operations: Operations;
  readonly streams: EventStreams;
  readonly onEvent: (event: ControlEvent) => void;
}

type AdminContext = Context<AdminEnv>;

/**
 * The admin API and the dashboard, for requests that guard.ts has let through. Requests are checked against the
 * contract; every error is a problem document with a stable code.
 */
export function createAdminRoutes({ operations, streams, onEvent }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  for (const [name, route] of Object.entries<Route>(ROUTES)) {
    app.on(route.method, route.path.replaceAll(/\{(\w+)\}/g, ':$1'), async (context) => {
      const request = await parseRequest(route, context);
      if (name === 'events') return eventStream(streams, request, context);
      if (name === 'openapi') return jsonAnswer(openApiDocument(), 200);
      const operation = operations[name as OperationName] as (request: object) => Promise<unknown>;
      return jsonAnswer(await operation(request), successStatus(route));
    });
  }
  app.route('/', dashboardRoutes());
  refuseOtherMethods(app);
  app.notFound(notFound);
  app.onError((error, { req }) => {
    if (!isTellable(error)) onEvent({ type: 'request-failed', request: `${req.method} ${req.path}`, error });
    return errorProblem(error);
  });
  return app;
}

function jsonAnswer(value: unknown, status: number): Response {
  if (status === 204) return new Response(null, { status });
  return new Response(`${JSON.stringify(value)}\n`, {
    status,
    headers: { 'content-type': 'application/json' },
  });
}

/** Last-Event-ID, which a browser sends when it reconnects, wins over `since`. */
function eventStream(streams: EventStreams, request: Parsed<'events'>, context: AdminContext): Response {
  const headers = { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' };
  // The body of an answer to HEAD is neither read nor cancelled.
  if (context.req.method === 'HEAD') return new Response(null, { headers });
  const stream = streams.open({
    sinceId: request['Last-Event-ID'] ?? request.since,
    cut: () => context.env.outgoing?.destroy(),
  });
  if (stream !== undefined) return new Response(stream, { headers });
  throw new BalancerError('As many event streams as may be are open already: one must end first', {
    code: 'LB_CONFLICT',
    source: 'usage',
  });
}

/** A path that is known answers other methods with those that it allows. */
function refuseOtherMethods(app: Hono<AdminEnv>): void {
  for (const path of new Set(app.routes.map((one) => one.path))) {
    const methods = app.routes.filter((one) => one.path === path).map(({ method }) => method);
    const known = new Set(methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])));
    const allow = [...known].join(', ');
    app.all(path, ({ req }) => {
      // A handler that has looked and found nothing.
      if (known.has(req.method)) return notFound();
      return problem(405, 'Method not allowed', {
        detail: `${req.method} is not allowed here, must be one of ${allow}`,
        code: 'LB_USAGE',
        headers: { allow },
      });
    });
  }
}

function notFound(): Response {
  return problem(404, 'Not found', {
    detail: 'No such path: GET /v1/openapi.json lists all of them',
    code: 'LB_NOT_FOUND',
  });
}

/** Parameters of path, query and headers and the keys of the body in one object. Throws `LB_USAGE` or `LB_TOO_LARGE`. */
async function parseRequest(route: Route, { req }: AdminContext): Promise<object> {
  const { path, query, header, body } = partsOf(route);
  const headers = Object.keys(header.shape).map((name) => [name, req.header(name)]);
  return {
    ...readFields(path, req.param()),
    ...readFields(query, queryFields(req.url)),
    ...readFields(header, Object.fromEntries(headers) as Fields),
    ...(body && readFields(body, await readObject(req.raw))),
    ...(route.configuration && { configuration: await readText(req.raw) }),
  };
}

/** Throws where a key is there twice. */
function queryFields(url: string): Fields {
  const { searchParams } = new URL(url);
  for (const key of searchParams.keys()) {
    if (searchParams.getAll(key).length > 1) throw usageError(`"${key}" is there more than once`);
  }
  return Object.fromEntries(searchParams);
}

/** Of a request: a configuration of 5,000 backends and 1,500 rules takes a tenth of it. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;

/** Read and discarded: a client that is still sending when the connection closes never sees why. */
const MAX_IGNORED_BYTES = 4 * MAX_BODY_BYTES;

/** The body as text. Throws `LB_TOO_LARGE`, or `LB_USAGE` where it is not UTF-8. */
async function readText(request: Request): Promise<string> {
  if (Number(request.headers.get('content-length') ?? 0) > MAX_IGNORED_BYTES) throw tooLarge();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of (request.body as AsyncIterable<Uint8Array> | null) ?? []) {
    size += chunk.byteLength;
    if (size <= MAX_BODY_BYTES) chunks.push(chunk);
    else chunks.length = 0;
    // Cancels what is left.
    if (size > MAX_IGNORED_BYTES) break;
  }
  if (size > MAX_BODY_BYTES) throw tooLarge();
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw usageError('The body is not UTF-8');
  }
}

function tooLarge(): BalancerError {
  return new BalancerError(`The body must be at most ${MAX_BODY_BYTES} bytes`, {
    code: 'LB_TOO_LARGE',
    source: 'usage',
  });
}

/** The body as a JSON object. Throws as readText, and `LB_USAGE` where it is none. */
async function readObject(request: Request): Promise<Fields> {
  const text = await readText(request);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw usageError('The body is not JSON: it must be a JSON object');
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw usageError('The body must be a JSON object');
}
