import { z } from 'zod';
import { parseEndpoint, parseIpAddress } from '../model/address.js';
import { parseDuration } from '../model/duration.js';
import { BalancerError, type ErrorCode, type ErrorSource } from '../model/errors.js';
import type { Immutable, Shown } from './views.js';
import * as views from './views.js';

/*
 * The contract of the admin API: each route once. From it come the types, the validation of requests, the client, the
 * OpenAPI document and the reference page. What a request holds is described by schemas whose input is what is sent and
 * whose output is what the server works with; the message of an error is what a value must be.
 */

interface Refusal {
  readonly status: number;
  readonly title: string;
  /** Who is to blame, for the exit code of commands. */
  readonly source: ErrorSource;
}

/** Refusals that say something to the one who asked; every other error is an internal one without details. */
export const REFUSALS = {
  LB_USAGE: { status: 400, title: 'Bad request', source: 'usage' },
  LB_UNAUTHORIZED: { status: 401, title: 'Unauthorized', source: 'system' },
  LB_FORBIDDEN: { status: 403, title: 'Forbidden', source: 'system' },
  LB_UNKNOWN_BACKEND: { status: 404, title: 'Not found', source: 'usage' },
  LB_NOT_FOUND: { status: 404, title: 'Not found', source: 'system' },
  LB_CONFLICT: { status: 409, title: 'Conflict', source: 'system' },
  LB_GATE_EXCEEDED: { status: 409, title: 'Conflict', source: 'system' },
  LB_RESTART_NEEDED: { status: 409, title: 'Conflict', source: 'system' },
  LB_TOO_LARGE: { status: 413, title: 'Too large', source: 'usage' },
  LB_CONFIG_SYNTAX: { status: 422, title: 'Unusable configuration', source: 'config' },
  LB_CONFIG_INVALID: { status: 422, title: 'Unusable configuration', source: 'config' },
  LB_UPGRADE_FAILED: { status: 500, title: 'The new version does not start', source: 'system' },
  LB_APPLY_FAILED: { status: 500, title: 'The change could not be applied', source: 'system' },
  LB_INTERNAL: { status: 500, title: 'Internal error', source: 'internal' },
} as const satisfies Partial<Record<ErrorCode, Refusal>>;

export type RefusalCode = keyof typeof REFUSALS;

export interface Route {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** Parameters as `{pool}`: keys of PARAMETERS. */
  readonly path: string;
  readonly summary: string;
  /** What a request holds: in its query, or as the JSON body of a PUT or POST without a configuration. Absent: nothing. */
  readonly keys?: z.ZodType;
  readonly headers?: z.ZodObject;
  /** The body is the text of a whole configuration, `configuration` of the request. */
  readonly configuration?: true;
  /** Absent: status 204 and no body. */
  readonly answer?: z.ZodType;
  /** @default application/json */
  readonly answerType?: 'text/event-stream';
  /** @default 200, or 204 without an answer */
  readonly status?: number;
  /** Besides those that any route may have. */
  readonly errors?: readonly RefusalCode[];
}

function keys<S extends z.ZodRawShape>(shape: S) {
  const known = Object.keys(shape).join(', ');
  return z.strictObject(shape, {
    error: ({ code }) => (code === 'unrecognized_keys' ? `must be one of ${known}` : 'an object'),
  });
}

/** Text that `parse` makes something of; what it returns undefined for is refused as not being `expected`. */
function parsed<T>(expected: string, parse: (text: string) => T | undefined) {
  return z.string({ error: expected }).transform((text, context): T => {
    const value = parse(text);
    if (value !== undefined) return value;
    context.addIssue({ code: 'custom', message: expected });
    return z.NEVER;
  });
}

function word<const W extends readonly string[]>(words: W) {
  return z.enum(words, { error: `one of ${words.join(', ')}` });
}

function integer(from: number, to: number, error = `a whole number from ${from} to ${to}`) {
  return z.int({ error }).min(from, { error }).max(to, { error });
}

/** A number in a query or header, which is text. */
function inText<S extends z.ZodType>(pattern: RegExp, schema: S) {
  return z.preprocess((value: number) => {
    const text = String(value);
    return pattern.test(text) ? Number(text) : text;
  }, schema);
}

