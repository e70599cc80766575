import type { HttpBindings } from '@hono/node-server';
import { Hono } from 'hono';
import { plainJson } from '../api/configuration-json.js';
import type { FlowListQuery, Population, SimulationRequest, Supposition } from '../api/views.js';
import { PROTOCOLS, parseEndpoint, parseIpAddress, type IpAddress } from '../model/address.js';
import { parseDuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import type { FlowState, PlacementReason } from '../model/flow.js';
import type { DrainRequest } from '../model/forwarding.js';
import type { Logger } from '../runtime/logger.js';
import { problem, usageError, type Operations } from './operations.js';
import type { EventStreams } from './sse.js';

/** What the server gives each request along; nothing where a test asks the routes themselves. */
export interface AdminEnv {
  readonly Bindings: Partial<HttpBindings>;
}

/** What the routes show and do; they own none of it. */
export interface AdminRoutesDependencies {
  readonly operations: Operations;
  readonly streams: EventStreams;
  readonly logger: Logger;
}

/** Plain data as JSON, addresses as text. */
export function jsonAnswer(value: object, status = 200): Response {
  return new Response(`${plainJson(value)}\n`, { status, headers: { 'content-type': 'application/json' } });
}

/** Done, and nothing to say. */
export function noContent(): Response {
  return new Response(null, { status: 204 });
}

/** Of a request: a configuration of 5,000 backends and 1,500 rules takes a tenth of it. */
export const MAX_BODY_BYTES = 4 * 1024 * 1024;

/** Read and thrown away: a client that is still sending when the connection closes never sees why. */
const MAX_IGNORED_BYTES = 4 * MAX_BODY_BYTES;

/** The body as text. Throws `LB_TOO_LARGE`, or `LB_USAGE` where it is not UTF-8. */
export async function readText(request: Request, maxBytes = MAX_BODY_BYTES): Promise<string> {
  if (Number(request.headers.get('content-length') ?? 0) > MAX_IGNORED_BYTES) throw tooLarge(maxBytes);
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of bytesOf(request)) {
    size += chunk.byteLength;
    if (size <= maxBytes) chunks.push(chunk);
    else chunks.length = 0;
    // Cancels what is left.
    if (size > MAX_IGNORED_BYTES) break;
  }
  if (size > maxBytes) throw tooLarge(maxBytes);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw usageError('The body is not UTF-8');
  }
}

/** The body as a JSON object. Throws as readText, and `LB_USAGE` where it is none. */
export async function readObject(request: Request): Promise<Readonly<Record<string, unknown>>> {
  const text = await readText(request);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw usageError('The body is not JSON: it must be a JSON object');
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  throw usageError('The body must be a JSON object');
}

function bytesOf(request: Request): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  return (request.body as AsyncIterable<Uint8Array> | null) ?? [];
}

function tooLarge(maxBytes: number): BalancerError {
  return new BalancerError(`The body must be at most ${maxBytes} bytes`, {
    code: 'LB_TOO_LARGE',
    source: 'usage',
  });
}

/*
 * What requests say, taken apart by hand. A field that is not what it must be throws `LB_USAGE`, which says what is
 * there and what must be; one that is not there is undefined.
 */

type Fields = Readonly<Record<string, unknown>>;

/** Throws if there is a key besides these. */
export function assertKeys(fields: Fields, keys: readonly string[]): void {
  const unknown = Object.keys(fields).find((key) => !keys.includes(key));
  if (unknown === undefined) return;
  throw usageError(`Unknown key ${JSON.stringify(unknown)}, must be one of ${keys.join(', ')}`);
}

/** The query as fields. Throws where a key is unknown or there twice. */
export function queryFields(url: string, keys: readonly string[]): Readonly<Record<string, string>> {
  const { searchParams } = new URL(url);
  const fields = Object.fromEntries(searchParams);
  assertKeys(fields, keys);
  const twice = keys.find((key) => searchParams.getAll(key).length > 1);
  if (twice !== undefined) throw usageError(`"${twice}" is there more than once`);
  return fields;
}

