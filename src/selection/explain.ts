import { formatEndpoint } from '../model/address.js';
import type { BackendPool, Frontend } from '../model/configuration.js';
import { formatFiveTuple, type FiveTuple } from '../model/five-tuple.js';
import type { ForwardingState, PoolView } from '../model/forwarding-state.js';
import { formatPortSet } from '../model/port-set.js';
import type { Rule } from '../model/rule.js';
import { judgeAccess } from './access-list.js';
import { backendEndpoint } from './backend-endpoint.js';
import { describeKey } from './describe-key.js';
import type {
  Candidate,
  ExplainedAccess,
  ExplainedEndpoint,
  ExplainedTable,
  ExplainedTimeout,
  Explanation,
} from './explanation.js';
import { otherRules } from './other-rules.js';
import { NONE_EXCLUDED, tableInUse, type Picker } from './picker.js';
import type { PickResult } from './pick-result.js';
import { NO_RULE } from './rule-matcher.js';
import { explainWayBack } from './way-back.js';

/**
 * Says where a tuple goes and why. The decision is the picker's own; everything else is read from the same state.
 * Pure. Throws TypeError where source and destination are of two families.
 */
export function explain(
  picker: Picker,
  state: ForwardingState,
  tuple: FiveTuple,
  excluded: ReadonlySet<string> = NONE_EXCLUDED,
): Explanation {
  const { configuration } = state;
  const ruleIndex = picker.matchRule(state, tuple);
  const result = picker.pick(state, tuple, excluded);
  const head = {
    revision: state.revision,
    configDigest: configuration.digest,
    tuple: formatFiveTuple(tuple),
    protocol: tuple.protocol,
    excluded: [...excluded],
    result,
    ...(configuration.kernel === undefined ? {} : { kernelMode: configuration.kernel.mode }),
    otherRules: otherRules(configuration, ruleIndex, tuple),
  };
  const rule = ruleIndex === NO_RULE ? undefined : configuration.rules[ruleIndex];
  const frontend = configuration.frontends.find(({ name }) => name === rule?.frontend);
  const pool = configuration.backendPools.find(({ name }) => name === rule?.backendPool);
  const view = state.views[state.viewOfRule[ruleIndex] ?? -1];
  if (rule === undefined || frontend === undefined || pool === undefined || view === undefined) {
    return { ...head, candidates: [], timeouts: [] };
  }
  const withRule = {
    ...head,
    rule: {
      name: rule.name,
      haPorts: rule.haPorts,
      ports: formatPortSet(rule.ports),
      frontend: frontend.name,
      frontendAddress: frontend.address.text,
      backendPool: rule.backendPool,
      ...(rule.probe === undefined ? {} : { probe: rule.probe }),
    },
    access: explainAccess(frontend, tuple),
  };
  if (result.kind === 'denied') return { ...withRule, candidates: [], timeouts: [] };
  const flowHash = picker.flowHash(state);
  const hashed = picker.hashOf(state, ruleIndex, tuple);
  const table = explainTable(rule, view, tuple, (size) => flowHash.slotOf(hashed.hash, size));
  const endpoint = explainEndpoint(state, rule, frontend, tuple, result);
  const wayBack = explainWayBack(picker, state, tuple);
  return {
    ...withRule,
    key: describeKey(tuple, rule, configuration.seed, hashed, flowHash),
    ...(table === undefined ? {} : { table }),
    candidates: listCandidates(rule, view, result, excluded),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(wayBack === undefined ? {} : { wayBack }),
    timeouts: listTimeouts(state, rule, frontend, pool, tuple),
    behaviour: {
      flowPolicy: rule.flowPolicy,
      allDown: rule.allDown,
      tcpReset: rule.tcpReset,
      connectAttempts: pool.connectAttempts,
    },
  };
}

