import type {
  Candidate,
  ExplainedAccess,
  ExplainedEndpoint,
  ExplainedKey,
  ExplainedTable,
  ExplainedTimeout,
  ExplainedWayBack,
  Explanation,
  KeyField,
  OtherRule,
} from '../api/views.js';
import {
  PROTOCOL_NUMBER,
  formatEndpoint,
  formatFiveTuple,
  isWildcard,
  type FiveTuple,
} from '../model/address.js';
import type { Configuration, Frontend, Rule } from '../model/configuration.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
import { formatPortSet, portSetContains } from '../model/ports.js';
import { judgeAccess } from './access.js';
import type { FlowHash, HashedField, KeyLayout } from './flow-hash.js';
import {
  NONE_EXCLUDED,
  backendEndpoint,
  tableInUse,
  type HashedKey,
  type PickResult,
  type Picker,
  type TableInUse,
} from './picker.js';
import { NO_RULE, frontendCovers } from './rule-ports.js';

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
    kernelMode: configuration.kernel?.mode,
    otherRules: otherRules(configuration, ruleIndex, tuple),
  };
  const rule = configuration.rules[ruleIndex];
  const view = state.views[state.viewOfRule[ruleIndex] ?? -1];
  if (rule === undefined || view === undefined) return { ...head, candidates: [], timeouts: [] };
  const { frontend, pool } = rule;
  const withRule = {
    ...head,
    rule: {
      name: rule.name,
      haPorts: rule.haPorts,
      ports: formatPortSet(rule.ports),
      frontend: frontend.name,
      frontendAddress: frontend.address.text,
      backendPool: pool.name,
      probe: rule.probe?.name,
    },
    access: explainAccess(frontend, tuple),
  };
  if (result.kind === 'denied') return { ...withRule, candidates: [], timeouts: [] };
  const flowHash = picker.flowHash(state);
  const hashed = picker.hashOf(state, ruleIndex, tuple);
  const inUse = tableInUse(rule, view);
  return {
    ...withRule,
    key: describeKey(tuple, rule, configuration.seed, hashed, flowHash),
    table: inUse && explainTable(rule, view, tuple, inUse, (size) => flowHash.slotOf(hashed.hash, size)),
    candidates: listCandidates(view, inUse && picker.slotCounts(inUse.table), result, excluded),
    endpoint: explainEndpoint(state, rule, tuple, result),
    wayBack: explainWayBack(picker, state, tuple),
    timeouts: listTimeouts(state, rule, tuple),
    behaviour: {
      flowPolicy: rule.flowPolicy,
      allDown: rule.allDown,
      tcpReset: rule.tcpReset,
      connectAttempts: pool.connectAttempts,
    },
  };
}

function explainAccess(frontend: Frontend, { source }: FiveTuple): ExplainedAccess {
  const verdict = judgeAccess(frontend, source);
  return { ...verdict, block: 'block' in verdict ? verdict.block.text : undefined };
}

function explainTable(
  rule: Rule,
  { backends, servingPriority }: PoolView,
  tuple: FiveTuple,
  { table, failOpen }: TableInUse,
  slotIn: (size: number) => number,
): ExplainedTable {
  const slot = slotIn(table.length);
  return {
    size: table.length,
    failOpen,
    slot,
    owner: backends[table[slot]!]?.backend.id ?? '',
    servingPriority,
    perPacket: tuple.protocol === 'udp' && rule.udp.perPacket,
  };
}

function listCandidates(
  view: PoolView,
  slots: ReadonlyMap<number, number> = new Map(),
  result: PickResult,
  excluded: ReadonlySet<string>,
): Candidate[] {
  const size = Array.from(slots.values()).reduce((sum, count) => sum + count, 0);
  return view.backends.map((entry, index): Candidate => {
    const { backend } = entry;
    const owned = slots.get(index) ?? 0;
    // Under fail-open the state's exclusions do not count: every member that has slots is in the running.
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
      share: size === 0 ? 0 : owned / size,
      chosen: result.kind === 'picked' && result.backendIndex === index,
      skipped,
    };
  });
}

function explainEndpoint(
  { configuration, views }: ForwardingState,
  rule: Rule,
  tuple: FiveTuple,
  result: PickResult,
): ExplainedEndpoint | undefined {
  const entry = result.kind === 'picked' ? views[result.viewIndex]?.backends[result.backendIndex] : undefined;
  if (entry === undefined) return undefined;
  const { address, port } =
    configuration.kernel?.mode === 'next-hop'
      ? { address: tuple.destination, port: tuple.destinationPort }
      : backendEndpoint(rule, entry.backend, rule.frontend.name, tuple.destinationPort);
  return {
    address: address.text,
    port,
    text: formatEndpoint(address, port),
    floatingIp: rule.floatingIp,
    portOffset: rule.portOffset,
  };
}

