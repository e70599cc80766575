import { z } from 'zod';
import type { FlowRecord } from '../model/flow.js';

/*
 * What the admin API answers, and the commands and the dashboard show. Plain data: addresses are text, times are
 * milliseconds since the epoch, totals count from the start of the process, rates are over the last seconds. A schema
 * with an id is a component of the OpenAPI document.
 */

/** The type of what a schema describes, immutable through and through. */
export type Shown<S extends z.ZodType> = Immutable<z.output<S>>;

export type Immutable<T> = T extends readonly (infer Item)[]
  ? readonly Immutable<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: Immutable<T[Key]> }
    : T;

const text = z.string();
const flag = z.boolean();
const count = z.int().min(0);
const share = z.number().min(0).max(1);
const time = z.number();

export const protocol = z.enum(['tcp', 'udp']);
export const healthState = z.enum(['unknown', 'up', 'down']);
export const adminState = z.enum(['none', 'up', 'down']);
export const flowState = z.enum(['embryonic', 'established', 'half-closed', 'blackholed']);
export const placementReason = z.enum(['hash', 'retry', 'rebalanced', 'fail-open', 'pinned']);
export const flowSort = z.enum(['age', 'idle', 'bytes', 'rate', 'none']);
export const drainEnd = z.enum(['reset', 'leave']);
const exclusion = z.enum(['probe-down', 'probe-unknown', 'admin-down', 'draining', 'weight-zero', 'standby']);
const distribution = z.enum(['five-tuple', 'source-ip-protocol', 'source-ip']);
const allDown = z.enum(['reset', 'drop', 'fail-open']);

/** An object of the OpenAPI document. */
function component<S extends z.ZodRawShape>(id: string, shape: S, description?: string) {
  return z.object(shape).meta({ id, ...(description !== undefined && { description }) });
}

function byProtocol<S extends z.ZodType>(schema: S) {
  return z.object({ tcp: schema, udp: schema });
}

/** A backend, as listed and as a candidate of a flow. */
const backendKeys = {
  id: text.describe('pool/address'),
  name: text,
  address: text,
  health: healthState,
  adminState,
  configuredWeight: count,
  priority: count,
  valid: flag.describe('May keep the flows that it has'),
};

/** A rule and what it is linked to. */
const ruleKeys = {
  name: text,
  frontend: text,
  backendPool: text,
  probe: text.optional(),
  haPorts: flag,
  ports: text.describe('As `443` or `22,8000-8099`'),
};

/** What a flow has carried. */
export const carried = {
  bytesToBackend: count,
  packetsToBackend: count,
  bytesToClient: count,
  packetsToClient: count,
};

const traffic = component(
  'Traffic',
  {
    flowsActive: count,
    flowsOpened: count,
    newFlowsPerSecond: z.number(),
    bytesToBackend: count,
    bytesToClient: count,
    bitsToBackendPerSecond: z.number(),
    bitsToClientPerSecond: z.number(),
    connectFailures: count,
    resets: count,
  },
  'Totals since the start, and rates over the last two samples',
);

export type TrafficView = Shown<typeof traffic>;

const flow = component('Flow', {
  id: count.describe('Unique in the process'),
  tuple: z.object({
    protocol,
    source: text,
    sourcePort: z.int().min(1).max(65535),
    destination: text,
    destinationPort: z.int().min(1).max(65535),
  }),
  rule: text,
  backendId: text.describe('Empty: not on a backend yet'),
  backendEndpoint: text,
  reason: placementReason.describe('Why it is on this backend'),
  state: flowState,
  epoch: count.describe('Revision of the forwarding state that placed it'),
  excluded: z.array(text).describe('Backends whose connect failed, or that were at their cap'),
  openedAtMs: time,
  idleMs: z.number(),
  ...carried,
  bitsPerSecond: z
    .number()
    .optional()
    .describe('Both directions, since the flow was last listed with sort rate; absent: not known yet'),
});

/** A FlowRecord with its addresses as text, and its rate where that is known. */
export type FlowView = Shown<typeof flow>;

