import { VERSION } from '../model/version.js';
import { FLOW_SORTS, FLOW_STATES, PLACEMENT_REASONS } from './routes.js';

/** A JSON Schema (2020-12), as OpenAPI 3.1 has it. */
export type Schema = Readonly<Record<string, unknown>>;

export const TEXT: Schema = { type: 'string' };
export const FLAG: Schema = { type: 'boolean' };
export const NUMBER: Schema = { type: 'number' };
export const INTEGER: Schema = { type: 'integer', minimum: 0 };
export const SHARE: Schema = { type: 'number', minimum: 0, maximum: 1 };
export const TIME: Schema = { type: 'integer', description: 'Milliseconds since the epoch' };
export const PROTOCOL = oneOf('tcp', 'udp');
export const DURATION: Schema = {
  type: 'string',
  pattern: '^[0-9]{1,9}(ms|s|m|h)$',
  examples: ['30s', '10m'],
};

export function oneOf(...words: readonly string[]): Schema {
  return { type: 'string', enum: words };
}

export function integer(minimum: number, maximum: number): Schema {
  return { type: 'integer', minimum, maximum };
}

export function list(items: Schema): Schema {
  return { type: 'array', items };
}

/** Members whose key ends in `?` may be absent. */
export function object(members: Readonly<Record<string, Schema>>, more: Schema = {}): Schema {
  const properties = Object.entries(members).map(([key, schema]) => [key.replace('?', ''), schema] as const);
  const required = Object.keys(members).filter((key) => !key.endsWith('?'));
  return {
    type: 'object',
    properties: Object.fromEntries(properties),
    ...(required.length === 0 ? {} : { required }),
    ...more,
  };
}

/** A schema of components, by name. */
export function ref(name: string): Schema {
  return { $ref: `#/components/schemas/${name}` };
}

export const CLOSED: Schema = { additionalProperties: false };
export const ADMIN_STATE = oneOf('none', 'up', 'down');
export const HEALTH = oneOf('unknown', 'up', 'down');

export function byProtocol(schema: Schema): Schema {
  return object({ tcp: schema, udp: schema });
}

const EXCLUSION = oneOf('probe-down', 'probe-unknown', 'admin-down', 'draining', 'weight-zero', 'standby');
const TABLE_USE = object({ used: INTEGER, limit: INTEGER });