/** The value, which must be there. */
export function required<T>(value: T | undefined, key: string): T {
  if (value === undefined) throw usageError(`Missing key "${key}"`);
  return value;
}

export function textOf(fields: Fields, key: string): string | undefined {
  return field(fields, key, 'a text', (value) =>
    typeof value === 'string' && value.length <= 1000 ? value : undefined,
  );
}

export function wordOf<const W extends string>(
  fields: Fields,
  key: string,
  words: readonly W[],
): W | undefined {
  return field(fields, key, `one of ${words.join(', ')}`, (value) => words.find((word) => word === value));
}

export function flagOf(fields: Fields, key: string): boolean | undefined {
  return field(fields, key, 'true or false', (value) => (typeof value === 'boolean' ? value : undefined));
}

export interface Range {
  readonly from: number;
  readonly to: number;
}

/** A number in a body. */
export function integerOf(fields: Fields, key: string, range: Range): number | undefined {
  return field(fields, key, wholeNumber(range), (value) =>
    Number.isInteger(value) ? within(value as number, range) : undefined,
  );
}

/** A number in a query, which is text. */
export function queryIntegerOf(fields: Fields, key: string, range: Range): number | undefined {
  return field(fields, key, wholeNumber(range), (value) =>
    typeof value === 'string' && /^\d{1,15}$/.test(value) ? within(Number(value), range) : undefined,
  );
}

/** A duration with a unit, in milliseconds. */
export function durationOf(fields: Fields, key: string, range: Range): number | undefined {
  return field(fields, key, 'a duration such as "30s" or "10m", at most 24h', (value) => {
    const ms = typeof value === 'string' ? parseDuration(value) : undefined;
    return ms === undefined ? undefined : within(ms, range);
  });
}

export function addressOf(fields: Fields, key: string): IpAddress | undefined {
  return field(fields, key, 'an IP address', (value) =>
    typeof value === 'string' ? parseIpAddress(value) : undefined,
  );
}

/** An address and a port from 1. */
export function endpointOf(
  fields: Fields,
  key: string,
): { readonly address: IpAddress; readonly port: number } | undefined {
  return field(fields, key, 'an address and port such as 192.0.2.7:40000 or [fd00::7]:40000', (value) => {
    const endpoint = typeof value === 'string' ? parseEndpoint(value) : undefined;
    return endpoint === undefined || endpoint.port === 0 ? undefined : endpoint;
  });
}

function field<T>(
  fields: Fields,
  key: string,
  expected: string,
  read: (value: unknown) => T | undefined,
): T | undefined {
  if (!Object.hasOwn(fields, key)) return undefined;
  const value = read(fields[key]);
  if (value !== undefined) return value;
  throw usageError(`"${key}" is ${inWords(fields[key])}, must be ${expected}`);
}

function wholeNumber({ from, to }: Range): string {
  return to === Number.MAX_SAFE_INTEGER
    ? `a whole number from ${from}`
    : `a whole number from ${from} to ${to}`;
}

function within(value: number, { from, to }: Range): number | undefined {
  return value >= from && value <= to ? value : undefined;
}

function inWords(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** `GET /v1/status`, `/v1/frontends`, `/v1/rules`, `/v1/pools`, `/v1/pools/:pool`. */
export function viewRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  const views = {
    '/v1/status': () => operations.status(),
    '/v1/frontends': () => operations.frontends(),
    '/v1/rules': () => operations.rules(),
    '/v1/pools': () => operations.pools(),
  } satisfies Readonly<Record<string, () => Promise<object>>>;
  for (const [path, view] of Object.entries(views)) {
    app.get(path, async (context) => {
      queryFields(context.req.url, []);
      return jsonAnswer(await view());
    });
  }
  app.get('/v1/pools/:pool', async (context) => {
    queryFields(context.req.url, []);
    const name = context.req.param('pool');
    const pool = (await operations.pools()).find((each) => each.name === name);
    if (pool !== undefined) return jsonAnswer(pool);
    throw new BalancerError(`There is no backend pool ${JSON.stringify(name)}`, {
      code: 'LB_NOT_FOUND',
      source: 'usage',
    });
  });
  return app;
}