const text = z.string({ error: 'a text' }).max(1000, { error: 'a text' });
const flag = z.boolean({ error: 'true or false' });
const duration = parsed('a duration such as "30s" or "10m", at most 24h', (value) => {
  const ms = parseDuration(value);
  return ms !== undefined && ms <= 86_400_000 ? ms : undefined;
}).meta({ pattern: '^[0-9]{1,9}(ms|s|m|h)$', examples: ['30s', '10m'] });
const endpoint = parsed('an address and port such as 192.0.2.7:40000 or [fd00::7]:40000', (value) => {
  const found = parseEndpoint(value);
  return found === undefined || found.port === 0 ? undefined : found;
});
const flowOrEventId = inText(/^\d{1,15}$/, integer(0, Number.MAX_SAFE_INTEGER, 'a whole number from 0'));

/** `pool/name` or `pool/address`, the address in canonical form. */
const backendName = text
  .transform((name) => {
    const [, pool, label = ''] = /^([^/]*\/)(.*)$/s.exec(name) ?? [];
    const address = parseIpAddress(label);
    return pool === undefined || address === undefined ? name : `${pool}${address.text}`;
  })
  .describe('pool/name or pool/address');

const PARAMETERS = {
  pool: z.string().describe('Name of the backend pool'),
  backend: z
    .string()
    .transform((label) => parseIpAddress(label)?.text ?? label)
    .describe('Name or address of the backend'),
};

type ParameterName = keyof typeof PARAMETERS;