export function flowView(flow: FlowRecord & Pick<FlowView, 'bitsPerSecond'>): FlowView {
  const { tuple } = flow;
  return { ...flow, tuple: { ...tuple, source: tuple.source.text, destination: tuple.destination.text } };
}

export const flowList = component('FlowList', {
  flows: z.array(flow),
  matched: count.describe('Flows that match, listed or not; with sort none, of this page only'),
  next: count.optional().describe('With sort none: `after` of the next page; absent: this is the last'),
});

export type FlowList = Shown<typeof flowList>;

export const drain = component('Drain', {
  pool: text,
  backendId: text,
  backendName: text,
  phase: z
    .enum(['draining', 'ending', 'done'])
    .describe('Before the deadline; ending flows after it; no flow left, or the rest left alone'),
  then: drainEnd.describe('What flows meet that are left at the deadline'),
  deadlineMs: z.number().describe('From the start of the drain'),
  spreadMs: z.number().describe('Time over which the ends are spread'),
  startedAtMs: time,
  deadlineAtMs: time,
  flowsAtStart: count,
  flows: byProtocol(count).describe('Live flows'),
  predictedFinishAtMs: time
    .optional()
    .describe('When the last flow is likely to finish by itself; absent: nothing to go by'),
  lastNewFlowAtMs: time.optional().describe('Absent: no flow since the start of the process'),
  longest: z.array(flow).describe('The oldest flows that are left, at most 5'),
});

export type DrainStatus = Shown<typeof drain>;

const tableUse = z.object({ used: count, limit: count });

export const status = component('Status', {
  version: text,
  pid: count,
  startedAtMs: time,
  workers: count.describe('Data workers; 0: all in one process'),
  workersLost: count,
  configuration: z.object({
    source: text,
    digest: text,
    loadedAtMs: time,
    lastReload: z
      .object({ atMs: time, ok: flag, message: text })
      .optional()
      .describe('Absent: no reload yet'),
  }),
  revision: count.describe('Of the forwarding state'),
  problems: z.array(text).describe('Why not ready or not healthy, the worst first; empty: all is well'),
  listeners: byProtocol(count).describe('Sockets that are open'),
  table: z.object({ tcp: tableUse, udp: tableUse, embryonic: tableUse }).describe('Use of the flow table'),
  traffic,
  backends: z.object({ total: count, serving: count }),
  drains: z.array(drain),
  kernel: z
    .object({
      table: text,
      mode: text,
      why: text.describe('Why this mode was chosen'),
      state: z
        .enum(['in-place', 'failing', 'absent'])
        .describe('As it should be; tried again since it could not be written; not there'),
      sinceMs: time,
      repairs: count.describe('Times that it was found lost or altered, and repaired'),
      failures: count.describe('Transactions that failed'),
      lastFailure: z.object({ atMs: time, text }).optional(),
      tool: text,
    })
    .optional()
    .describe('What haports keeps in the kernel besides sockets; absent: nothing'),
});

export type StatusView = Shown<typeof status>;

export const frontend = component('Frontend', {
  name: text,
  address: text,
  rules: z.array(text),
  listeners: z.object({ open: count, wanted: count }),
  traffic,
});

export type FrontendView = Shown<typeof frontend>;

export const rule = component('Rule', {
  ...ruleKeys,
  protocols: z.array(protocol),
  distribution,
  symmetric: flag,
  floatingIp: flag,
  allDown,
  serving: count.describe('Backends that get new flows'),
  arrivals: count,
  drops: z.record(text, count).describe('By reason'),
  distinctSources: z.number().describe('Estimate of distinct client addresses since the start'),
  traffic,
});

export type RuleView = Shown<typeof rule>;

const probe = component('Probe', {
  probe: text,
  state: healthState,
  consecutiveSuccesses: count,
  consecutiveFailures: count,
  transitions: count,
  heldForMs: z
    .number()
    .optional()
    .describe('How long flap damping still holds back an up; absent: not at all'),
  last: z.object({ verdict: text, evidence: text, durationMs: z.number() }).optional(),
  history: z
    .array(z.object({ atMs: time, from: healthState, to: healthState, evidence: text }))
    .describe('Oldest first'),
});