export const FLOW_SORTS = ['age', 'idle', 'bytes', 'rate', 'none'] as const satisfies FlowListQuery['sort'][];
export const FLOW_STATES = [
  'embryonic',
  'established',
  'half-closed',
  'blackholed',
] as const satisfies FlowState[];
export const PLACEMENT_REASONS = [
  'hash',
  'retry',
  'rebalanced',
  'fail-open',
  'pinned',
] as const satisfies PlacementReason[];

const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 1000;

const FLOW_KEYS = [
  'rule',
  'backend',
  'protocol',
  'source',
  'state',
  'reason',
  'sort',
  'limit',
  'after',
] as const;

/** `GET /v1/flows` and `GET /v1/explain`. */
export function flowRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.get('/v1/flows', async (context) => jsonAnswer(await operations.flows(flowListQuery(context.req.url))));
  app.get('/v1/explain', async (context) => {
    const fields = queryFields(context.req.url, ['protocol', 'source', 'destination']);
    const protocol = required(wordOf(fields, 'protocol', PROTOCOLS), 'protocol');
    const source = required(endpointOf(fields, 'source'), 'source');
    const destination = required(endpointOf(fields, 'destination'), 'destination');
    if (source.address.family !== destination.address.family) {
      throw usageError('"source" and "destination" must be of the same IP version');
    }
    return jsonAnswer(
      await operations.explain({
        protocol,
        source: source.address,
        sourcePort: source.port,
        destination: destination.address,
        destinationPort: destination.port,
      }),
    );
  });
  return app;
}

function flowListQuery(url: string): FlowListQuery {
  const fields = queryFields(url, FLOW_KEYS);
  const rule = textOf(fields, 'rule');
  const backend = textOf(fields, 'backend');
  const protocol = wordOf(fields, 'protocol', PROTOCOLS);
  const source = addressOf(fields, 'source');
  const state = wordOf(fields, 'state', FLOW_STATES);
  const reason = wordOf(fields, 'reason', PLACEMENT_REASONS);
  const sort = wordOf(fields, 'sort', FLOW_SORTS) ?? 'none';
  const limit = queryIntegerOf(fields, 'limit', { from: 1, to: MAX_LIMIT }) ?? DEFAULT_LIMIT;
  const after = queryIntegerOf(fields, 'after', { from: 0, to: Number.MAX_SAFE_INTEGER });
  if (after !== undefined && sort !== 'none') throw usageError('"after" must be with sort none only');
  return {
    ...(rule === undefined ? {} : { rule }),
    ...(backend === undefined ? {} : { backend: canonicalBackend(backend) }),
    ...(protocol === undefined ? {} : { protocol }),
    ...(source === undefined ? {} : { source: source.text }),
    ...(state === undefined ? {} : { state }),
    ...(reason === undefined ? {} : { reason }),
    sort,
    limit,
    ...(after === undefined ? {} : { after }),
  };
}

/** `pool/name` or `pool/address` as Operations know it: addresses in canonical form. */
export function canonicalBackend(text: string): string {
  const slash = text.indexOf('/');
  const address = parseIpAddress(text.slice(slash + 1));
  return slash === -1 || address === undefined ? text : `${text.slice(0, slash)}/${address.text}`;
}

export const ADMIN_STATES = ['none', 'up', 'down', 'configured'] as const;

const DAY_MS = 86_400_000;
const DEFAULT_SPREAD_MS = 10_000;

type FieldsBackendRoutes = Readonly<Record<string, unknown>>;

