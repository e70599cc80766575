import { VERSION } from '../model/version.js';
import { CHANGE_SCHEMAS } from './openapi-changes.js';
import { VIEW_SCHEMAS } from './openapi-views.js';
import { integer, list, oneOf, ref, TEXT, type Schema } from './openapi-words.js';
import { FLOW_SORTS, FLOW_STATES, PLACEMENT_REASONS } from './routes/flow-routes.js';

/** One operation, in short. */
interface Endpoint {
  readonly summary: string;
  readonly parameters?: readonly Schema[];
  /** JSON that is sent. */
  readonly body?: Schema;
  readonly status?: number;
  /** JSON that is answered; undefined: nothing is. */
  readonly answer?: Schema;
  /** @default application/json */
  readonly answerType?: string;
  /** Statuses besides those that any operation may have. */
  readonly failures?: readonly number[];
}

const FAILURES: Readonly<Record<number, string>> = {
  400: 'The request is wrong (LB_USAGE)',
  401: 'No token or the wrong one (LB_UNAUTHORIZED)',
  403: 'Sent by a page of another site (LB_FORBIDDEN)',
  404: 'There is no such thing (LB_NOT_FOUND, LB_UNKNOWN_BACKEND)',
  409: 'Not as things are (LB_CONFLICT, LB_GATE_EXCEEDED, LB_RESTART_NEEDED)',
  413: 'The body is too large (LB_TOO_LARGE)',
  422: 'The configuration cannot be used, findings tell why (LB_CONFIG_INVALID)',
  500: 'The change could not be applied (LB_APPLY_FAILED), the new version does not start (LB_UPGRADE_FAILED), or haports failed (LB_INTERNAL)',
};

const ANY_FAILURE = [400, 401, 403, 500];

const query = (name: string, schema: Schema, description: string): Schema => ({
  name,
  in: 'query',
  description,
  schema,
});
const needed = (parameter: Schema): Schema => ({ ...parameter, required: true });
const inPath = (name: string, description: string): Schema => ({
  name,
  in: 'path',
  required: true,
  description,
  schema: TEXT,
});

const POOL = inPath('pool', 'Name of the backend pool');
const BACKEND = [POOL, inPath('backend', 'Name or address of the backend')];
const PROTOCOL = query('protocol', oneOf('tcp', 'udp'), 'Protocol');
const CONFIGURATION: Schema = {
  type: 'object',
  description: 'A whole configuration, as `haports schema` describes it',
};