/** What is shown: the types of src/model/operator-views.ts and their parts. */
export const VIEW_SCHEMAS = {
  Traffic: object(
    {
      flowsActive: INTEGER,
      flowsOpened: INTEGER,
      newFlowsPerSecond: NUMBER,
      bytesToBackend: INTEGER,
      bytesToClient: INTEGER,
      bitsToBackendPerSecond: NUMBER,
      bitsToClientPerSecond: NUMBER,
      connectFailures: INTEGER,
      resets: INTEGER,
    },
    { description: 'Totals since the start, rates over the last two samples' },
  ),
  Status: object({
    version: TEXT,
    pid: INTEGER,
    startedAtMs: TIME,
    workers: INTEGER,
    workersLost: INTEGER,
    configuration: object({
      source: TEXT,
      digest: TEXT,
      loadedAtMs: TIME,
      'lastReload?': object({ atMs: TIME, ok: FLAG, message: TEXT }),
    }),
    revision: INTEGER,
    problems: list(TEXT),
    listeners: byProtocol(INTEGER),
    table: object({ tcp: TABLE_USE, udp: TABLE_USE, embryonic: TABLE_USE }),
    traffic: ref('Traffic'),
    backends: object({ total: INTEGER, serving: INTEGER }),
    drains: list(ref('Drain')),
    'kernel?': object(
      {
        table: TEXT,
        mode: TEXT,
        why: TEXT,
        state: oneOf('in-place', 'failing', 'absent'),
        sinceMs: TIME,
        repairs: INTEGER,
        failures: INTEGER,
        'lastFailure?': object({ atMs: TIME, text: TEXT }),
        tool: TEXT,
      },
      { description: 'What it keeps in the kernel besides sockets' },
    ),
  }),
  Frontend: object({
    name: TEXT,
    address: TEXT,
    rules: list(TEXT),
    listeners: object({ open: INTEGER, wanted: INTEGER }),
    traffic: ref('Traffic'),
  }),
  Rule: object({
    name: TEXT,
    frontend: TEXT,
    backendPool: TEXT,
    'probe?': TEXT,
    protocols: list(PROTOCOL),
    haPorts: FLAG,
    ports: TEXT,
    distribution: TEXT,
    symmetric: FLAG,
    floatingIp: FLAG,
    allDown: TEXT,
    serving: INTEGER,
    arrivals: INTEGER,
    drops: { type: 'object', additionalProperties: INTEGER },
    distinctSources: NUMBER,
    traffic: ref('Traffic'),
  }),
  Probe: object({
    probe: TEXT,
    state: HEALTH,
    consecutiveSuccesses: INTEGER,
    consecutiveFailures: INTEGER,
    transitions: INTEGER,
    'heldForMs?': INTEGER,
    'last?': object({ verdict: TEXT, evidence: TEXT, durationMs: NUMBER }),
    history: list({ type: 'object' }),
  }),
  Backend: object({
    id: TEXT,
    name: TEXT,
    pool: TEXT,
    address: TEXT,
    priority: INTEGER,
    adminState: ADMIN_STATE,
    adminStateOrigin: oneOf('configured', 'operator'),
    configuredWeight: INTEGER,
    weight: INTEGER,
    weightOrigin: oneOf('configured', 'operator', 'probe-header', 'slow-start'),
    serving: FLAG,
    valid: FLAG,
    'exclusion?': EXCLUSION,
    health: HEALTH,
    probes: list(ref('Probe')),
    hashShare: SHARE,
    realShare: SHARE,
    'lastNewFlowAtMs?': TIME,
    traffic: ref('Traffic'),
    'drain?': ref('Drain'),
  }),
  BackendPool: object({
    name: TEXT,
    minimumHealthy: INTEGER,
    'servingPriority?': INTEGER,
    serving: INTEGER,
    rules: list(TEXT),
    backends: list(ref('Backend')),
  }),
  Flow: object({
    id: INTEGER,
    tuple: object({
      protocol: PROTOCOL,
      source: TEXT,
      sourcePort: integer(1, 65535),
      destination: TEXT,
      destinationPort: integer(1, 65535),
    }),
    rule: TEXT,
    backendId: TEXT,
    backendEndpoint: TEXT,
    reason: oneOf('hash', 'retry', 'rebalanced', 'fail-open', 'pinned'),
    state: oneOf('embryonic', 'established', 'half-closed', 'blackholed'),
    epoch: INTEGER,
    excluded: list(TEXT),
    openedAtMs: TIME,
    idleMs: NUMBER,
    bytesToBackend: INTEGER,
    packetsToBackend: INTEGER,
    bytesToClient: INTEGER,
    packetsToClient: INTEGER,
    'bitsPerSecond?': NUMBER,
  }),
  FlowList: object({ flows: list(ref('Flow')), matched: INTEGER, 'next?': INTEGER }),
  Explanation: object(
    {
      revision: INTEGER,
      configDigest: TEXT,
      tuple: TEXT,
      protocol: PROTOCOL,
      excluded: list(TEXT),
      result: { type: 'object' },
      'kernelMode?': TEXT,
      'rule?': { type: 'object' },
      otherRules: list({ type: 'object' }),
      'access?': { type: 'object' },
      'key?': { type: 'object' },
      'table?': { type: 'object' },
      candidates: list({ type: 'object' }),
      'endpoint?': { type: 'object' },
      'wayBack?': { type: 'object' },
      timeouts: list({ type: 'object' }),
      'behaviour?': { type: 'object' },
      'flow?': ref('Flow'),
      'agrees?': { type: 'boolean', description: 'Whether that flow is where a new one would go now' },
      verdict: { type: 'string', description: 'Both in a sentence, and why they differ' },
    },
    { description: 'Everything that leads to a decision, in the order it is made' },
  ),
  FeedEvent: object({
    id: INTEGER,
    atMs: TIME,
    level: oneOf('debug', 'info', 'warn', 'error'),
    type: TEXT,
    message: TEXT,
    fields: { type: 'object' },
  }),
} as const satisfies Readonly<Record<string, Schema>>;

const FATES = ref('FlowFates');
const PLANNED = { pool: TEXT, backendId: TEXT, name: TEXT };