export type ProbeView = Shown<typeof probe>;

const backend = component('Backend', {
  ...backendKeys,
  pool: text,
  adminStateOrigin: z.enum(['configured', 'operator']),
  weight: z.number().describe('What the table is built with: after operator, probe header and slow start'),
  weightOrigin: z.enum(['configured', 'operator', 'probe-header', 'slow-start']),
  serving: flag.describe('Gets new flows by at least one probe'),
  exclusion: exclusion.optional().describe('Why it does not serve; absent: it does'),
  probes: z.array(probe),
  hashShare: share.describe("Of the hash space, in the pool's first view"),
  realShare: share.describe("Of the pool's flows opened since the start"),
  lastNewFlowAtMs: time.optional(),
  traffic,
  drain: drain.optional(),
});

export type BackendView = Shown<typeof backend>;

export const backendPool = component('BackendPool', {
  name: text,
  minimumHealthy: count,
  servingPriority: count.optional().describe('Absent: no backend serves'),
  serving: count,
  rules: z.array(text),
  backends: z.array(backend),
});

export type BackendPoolView = Shown<typeof backendPool>;

export const finding = component(
  'Finding',
  {
    severity: z.enum(['error', 'warning', 'note']),
    code: text,
    path: text,
    message: text,
    line: count.optional(),
    column: count.optional(),
    found: text.optional(),
    expected: text.optional(),
    reason: text.optional(),
  },
  'As `haports check --json` prints it',
);

export type FindingView = Shown<typeof finding>;

/** An error answer (RFC 9457). */
export const problem = component(
  'Problem',
  {
    type: text,
    status: z.int(),
    title: text,
    detail: text.optional().describe('What is there and what must be'),
    code: text.optional().describe('Stable, LB_...'),
    findings: z.array(finding).optional().describe('Of a configuration that cannot be used'),
  },
  'RFC 9457',
);

const flowFates = component(
  'FlowFates',
  { stay: count, move: count, reset: count, drop: count },
  'What becomes of live flows; move: UDP, with its next datagram',
);

export type FlowFates = Shown<typeof flowFates>;

const plannedBackend = z.object({ pool: text, backendId: text, name: text });

export type PlannedBackend = Shown<typeof plannedBackend>;

const plannedRule = z.object({
  name: text,
  renamedFrom: text.optional(),
  change: z.enum(['same', 'changed', 'added', 'removed']),
  changes: z.array(text).describe('Keys that differ, as in the configuration'),
  movedShare: share.describe('Of the hash space whose backend is another one; 1: added or removed'),
  flows: byProtocol(flowFates),
});

export type PlannedRule = Shown<typeof plannedRule>;

const planReport = component('PlanReport', {
  fromDigest: text,
  toDigest: text,
  revision: count.describe('Of the state that was compared with'),
  rules: z.array(plannedRule),
  movedShare: share.describe('The largest of any rule that is there before and after; `maxMoved` limits it'),
  flows: flowFates,
  backends: z.object({
    added: z.array(plannedBackend),
    removed: z.array(plannedBackend),
    changed: z.array(plannedBackend.extend({ changes: z.array(text) })).describe('Same identity, other keys'),
  }),
  probeStateLost: z
    .array(z.object({ backendId: text, probe: text }))
    .describe('Backends that wait for the first verdict of a new or changed probe'),
  listeners: z.object({ kept: count, opened: count, closed: count }),
  restartNeeded: z.array(text).describe('Keys that only a new process takes over; any: a reload is refused'),
  steps: z.array(text).describe('What will happen, in order'),
});

export type PlanReport = Shown<typeof planReport>;

export const planOutcome = component('PlanOutcome', { findings: z.array(finding), report: planReport });

export type PlanOutcome = Shown<typeof planOutcome>;

const reloadReport = z.object({
  revision: count,
  digest: text,
  plan: planReport,
  kept: z.object({
    flows: count,
    probeTargets: count.describe('Backends probed as before: what was known of them holds'),
    adminStates: count,
    drains: count,
    listeners: count,
  }),
  lost: z.object({
    flows: count,
    probeTargets: count,
    overrides: z.array(text).describe('Backends whose admin state, weight or drain went with them'),
    listeners: count,
  }),
  durationMs: z.number(),
});

