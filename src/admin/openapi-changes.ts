import {
  ADMIN_STATE,
  byProtocol,
  CLOSED,
  DURATION,
  FLAG,
  HEALTH,
  INTEGER,
  integer,
  list,
  NUMBER,
  object,
  oneOf,
  ref,
  SHARE,
  TEXT,
  TIME,
  type Schema,
} from './openapi-words.js';

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