function listTimeouts({ configuration }: ForwardingState, rule: Rule, tuple: FiveTuple): ExplainedTimeout[] {
  const idle = rule.idleTimeoutMs[tuple.protocol];
  const timeouts: ExplainedTimeout[] = [{ name: 'idle', valueMs: idle.value, origin: idle.origin }];
  // No connection is opened in the kernel.
  if (tuple.protocol === 'udp' || configuration.kernel !== undefined) return timeouts;
  timeouts.push({ name: 'connect attempt', valueMs: rule.pool.connectTimeoutMs, origin: 'pool' });
  timeouts.push({ name: 'embryonic', valueMs: configuration.limits.embryonicTimeoutMs, origin: 'limits' });
  const headerTimeoutMs = rule.frontend.proxyProtocol?.headerTimeoutMs;
  if (headerTimeoutMs === undefined) return timeouts;
  return [...timeouts, { name: 'PROXY header', valueMs: headerTimeoutMs, origin: 'frontend' }];
}

/** Names the parts of a key that was written and hashed. The bytes shown are cut from those bytes, not made again. */
function describeKey(
  tuple: FiveTuple,
  layout: KeyLayout,
  seed: number,
  hashed: HashedKey,
  flowHash: FlowHash,
): ExplainedKey {
  const values: Readonly<Record<HashedField, string>> = {
    family: `IPv${tuple.source.family}`,
    protocol: `${tuple.protocol} (${PROTOCOL_NUMBER[tuple.protocol]})`,
    'source address': tuple.source.text,
    'destination address': tuple.destination.text,
    'source port': String(tuple.sourcePort),
    'destination port': String(tuple.destinationPort),
  };
  const hex = Buffer.from(hashed.bytes).toString('hex');
  let offset = 0;
  const fields = flowHash.fields(tuple, layout).map(([name, length]): KeyField => {
    const start = offset;
    offset += length * 2;
    return { name, hex: hex.slice(start, offset), value: values[name] };
  });
  return {
    distribution: layout.distribution,
    symmetric: layout.symmetric,
    destinationFirst: flowHash.swaps(tuple, layout),
    algorithm: flowHash.name,
    fields,
    hex,
    seed,
    hash: hashed.hash,
  };
}

/**
 * Rules that cover the tuple as well but yield to the winner, and why. Without a winner (NO_RULE): all rules, and the
 * first thing about each that does not fit.
 */
export function otherRules(
  configuration: Configuration,
  winnerIndex: number,
  tuple: FiveTuple,
): readonly OtherRule[] {
  const winner = configuration.rules[winnerIndex];
  return configuration.rules.flatMap((rule): OtherRule[] => {
    if (rule === winner) return [];
    const misfit = whatMisfits(rule, tuple);
    if (winner === undefined) return misfit === undefined ? [] : [{ name: rule.name, why: misfit }];
    if (misfit !== undefined) return [];
    return [{ name: rule.name, why: whyItYields(rule, winner) }];
  });
}

function whatMisfits(rule: Rule, tuple: FiveTuple): OtherRule['why'] | undefined {
  if (!frontendCovers(rule.frontend.address, tuple.destination)) return 'other-address';
  if (!rule.protocols.includes(tuple.protocol)) return 'other-protocol';
  return portSetContains(rule.ports, tuple.destinationPort) ? undefined : 'other-port';
}

function whyItYields(rule: Rule, winner: Rule): OtherRule['why'] {
  if (isWildcard(rule.frontend.address) && !isWildcard(winner.frontend.address)) return 'exact-address-wins';
  return rule.haPorts && !winner.haPorts ? 'named-port-wins' : 'earlier-rule-wins';
}

/**
 * Where packets of the other direction go, for the mode in which they meet the same rules: `next-hop`. Undefined with
 * others: there answers belong to their flow. Pure.
 */
function explainWayBack(
  picker: Picker,
  state: ForwardingState,
  tuple: FiveTuple,
): ExplainedWayBack | undefined {
  const { kernel } = state.configuration;
  const there = picker.matchRule(state, tuple);
  if (kernel?.mode !== 'next-hop' || there === NO_RULE) return undefined;
  const back: FiveTuple = {
    protocol: tuple.protocol,
    source: tuple.destination,
    sourcePort: tuple.destinationPort,
    destination: tuple.source,
    destinationPort: tuple.sourcePort,
  };
  const rule = picker.matchRule(state, back);
  const result = rule === NO_RULE ? undefined : picker.pick(state, back, NONE_EXCLUDED);
  // The same bytes: two hashes can be the same backend's by chance.
  const isSame =
    rule === there &&
    Buffer.compare(picker.hashOf(state, there, tuple).bytes, picker.hashOf(state, rule, back).bytes) === 0;
  return {
    tuple: formatFiveTuple(back),
    sameBy: isSame ? 'hash' : kernel.flowState === 'pinned' ? 'flow' : 'nothing',
    hashedTo: result?.kind === 'picked' ? result.backendId : undefined,
  };
}