export type ReloadReport = Shown<typeof reloadReport>;

export const reloadOutcome = component('ReloadOutcome', { findings: z.array(finding), report: reloadReport });

export type ReloadOutcome = Shown<typeof reloadOutcome>;

export const upgradeOutcome = component('UpgradeOutcome', {
  pid: count.describe('Of the new control process'),
  version: text.describe('Of haports, in the new process'),
  sockets: count.describe('Listening sockets handed over, TCP and UDP'),
  udpFlows: count.describe('UDP flows handed over'),
  durationMs: z.number().describe('From the start of the new process until it served'),
  udpPauseMs: z.number().describe('How long datagrams of clients waited in the sockets meanwhile'),
});

export type UpgradeOutcome = Shown<typeof upgradeOutcome>;

const simulatedRule = z.object({
  name: text,
  followed: count,
  flows: byProtocol(flowFates),
  unplacedBefore: count.describe('Followed flows that no backend would take, before and after'),
  unplacedAfter: count,
  backends: z.array(
    z.object({
      backendId: text,
      name: text,
      shareBefore: share.describe("Of the rule's flows"),
      shareAfter: share,
    }),
  ),
});

export type SimulatedRule = Shown<typeof simulatedRule>;

export const simulationReport = component('SimulationReport', {
  revision: count,
  configDigest: text,
  rules: z.array(simulatedRule),
});

export type SimulationReport = Shown<typeof simulationReport>;

export const feedEvent = component('FeedEvent', {
  id: count.describe('Grows by one with each event of the process'),
  atMs: time,
  level: z.enum(['debug', 'info', 'warn', 'error']),
  type: text.describe('`health-changed`, `drain-started` ...'),
  message: text.describe('For people'),
  fields: z.record(text, z.unknown()).describe('What else is known, as in the log'),
});

export type FeedEvent = Shown<typeof feedEvent>;

const pickResult = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('picked'),
    ruleIndex: count,
    viewIndex: count,
    backendIndex: count,
    backendId: text,
    hash: count,
    slot: count,
    reason: z.enum(['hash', 'retry', 'fail-open']),
    skipped: count.describe('Slots passed because their backend was excluded'),
  }),
  z.object({
    kind: z.literal('none'),
    ruleIndex: count,
    cause: z.enum(['no-eligible', 'all-excluded']),
    action: z.enum(['reset', 'drop']),
  }),
  z.object({ kind: z.literal('denied'), ruleIndex: count }),
  z.object({ kind: z.literal('no-rule') }),
]);

const otherRule = z.object({
  name: text,
  why: z.enum([
    ...(['exact-address-wins', 'named-port-wins', 'earlier-rule-wins'] as const),
    ...(['other-protocol', 'other-address', 'other-port'] as const),
  ]),
});

export type OtherRule = Shown<typeof otherRule>;

const explainedAccess = z.object({
  admitted: flag,
  because: z.enum(['no-lists', 'not-denied', 'allow', 'deny', 'not-allowed']),
  block: text.optional().describe('The entry that decided, where one did'),
});

export type ExplainedAccess = Shown<typeof explainedAccess>;

const keyField = z.object({
  name: z.enum([
    ...(['family', 'protocol', 'source address', 'destination address'] as const),
    ...(['source port', 'destination port'] as const),
  ]),
  hex: text,
  value: text,
});

export type KeyField = Shown<typeof keyField>;

const explainedKey = z.object({
  distribution,
  symmetric: flag,
  destinationFirst: flag.describe('The destination is hashed first: symmetric, and it is the lower endpoint'),
  fields: z.array(keyField).describe('In the order hashed'),
  algorithm: z.enum(['xxh32', 'jhash']),
  hex: text.describe('All fields joined: feed it to xxhsum to check the hash'),
  seed: count,
  hash: count,
});

export type ExplainedKey = Shown<typeof explainedKey>;