/** Admin state, weight and drain of one backend: `/v1/backends/:pool/:backend/...`, and `GET /v1/drains`. */
export function backendRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  const idOf = (param: { readonly pool: string; readonly backend: string }): string =>
    canonicalBackend(`${param.pool}/${param.backend}`);

  app.put('/v1/backends/:pool/:backend/admin-state', async (context) => {
    const fields = await readObject(context.req.raw);
    assertKeys(fields, ['adminState']);
    const state = required(wordOf(fields, 'adminState', ADMIN_STATES), 'adminState');
    await operations.setAdminState(idOf(context.req.param()), state);
    return noContent();
  });
  app.put('/v1/backends/:pool/:backend/weight', async (context) => {
    const weight = weightOf(await readObject(context.req.raw));
    await operations.setWeight(idOf(context.req.param()), weight);
    return noContent();
  });
  app.post('/v1/backends/:pool/:backend/drain', async (context) => {
    const request = drainRequest(await readObject(context.req.raw));
    return jsonAnswer(await operations.drain(idOf(context.req.param()), request), 202);
  });
  app.get('/v1/backends/:pool/:backend/drain', async (context) => {
    const id = idOf(context.req.param());
    const drains = await operations.drains();
    const drain = drains.find(
      ({ backendId, backendName, pool }) => backendId === id || `${pool}/${backendName}` === id,
    );
    if (drain !== undefined) return jsonAnswer(drain);
    throw new BalancerError(`Backend ${JSON.stringify(id)} is not being drained`, {
      code: 'LB_NOT_FOUND',
      source: 'usage',
    });
  });
  app.delete('/v1/backends/:pool/:backend/drain', async (context) => {
    await operations.cancelDrain(idOf(context.req.param()));
    return noContent();
  });
  app.get('/v1/drains', async (context) => {
    queryFields(context.req.url, []);
    return jsonAnswer(await operations.drains());
  });
  return app;
}

function weightOf(fields: FieldsBackendRoutes): number | 'configured' {
  assertKeys(fields, ['weight']);
  if (fields['weight'] === 'configured') return 'configured';
  if (typeof fields['weight'] === 'string') {
    throw usageError('"weight" is a text, must be a whole number from 0 to 256 or "configured"');
  }
  return required(integerOf(fields, 'weight', { from: 0, to: 256 }), 'weight');
}

function drainRequest(fields: FieldsBackendRoutes): DrainRequest & { readonly force: boolean } {
  assertKeys(fields, ['deadline', 'then', 'spread', 'force']);
  return {
    deadlineMs: required(durationOf(fields, 'deadline', { from: 0, to: DAY_MS }), 'deadline'),
    then: wordOf(fields, 'then', ['reset', 'leave']) ?? 'reset',
    spreadMs: durationOf(fields, 'spread', { from: 0, to: DAY_MS }) ?? DEFAULT_SPREAD_MS,
    force: flagOf(fields, 'force') ?? false,
  };
}

/** `POST /v1/plan` and `POST /v1/reload`: the body is a whole configuration, never a path. */
export function changeRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.post('/v1/plan', async (context) => {
    queryFields(context.req.url, []);
    const outcome = await operations.plan(await readText(context.req.raw));
    if (outcome.report !== undefined) return jsonAnswer(outcome);
    return problem(422, 'Unusable configuration', {
      detail: 'The configuration cannot be used: see findings',
      code: 'LB_CONFIG_INVALID',
      findings: outcome.findings,
    });
  });
  app.post('/v1/reload', async (context) => {
    const maxMoved = shareOf(queryFields(context.req.url, ['maxMoved'])['maxMoved']);
    const text = await readText(context.req.raw);
    return jsonAnswer(await operations.reload(text, maxMoved === undefined ? {} : { maxMoved }));
  });
  return app;
}

function shareOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const share = /^\d(?:\.\d{1,9})?$/.test(text) ? Number(text) : Number.NaN;
  if (share >= 0 && share <= 1) return share;
  throw usageError(`"maxMoved" is ${JSON.stringify(text)}, must be a number from 0 to 1 such as 0.02`);
}

const MAX_SUPPOSITIONS = 10_000;

type FieldsSimulateRoutes = Readonly<Record<string, unknown>>;

/** `POST /v1/simulate`. */
export function simulateRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.post('/v1/simulate', async (context) => {
    queryFields(context.req.url, []);
    return jsonAnswer(await operations.simulate(simulationRequest(await readObject(context.req.raw))));
  });
  return app;
}