function explainAccess(frontend: Frontend, tuple: FiveTuple): ExplainedAccess {
  const verdict = judgeAccess(frontend, tuple.source);
  const { admitted, because } = verdict;
  return 'block' in verdict ? { admitted, because, block: verdict.block.text } : { admitted, because };
}

function explainTable(
  rule: Rule,
  view: PoolView,
  tuple: FiveTuple,
  slotIn: (size: number) => number,
): ExplainedTable | undefined {
  const inUse = tableInUse(rule, view);
  if (inUse === undefined) return undefined;
  const { table, failOpen } = inUse;
  const slot = slotIn(table.length);
  return {
    size: table.length,
    failOpen,
    slot,
    owner: view.backends[table[slot]!]?.backend.id ?? '',
    ...(view.servingPriority === undefined ? {} : { servingPriority: view.servingPriority }),
    perPacket: tuple.protocol === 'udp' && rule.udp.perPacket,
  };
}

function listCandidates(
  rule: Rule,
  view: PoolView,
  result: PickResult,
  excluded: ReadonlySet<string>,
): Candidate[] {
  const inUse = tableInUse(rule, view);
  const slots = new Array<number>(view.backends.length).fill(0);
  for (const index of inUse?.table ?? []) slots[index] = (slots[index] ?? 0) + 1;
  return view.backends.map((entry, index): Candidate => {
    const { backend } = entry;
    const owned = slots[index] ?? 0;
    // Under fail-open the state's exclusions do not count: whoever has slots is in the running.
    const skipped = owned === 0 ? entry.exclusion : excluded.has(backend.id) ? 'excluded' : undefined;
    return {
      id: backend.id,
      name: backend.name,
      address: backend.address.text,
      health: entry.health,
      adminState: entry.adminState,
      configuredWeight: backend.weight,
      effectiveWeight: entry.effectiveWeight,
      priority: backend.priority,
      valid: entry.valid,
      slots: owned,
      share: inUse === undefined ? 0 : owned / inUse.table.length,
      chosen: result.kind === 'picked' && result.backendIndex === index,
      ...(skipped === undefined ? {} : { skipped }),
    };
  });
}

function explainEndpoint(
  { configuration, views }: ForwardingState,
  rule: Rule,
  frontend: Frontend,
  tuple: FiveTuple,
  result: PickResult,
): ExplainedEndpoint | undefined {
  const entry = result.kind === 'picked' ? views[result.viewIndex]?.backends[result.backendIndex] : undefined;
  if (entry === undefined) return undefined;
  const { address, port } =
    configuration.kernel?.mode === 'next-hop'
      ? { address: tuple.destination, port: tuple.destinationPort }
      : backendEndpoint(rule, entry.backend, frontend.name, tuple.destinationPort);
  return {
    address: address.text,
    port,
    text: formatEndpoint(address, port),
    floatingIp: rule.floatingIp,
    portOffset: rule.portOffset,
  };
}

function listTimeouts(
  state: ForwardingState,
  rule: Rule,
  frontend: Frontend,
  pool: BackendPool,
  tuple: FiveTuple,
): ExplainedTimeout[] {
  const idle = rule.idleTimeoutMs[tuple.protocol];
  const timeouts: ExplainedTimeout[] = [{ name: 'idle', valueMs: idle.value, origin: idle.origin }];
  const { kernel, limits } = state.configuration;
  // No connection is opened in the kernel.
  if (tuple.protocol === 'udp' || kernel !== undefined) return timeouts;
  timeouts.push({ name: 'connect attempt', valueMs: pool.connectTimeoutMs, origin: 'pool' });
  timeouts.push({ name: 'embryonic', valueMs: limits.embryonicTimeoutMs, origin: 'limits' });
  const { proxyProtocol } = frontend;
  if (proxyProtocol !== undefined) {
    timeouts.push({ name: 'PROXY header', valueMs: proxyProtocol.headerTimeoutMs, origin: 'frontend' });
  }
  return timeouts;
}