type ParameterOf<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}`
  ? (Name & ParameterName) | ParameterOf<Rest>
  : never;

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const population = z.discriminatedUnion(
  'kind',
  [
    keys({ kind: z.literal('live') }),
    keys({
      kind: z.literal('generated'),
      flows: integer(1, 1_000_000).describe('Of each rule'),
      sources: integer(1, 1_000_000).describe('Distinct client addresses'),
      seed: integer(0, 4_294_967_295),
    }),
  ],
  { error: ({ input }) => (isObject(input) ? 'one of generated, live' : 'an object') },
);

const supposition = keys({
  backend: backendName,
  health: word(views.healthState.options).optional(),
  adminState: word(views.adminState.options).optional(),
  weight: integer(0, 256).optional(),
  draining: flag.optional(),
});

const supposeError = 'a list of at most 10000';

const simulationRequest = keys({
  suppose: z.array(supposition, { error: supposeError }).max(10_000, { error: supposeError }).default([]),
  population,
}).meta({ id: 'SimulationRequest' });

const flowQuery = keys({
  rule: text.optional().describe('Name of the rule'),
  backend: backendName.optional(),
  protocol: word(views.protocol.options).optional(),
  source: parsed('an IP address', (value) => parseIpAddress(value)?.text)
    .optional()
    .describe('Address of the client'),
  state: word(views.flowState.options).optional(),
  reason: word(views.placementReason.options).optional().describe('Why it is on its backend'),
  sort: word(views.flowSort.options).default('none').describe('The most comes first'),
  limit: inText(/^\d{1,15}$/, integer(1, 1000))
    .prefault(100)
    .describe('Flows of a page'),
  after: flowOrEventId.optional().describe('With sort none: `next` of the page before'),
}).refine(({ sort, after }) => after === undefined || sort === 'none', {
  error: '"after" must be with sort none only',
});

const explainQuery = keys({
  protocol: word(views.protocol.options),
  source: endpoint.describe('Client, as address:port or [address]:port'),
  destination: endpoint.describe('Frontend, as address:port or [address]:port'),
})
  .refine(({ source, destination }) => source.address.family === destination.address.family, {
    error: '"source" and "destination" must be of the same IP version',
  })
  .transform(({ protocol, source, destination }) => ({
    protocol,
    source: source.address,
    sourcePort: source.port,
    destination: destination.address,
    destinationPort: destination.port,
  }));

const weightError = 'a whole number from 0 to 256 or "configured"';
const shareError = 'a number from 0 to 1 such as 0.02';

const drainRequest = keys({
  deadline: duration,
  then: word(views.drainEnd.options).default('reset'),
  spread: duration.prefault('10s').describe('Time over which flows are ended after the deadline'),
  force: flag.default(false).describe('Even where fewer than minimumHealthy are left'),
})
  .meta({ id: 'DrainRequest' })
  .transform(({ deadline, spread, ...rest }) => ({ ...rest, deadlineMs: deadline, spreadMs: spread }));

const adminStateChange = keys({ adminState: word([...views.adminState.options, 'configured']) }).meta({
  id: 'AdminStateChange',
  description: 'configured: what the configuration says again',
});

const weightChange = keys({
  weight: z.union([integer(0, 256, weightError), z.literal('configured')], { error: weightError }),
}).meta({ id: 'WeightChange', description: 'configured: what the configuration or the probe says again' });

const reloadQuery = keys({
  maxMoved: inText(/^\d(\.\d{1,9})?$/, z.number({ error: shareError }).min(0).max(1, { error: shareError }))
    .optional()
    .describe('Refused if more of the hash space of a rule would change hands'),
});

const upgradeRequest = keys({
  deadline: duration.optional().describe('How long TCP flows of the old process may take'),
})
  .meta({ id: 'UpgradeRequest' })
  .transform(({ deadline }) => ({ deadlineMs: deadline }));

const DRAIN = '/v1/backends/{pool}/{backend}/drain';

/** Names of the routes are those of the client's methods and of the server's handlers. */
export const ROUTES = {
  status: route('GET', '/v1/status', 'The process as a whole', { answer: views.status }),
  frontends: route('GET', '/v1/frontends', 'All frontends', { answer: z.array(views.frontend) }),
  rules: route('GET', '/v1/rules', 'All rules', { answer: z.array(views.rule) }),
  pools: route('GET', '/v1/pools', 'All backend pools with their backends', {
    answer: z.array(views.backendPool),
  }),
  pool: route('GET', '/v1/pools/{pool}', 'One backend pool', {
    answer: views.backendPool,
    errors: ['LB_NOT_FOUND'],
  }),
  flows: route('GET', '/v1/flows', 'Live flows, a page at a time', {
    keys: flowQuery,
    answer: views.flowList,
    errors: ['LB_UNKNOWN_BACKEND'],
  }),
  explain: route('GET', '/v1/explain', 'Which backend a flow gets, and why', {
    keys: explainQuery,
    answer: views.liveExplanation,
    errors: ['LB_CONFLICT'],
  }),
  setAdminState: route(
    'PUT',
    '/v1/backends/{pool}/{backend}/admin-state',
    'Set the admin state of a backend',
    { keys: adminStateChange, errors: ['LB_UNKNOWN_BACKEND', 'LB_APPLY_FAILED'] },
  ),
  setWeight: route('PUT', '/v1/backends/{pool}/{backend}/weight', 'Set the weight of a backend', {
    keys: weightChange,
    errors: ['LB_UNKNOWN_BACKEND', 'LB_APPLY_FAILED'],
  }),
  drain: route('POST', DRAIN, 'Drain a backend: no new flows, and after the deadline no old ones', {
    keys: drainRequest,
    answer: views.drain,
    status: 202,
    errors: ['LB_UNKNOWN_BACKEND', 'LB_CONFLICT', 'LB_APPLY_FAILED'],
  }),
  drainStatus: route('GET', DRAIN, 'How its drain stands', { answer: views.drain, errors: ['LB_NOT_FOUND'] }),
  cancelDrain: route('DELETE', DRAIN, 'End its drain: it gets new flows again', {
    errors: ['LB_UNKNOWN_BACKEND', 'LB_NOT_FOUND', 'LB_APPLY_FAILED'],
  }),
  drains: route('GET', '/v1/drains', 'All drains', { answer: z.array(views.drain) }),
  plan: route('POST', '/v1/plan', 'What a configuration would change. Changes nothing', {
    configuration: true,
    answer: views.planOutcome,
    errors: ['LB_CONFIG_INVALID', 'LB_CONFLICT'],
  }),
  reload: route('POST', '/v1/reload', 'Take a configuration over, whole or not at all', {
    keys: reloadQuery,
    configuration: true,
    answer: views.reloadOutcome,
    errors: ['LB_CONFIG_INVALID', 'LB_CONFLICT', 'LB_GATE_EXCEEDED', 'LB_RESTART_NEEDED', 'LB_APPLY_FAILED'],
  }),
  upgrade: route(
    'POST',
    '/v1/upgrade',
    'Have the version that is installed now take the place of this process. Answered by the old one',
    { keys: upgradeRequest, answer: views.upgradeOutcome, errors: ['LB_CONFLICT', 'LB_UPGRADE_FAILED'] },
  ),
  simulate: route(
    'POST',
    '/v1/simulate',
    'What would become of flows if backends were otherwise. Changes nothing',
    { keys: simulationRequest, answer: views.simulationReport, errors: ['LB_UNKNOWN_BACKEND'] },
  ),
  events: route(
    'GET',
    '/v1/events',
    'Events as they happen: server-sent events whose `data` is a FeedEvent',
    {
      keys: keys({ since: flowOrEventId.optional().describe('First those remembered above this id') }),
      headers: z.object({ 'Last-Event-ID': flowOrEventId.optional().describe('As since, and wins over it') }),
      answer: views.feedEvent,
      answerType: 'text/event-stream',
      errors: ['LB_CONFLICT'],
    },
  ),
  openapi: route('GET', '/v1/openapi.json', 'This document', { answer: z.looseObject({}) }),
};

function route<
  const Method extends Route['method'],
  const Path extends string,
  const More extends Omit<Route, 'method' | 'path' | 'summary'>,
>(method: Method, path: Path, summary: string, more: More) {
  return { method, path, summary, ...more };
}

/** The parts of a request, each where it is sent. Every request has keys: where the route has none, there must be none. */
export function partsOf({ method, path, keys: named = NO_KEYS, headers, configuration }: Route) {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as ParameterName);
  const isBody = (method === 'PUT' || method === 'POST') && configuration === undefined;
  return {
    path: z.object(Object.fromEntries(names.map((name) => [name, PARAMETERS[name]]))),
    query: isBody ? NO_KEYS : named,
    header: headers ?? z.object({}),
    body: isBody ? named : undefined,
  };
}

const NO_KEYS = keys({});

/** Of an answer that is no error. */
export function successStatus({ status, answer }: Route): number {
  return status ?? (answer === undefined ? 204 : 200);
}

export type Routes = typeof ROUTES;

export type RouteName = keyof Routes;

type KeysOf<R> = R extends { readonly keys: infer S extends z.ZodType } ? S : z.ZodUnknown;
type HeadersOf<R> = R extends { readonly headers: infer S extends z.ZodType } ? S : z.ZodUnknown;
type Whole<R> = R extends { readonly configuration: true } ? { readonly configuration: string } : unknown;
type Others<R extends Route> = Readonly<Record<ParameterOf<R['path']>, string>> & Whole<R>;
type Flat<T> = { [Key in keyof T]: T[Key] };

/** What a client asks: parameters of path and query and keys of the body in one object. */
export type Request<N extends RouteName, R extends Route = Routes[N]> = Immutable<
  Flat<Others<R> & z.input<KeysOf<R>>>
>;

/** The same as the server reads it: durations in milliseconds, addresses in canonical form, defaults filled in. */
export type Parsed<N extends RouteName, R extends Route = Routes[N]> = Immutable<
  Flat<Others<R> & z.output<KeysOf<R>> & z.output<HeadersOf<R>>>
>;

/** What is answered, or nothing but that it is done. */
export type Answer<N extends RouteName> =
  Routes[N] extends Readonly<Record<'answer', infer S extends z.ZodType>> ? Promise<Shown<S>> : Promise<void>;

/** The routes that the server leaves to others: all but the event stream and the description of itself. */
export type OperationName = Exclude<RouteName, 'events' | 'openapi'>;

/** Everything that the admin API can show and do. All reject with a BalancerError, whose code may be one of REFUSALS. */
export type Operations = {
  readonly [N in OperationName]: (request: Parsed<N>) => Answer<N>;
};

/** Keys of a body or query, or parameters of a path, as they were sent. */
export type Fields = Readonly<Record<string, unknown>>;

/** What the schema makes of the fields. Throws `LB_USAGE`, which says what is there and what must be. */
export function readFields(schema: z.ZodType, fields: Fields): object {
  const { data, error } = schema.safeParse(fields);
  if (error === undefined) return data as object;
  const issue = error.issues.find(({ code }) => code === 'unrecognized_keys') ?? error.issues[0];
  const message = issue === undefined ? 'The request is wrong' : refusal(issue, fields);
  throw new BalancerError(message, { code: 'LB_USAGE', source: 'usage' });
}

function refusal({ code, path, message, ...issue }: z.core.$ZodIssue, fields: Fields): string {
  if (code === 'unrecognized_keys' && 'keys' in issue) {
    return `Unknown key ${JSON.stringify(issue.keys[0])}, ${message}`;
  }
  // Something between keys, said in a whole sentence.
  if (path.length === 0) return message;
  const value = path.reduce<unknown>(
    (found, key) => (found as Readonly<Record<PropertyKey, unknown>>)[key],
    fields,
  );
  // Within a list, keys are named as those of one of its items.
  const keys = path.slice(path.findLastIndex((key) => typeof key === 'number') + 1).map(String);
  if (message === 'an object') {
    return `${keys.length === 0 ? `Each of "${String(path.at(-2))}"` : `"${keys.join('.')}"`} must be an object`;
  }
  if (value === undefined) return `Missing key "${keys.join('.')}"`;
  return `"${keys.at(-1) ?? ''}" is ${inWords(value)}, must be ${message}`;
}

function inWords(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