/** What is asked of the API, what it answers to that, and its errors. */
export const CHANGE_SCHEMAS = {
  Problem: object(
    {
      type: TEXT,
      status: { type: 'integer' },
      title: TEXT,
      'detail?': { type: 'string', description: 'What is there and what must be' },
      'code?': { type: 'string', description: 'Stable, LB_...' },
      'findings?': list(ref('Finding')),
    },
    { description: 'RFC 9457' },
  ),
  Finding: object({
    severity: oneOf('error', 'warning', 'note'),
    code: TEXT,
    path: TEXT,
    message: TEXT,
    'line?': INTEGER,
    'column?': INTEGER,
    'found?': TEXT,
    'expected?': TEXT,
    'reason?': TEXT,
  }),
  AdminStateChange: object({ adminState: oneOf('none', 'up', 'down', 'configured') }, CLOSED),
  WeightChange: object({ weight: { anyOf: [integer(0, 256), oneOf('configured')] } }, CLOSED),
  DrainRequest: object(
    {
      deadline: DURATION,
      'then?': { ...oneOf('reset', 'leave'), default: 'reset' },
      'spread?': { ...DURATION, default: '10s' },
      'force?': { ...FLAG, default: false, description: 'Even where fewer than minimumHealthy are left' },
    },
    CLOSED,
  ),
  Drain: object({
    pool: TEXT,
    backendId: TEXT,
    backendName: TEXT,
    phase: oneOf('draining', 'ending', 'done'),
    deadlineMs: INTEGER,
    then: oneOf('reset', 'leave'),
    spreadMs: INTEGER,
    startedAtMs: TIME,
    deadlineAtMs: TIME,
    flowsAtStart: INTEGER,
    flows: byProtocol(INTEGER),
    'predictedFinishAtMs?': TIME,
    'lastNewFlowAtMs?': TIME,
    longest: list(ref('Flow')),
  }),
  FlowFates: object({ stay: INTEGER, move: INTEGER, reset: INTEGER, drop: INTEGER }),
  PlanReport: object({
    fromDigest: TEXT,
    toDigest: TEXT,
    revision: INTEGER,
    rules: list(
      object({
        name: TEXT,
        'renamedFrom?': TEXT,
        change: oneOf('same', 'changed', 'added', 'removed'),
        changes: list(TEXT),
        movedShare: SHARE,
        flows: byProtocol(FATES),
      }),
    ),
    movedShare: SHARE,
    flows: FATES,
    backends: object({
      added: list(object(PLANNED)),
      removed: list(object(PLANNED)),
      changed: list(object({ ...PLANNED, changes: list(TEXT) })),
    }),
    probeStateLost: list(object({ backendId: TEXT, probe: TEXT })),
    listeners: object({ kept: INTEGER, opened: INTEGER, closed: INTEGER }),
    restartNeeded: list(TEXT),
    steps: list(TEXT),
  }),
  PlanOutcome: object({ findings: list(ref('Finding')), report: ref('PlanReport') }),
  ReloadOutcome: object({
    findings: list(ref('Finding')),
    report: object({
      revision: INTEGER,
      digest: TEXT,
      plan: ref('PlanReport'),
      kept: object({
        flows: INTEGER,
        probeTargets: INTEGER,
        adminStates: INTEGER,
        drains: INTEGER,
        listeners: INTEGER,
      }),
      lost: object({ flows: INTEGER, probeTargets: INTEGER, overrides: list(TEXT), listeners: INTEGER }),
      durationMs: NUMBER,
    }),
  }),
  UpgradeRequest: object(
    { 'deadline?': { ...DURATION, description: 'How long TCP flows of the old process may take' } },
    CLOSED,
  ),
  UpgradeOutcome: object({
    pid: INTEGER,
    version: TEXT,
    sockets: INTEGER,
    udpFlows: INTEGER,
    durationMs: NUMBER,
    udpPauseMs: NUMBER,
  }),
  SimulationRequest: object(
    {
      'suppose?': list(
        object(
          {
            backend: { type: 'string', description: 'pool/name or pool/address' },
            'health?': HEALTH,
            'adminState?': ADMIN_STATE,
            'weight?': integer(0, 256),
            'draining?': FLAG,
          },
          CLOSED,
        ),
      ),
      population: {
        oneOf: [
          object({ kind: { const: 'live' } }, CLOSED),
          object(
            {
              kind: { const: 'generated' },
              flows: integer(1, 1_000_000),
              sources: integer(1, 1_000_000),
              seed: integer(0, 4_294_967_295),
            },
            CLOSED,
          ),
        ],
      },
    },
    CLOSED,
  ),
  SimulationReport: object({
    revision: INTEGER,
    configDigest: TEXT,
    rules: list(
      object({
        name: TEXT,
        followed: INTEGER,
        flows: byProtocol(FATES),
        unplacedBefore: INTEGER,
        unplacedAfter: INTEGER,
        backends: list(object({ backendId: TEXT, name: TEXT, shareBefore: SHARE, shareAfter: SHARE })),
      }),
    ),
  }),
} as const satisfies Readonly<Record<string, Schema>>;

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
const OPENAPI_PROTOCOL = query('protocol', oneOf('tcp', 'udp'), 'Protocol');
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
        OPENAPI_PROTOCOL,
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
        needed(OPENAPI_PROTOCOL),
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