function simulationRequest(fields: FieldsSimulateRoutes): SimulationRequest {
  assertKeys(fields, ['suppose', 'population']);
  const { suppose = [], population } = fields;
  if (!Array.isArray(suppose) || suppose.length > MAX_SUPPOSITIONS) {
    throw usageError(`"suppose" must be a list of at most ${MAX_SUPPOSITIONS}`);
  }
  return {
    suppose: suppose.map((item: unknown) => supposition(objectOf(item, 'Each of "suppose"'))),
    population: populationOf(objectOf(population, '"population"')),
  };
}

function supposition(fields: FieldsSimulateRoutes): Supposition {
  assertKeys(fields, ['backend', 'health', 'adminState', 'weight', 'draining']);
  const health = wordOf(fields, 'health', ['unknown', 'up', 'down']);
  const adminState = wordOf(fields, 'adminState', ['none', 'up', 'down']);
  const weight = integerOf(fields, 'weight', { from: 0, to: 256 });
  const draining = flagOf(fields, 'draining');
  return {
    backend: canonicalBackend(required(textOf(fields, 'backend'), 'backend')),
    ...(health === undefined ? {} : { health }),
    ...(adminState === undefined ? {} : { adminState }),
    ...(weight === undefined ? {} : { weight }),
    ...(draining === undefined ? {} : { draining }),
  };
}

function populationOf(fields: FieldsSimulateRoutes): Population {
  const kind = required(wordOf(fields, 'kind', ['generated', 'live']), 'population.kind');
  if (kind === 'live') {
    assertKeys(fields, ['kind']);
    return { kind };
  }
  assertKeys(fields, ['kind', 'flows', 'sources', 'seed']);
  return {
    kind,
    flows: required(integerOf(fields, 'flows', { from: 1, to: 1_000_000 }), 'population.flows'),
    sources: required(integerOf(fields, 'sources', { from: 1, to: 1_000_000 }), 'population.sources'),
    seed: required(integerOf(fields, 'seed', { from: 0, to: 4_294_967_295 }), 'population.seed'),
  };
}

function objectOf(value: unknown, what: string): FieldsSimulateRoutes {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as FieldsSimulateRoutes;
  throw usageError(`${what} must be an object`);
}

const UPGRADE_ROUTES_DAY_MS = 86_400_000;

/** `POST /v1/upgrade`: answered by the old process, once the new one serves or has failed. */
export function upgradeRoutes({ operations }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.post('/v1/upgrade', async (context) => {
    const fields = await readObject(context.req.raw);
    assertKeys(fields, ['deadline']);
    const deadlineMs = durationOf(fields, 'deadline', { from: 0, to: UPGRADE_ROUTES_DAY_MS });
    return jsonAnswer(await operations.upgrade(deadlineMs === undefined ? {} : { deadlineMs }));
  });
  return app;
}

const IDS = { from: 0, to: Number.MAX_SAFE_INTEGER };

/** `GET /v1/events`. Last-Event-ID, which a browser sends when it comes back, beats `since`. */
export function eventRoutes({ streams }: AdminRoutesDependencies): Hono<AdminEnv> {
  const app = new Hono<AdminEnv>();
  app.get('/v1/events', (context) => {
    const query = queryFields(context.req.url, ['since']);
    const lastEventId = context.req.header('last-event-id');
    const sinceId =
      (lastEventId === undefined
        ? undefined
        : queryIntegerOf({ 'Last-Event-ID': lastEventId }, 'Last-Event-ID', IDS)) ??
      queryIntegerOf(query, 'since', IDS);
    const headers = { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' };
    // The body of an answer to HEAD is never read, nor given up.
    if (context.req.method === 'HEAD') return new Response(null, { headers });
    const stream = streams.open({
      ...(sinceId === undefined ? {} : { sinceId }),
      cut: () => context.env.outgoing?.destroy(),
    });
    if (stream !== undefined) return new Response(stream, { headers });
    throw new BalancerError('As many event streams as may be are open already: one must end first', {
      code: 'LB_CONFLICT',
      source: 'usage',
    });
  });
  return app;
}