const explainedTable = z.object({
  size: count,
  failOpen: flag.describe('No backend is eligible and the rule fails open'),
  slot: count.describe('`hash mod size`; with jhash `hash * size / 2^32`, rounded down'),
  owner: text.describe("Id of the slot's backend; the result differs where this one is excluded"),
  servingPriority: count.optional(),
  perPacket: flag.describe('Each datagram is balanced: this is the slot of the first'),
});

export type ExplainedTable = Shown<typeof explainedTable>;

const candidate = z.object({
  ...backendKeys,
  effectiveWeight: z.number().describe('Differs where an operator, the probe header or slow start sets it'),
  slots: count.describe('Of the table in use'),
  share: share.describe('Of the table in use'),
  chosen: flag,
  skipped: z
    .enum([...exclusion.options, 'excluded'])
    .optional()
    .describe('Why it could not be chosen; absent: it could, but is not in the slot'),
});

export type Candidate = Shown<typeof candidate>;

const explainedEndpoint = z.object({
  address: text,
  port: count,
  text,
  floatingIp: flag,
  portOffset: z.int(),
});

export type ExplainedEndpoint = Shown<typeof explainedEndpoint>;

const explainedWayBack = z.object({
  tuple: text,
  sameBy: z
    .enum(['hash', 'flow', 'nothing'])
    .describe('Both directions hash alike; the kernel remembers the flow; each direction by itself'),
  hashedTo: text.optional().describe('Backend of a first packet in this direction'),
});

export type ExplainedWayBack = Shown<typeof explainedWayBack>;

const explainedTimeout = z.object({
  name: z.enum(['idle', 'connect attempt', 'embryonic', 'PROXY header']),
  valueMs: z.number(),
  origin: z.enum(['default', 'rule', 'frontend', 'pool', 'limits']).describe('Part of the configuration'),
});

export type ExplainedTimeout = Shown<typeof explainedTimeout>;

const explainedBehaviour = z.object({
  flowPolicy: z.record(
    z.enum(['probe-down', 'admin-down', 'removed', 'drain-deadline', 'idle']),
    byProtocol(z.enum(['persist', 'rebalance', 'reset', 'drop'])),
  ),
  allDown,
  tcpReset: flag.describe('RST to both ends on TCP idle'),
  connectAttempts: count.describe('Backends tried before a new TCP flow is given up'),
});

const explanation = z.object({
  revision: count.describe('Of the forwarding state that was asked'),
  configDigest: text,
  tuple: text,
  protocol,
  excluded: z.array(text).describe('Ids of backends that were left out'),
  result: pickResult,
  kernelMode: z
    .enum(['nat', 'floating-l2', 'floating-routed', 'next-hop'])
    .optional()
    .describe('Absent: the userspace data plane'),
  rule: z
    .object({ ...ruleKeys, frontendAddress: text })
    .optional()
    .describe('Absent: no rule covers the tuple'),
  otherRules: z
    .array(otherRule)
    .describe('Rules that cover it too but yield; without a rule: why each does not fit'),
  access: explainedAccess.optional(),
  key: explainedKey.optional().describe('Absent without a rule or where access is denied, as what follows'),
  table: explainedTable.optional(),
  candidates: z.array(candidate),
  endpoint: explainedEndpoint.optional().describe('Where the flow is sent; absent: no backend was picked'),
  wayBack: explainedWayBack.optional().describe('How answers meet the same backend, in mode next-hop'),
  timeouts: z.array(explainedTimeout),
  behaviour: explainedBehaviour.optional(),
});

/** Everything that led to a decision, in the order it is made: addresses are text, bytes are hex. */
export type Explanation = Shown<typeof explanation>;

export const liveExplanation = explanation
  .extend({
    flow: flow.optional().describe('The live flow of exactly this five-tuple; absent: none'),
    agrees: flag.optional().describe('Whether that flow is where a new one would go now'),
    verdict: text.describe('Both in a sentence, and why they differ'),
  })
  .meta({ id: 'Explanation', description: 'Everything that leads to a decision, in the order it is made' });

/** Where a tuple would go now, and where its live flow is. */
export type LiveExplanation = Shown<typeof liveExplanation>;