const ENDPOINTS: Readonly<Record<string, Readonly<Record<string, Endpoint>>>> = {
  '/v1/status': { get: { summary: 'The process as a whole', answer: ref('Status') } },
  '/v1/frontends': { get: { summary: 'All frontends', answer: list(ref('Frontend')) } },
  '/v1/rules': { get: { summary: 'All rules', answer: list(ref('Rule')) } },
  '/v1/pools': {
    get: { summary: 'All backend pools with their backends', answer: list(ref('BackendPool')) },
  },
  '/v1/pools/{pool}': {
    get: { summary: 'One backend pool', parameters: [POOL], answer: ref('BackendPool'), failures: [404] },
  },
  '/v1/flows': {
    get: {
      summary: 'Live flows, a page at a time',
      parameters: [
        query('rule', TEXT, 'Name of the rule'),
        query('backend', TEXT, 'pool/name or pool/address'),
        PROTOCOL,
        query('source', TEXT, 'Address of the client'),
        query('state', oneOf(...FLOW_STATES), 'State of the flow'),
        query('reason', oneOf(...PLACEMENT_REASONS), 'Why it is where it is'),
        query('sort', { ...oneOf(...FLOW_SORTS), default: 'none' }, 'The most comes first'),
        query('limit', { ...integer(1, 1000), default: 100 }, 'Flows of a page'),
        query('after', { type: 'integer', minimum: 0 }, 'With sort none: `next` of the page before'),
      ],
      answer: ref('FlowList'),
    },
  },
  '/v1/explain': {
    get: {
      summary: 'Which backend a flow gets, and why',
      parameters: [
        needed(PROTOCOL),
        needed(query('source', TEXT, 'Client, as address:port or [address]:port')),
        needed(query('destination', TEXT, 'Frontend, as address:port or [address]:port')),
      ],
      answer: ref('Explanation'),
    },
  },
  '/v1/backends/{pool}/{backend}/admin-state': {
    put: {
      summary: 'Set the admin state of a backend',
      parameters: BACKEND,
      body: ref('AdminStateChange'),
      status: 204,
      failures: [404, 413],
    },
  },
  '/v1/backends/{pool}/{backend}/weight': {
    put: {
      summary: 'Set the weight of a backend',
      parameters: BACKEND,
      body: ref('WeightChange'),
      status: 204,
      failures: [404, 413],
    },
  },
  '/v1/backends/{pool}/{backend}/drain': {
    post: {
      summary: 'Drain a backend: no new flows, and after the deadline no old ones',
      parameters: BACKEND,
      body: ref('DrainRequest'),
      status: 202,
      answer: ref('Drain'),
      failures: [404, 409, 413],
    },
    get: { summary: 'How its drain stands', parameters: BACKEND, answer: ref('Drain'), failures: [404] },
    delete: {
      summary: 'End its drain: it gets new flows again',
      parameters: BACKEND,
      status: 204,
      failures: [404],
    },
  },
  '/v1/drains': { get: { summary: 'All drains', answer: list(ref('Drain')) } },
  '/v1/plan': {
    post: {
      summary: 'What a configuration would change. Changes nothing',
      body: CONFIGURATION,
      answer: ref('PlanOutcome'),
      failures: [409, 413, 422],
    },
  },
  '/v1/reload': {
    post: {
      summary: 'Take a configuration over, whole or not at all',
      parameters: [
        query(
          'maxMoved',
          { type: 'number', minimum: 0, maximum: 1 },
          'Refused if more of the hash space of a rule would change hands',
        ),
      ],
      body: CONFIGURATION,
      answer: ref('ReloadOutcome'),
      failures: [409, 413, 422],
    },
  },
  '/v1/upgrade': {
    post: {
      summary:
        'Have the version that is installed now take the place of this process. Answered by the old one',
      body: ref('UpgradeRequest'),
      answer: ref('UpgradeOutcome'),
      failures: [409, 413],
    },
  },
  '/v1/simulate': {
    post: {
      summary: 'What would become of flows if backends were otherwise. Changes nothing',
      body: ref('SimulationRequest'),
      answer: ref('SimulationReport'),
      failures: [404, 413],
    },
  },
  '/v1/events': {
    get: {
      summary: 'Events as they happen: server-sent events, `data` is a FeedEvent',
      parameters: [
        query('since', { type: 'integer', minimum: 0 }, 'First those remembered above this id'),
        {
          name: 'Last-Event-ID',
          in: 'header',
          description: 'As since, and wins over it',
          schema: { type: 'integer', minimum: 0 },
        },
      ],
      answer: { type: 'string', 'x-event-data': ref('FeedEvent') },
      answerType: 'text/event-stream',
      failures: [409],
    },
  },
  '/v1/openapi.json': { get: { summary: 'This document', answer: { type: 'object' } } },
};

/** The OpenAPI 3.1 document of the admin API. Plain data. */
export function openApiDocument(): object {
  return {
    openapi: '3.1.0',
    info: {
      title: 'haports admin API',
      version: VERSION,
      description:
        'On a Unix socket for its owner; on an address with a bearer token where one is configured. Durations are texts with a unit.',
    },
    security: [{}, { token: [] }],
    paths: mapValues(ENDPOINTS, (methods) => mapValues(methods, operation)),
    components: {
      schemas: { ...VIEW_SCHEMAS, ...CHANGE_SCHEMAS },
      securitySchemes: { token: { type: 'http', scheme: 'bearer' } },
    },
  };
}

function operation({ summary, parameters, body, status, answer, answerType, failures }: Endpoint): object {
  const codes = [...ANY_FAILURE, ...(failures ?? [])].sort((a, b) => a - b);
  const failed = codes.map((code) => [code, failure(code)] as const);
  return {
    summary,
    ...(parameters === undefined ? {} : { parameters }),
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { 'application/json': { schema: body } } } }),
    responses: {
      [status ?? 200]: {
        description: 'Done',
        ...(answer === undefined
          ? {}
          : { content: { [answerType ?? 'application/json']: { schema: answer } } }),
      },
      ...Object.fromEntries(failed),
    },
  };
}

function failure(code: number): object {
  return {
    description: FAILURES[code] ?? 'Failed',
    content: { 'application/problem+json': { schema: ref('Problem') } },
  };
}

function mapValues<V, R>(record: Readonly<Record<string, V>>, map: (value: V) => R): Record<string, R> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]));
}
