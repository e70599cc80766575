import {
  PROTOCOL_NUMBER,
  formatEndpoint,
  formatFiveTuple,
  isWildcard,
  type FiveTuple,
  type Protocol,
} from '../model/address.js';
import type {
  AdminState,
  AllDownAction,
  BackendPool,
  Configuration,
  Distribution,
  FlowPolicy,
  Frontend,
  HealthState,
  KernelMode,
  Rule,
} from '../model/configuration.js';
import type { Exclusion, ForwardingState, PoolView } from '../model/forwarding.js';
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
} from './picker.js';
import { NO_RULE, frontendCovers } from './rule-ports.js';

/** Everything that led to a decision, as plain data: addresses are text, bytes are hex. What `explain` prints. */
export interface Explanation {
  /** Of the forwarding state that was asked. */
  readonly revision: number;
  readonly configDigest: string;
  /** As in formatFiveTuple. */
  readonly tuple: string;
  readonly protocol: Protocol;
  /** Ids of backends left out by the caller: tried in vain, or at their cap. */
  readonly excluded: readonly string[];
  /** The decision itself, word for word what the data plane's picker answers. */
  readonly result: PickResult;
  /** Absent where the userspace data plane serves. */
  readonly kernelMode?: KernelMode;
  /** Absent where no rule covers the tuple. */
  readonly rule?: ExplainedRule;
  /** Rules that cover the tuple too but yield; where none covers it, every rule and what does not fit. */
  readonly otherRules: readonly OtherRule[];
  readonly access?: ExplainedAccess;
  /** Absent without a rule or where access is denied, as everything below. */
  readonly key?: ExplainedKey;
  readonly table?: ExplainedTable;
  readonly candidates: readonly Candidate[];
  /**
   * Where the flow is dialled, or the destination with which its packets reach the backend; present where a backend was
   * picked.
   */
  readonly endpoint?: ExplainedEndpoint;
  /** Of the kernel data plane's mode `next-hop`. */
  readonly wayBack?: ExplainedWayBack;
  readonly timeouts: readonly ExplainedTimeout[];
  readonly behaviour?: ExplainedBehaviour;
}

export interface ExplainedRule {
  readonly name: string;
  readonly haPorts: boolean;
  /** As in formatPortSet. */
  readonly ports: string;
  readonly frontend: string;
  readonly frontendAddress: string;
  readonly backendPool: string;
  readonly probe?: string;
}

export interface OtherRule {
  readonly name: string;
  readonly why:
    | 'exact-address-wins'
    | 'named-port-wins'
    | 'earlier-rule-wins'
    | 'other-protocol'
    | 'other-address'
    | 'other-port';
}

export interface ExplainedAccess {
  readonly admitted: boolean;
  readonly because: 'no-lists' | 'not-denied' | 'allow' | 'deny' | 'not-allowed';
  /** The entry that decided, where one did. */
  readonly block?: string;
}

/** One field of the hash input, in the order hashed. */
export interface KeyField {
  readonly name: HashedField;
  readonly hex: string;
  readonly value: string;
}

export interface ExplainedKey {
  readonly distribution: Distribution;
  readonly symmetric: boolean;
  /** The destination endpoint is hashed first: symmetric, and it is the lower one. */
  readonly destinationFirst: boolean;
  readonly fields: readonly KeyField[];
  /** xxh32 in the userspace plane, jhash in the kernel. */
  readonly algorithm: 'xxh32' | 'jhash';
  /** All fields joined: what xxhsum is fed to check the hash. */
  readonly hex: string;
  readonly seed: number;
  readonly hash: number;
}

export interface ExplainedTable {
  readonly size: number;
  /** Nobody is eligible and the rule says fail-open: all members but those switched down share the table. */
  readonly failOpen: boolean;
  /** `hash mod size`; with jhash `hash * size / 2^32`, rounded down. */
  readonly slot: number;
  /** Id of the slot's backend. The result differs from it where this one is excluded. */
  readonly owner: string;
  /** Priority of the group that serves. */
  readonly servingPriority?: number;
  /** UDP rule that balances each datagram: `slot` is the first one's, each further one starts a slot later. */
  readonly perPacket: boolean;
}

export interface Candidate {
  readonly id: string;
  readonly name: string;
  readonly address: string;
  readonly health: HealthState;
  readonly adminState: AdminState;
  readonly configuredWeight: number;
  /** Differs from the configured weight where the probe's header sets it. */
  readonly effectiveWeight: number;
  readonly priority: number;
  /** May keep the flows that it has. */
  readonly valid: boolean;
  /** Slots of the table in use, and their share of it, 0 to 1. */
  readonly slots: number;
  readonly share: number;
  readonly chosen: boolean;
  /** Why it could not be chosen. Absent on backends that were in the running but not in the slot. */
  readonly skipped?: Exclusion | 'excluded';
}

export interface ExplainedEndpoint {
  readonly address: string;
  readonly port: number;
  /** As in formatEndpoint. */
  readonly text: string;
  /** The address is the backend's alias for the frontend (floating IP); with the kernel data plane the frontend's own. */
  readonly floatingIp: boolean;
  readonly portOffset: number;
}

/** How the other direction of the flow meets the same backend. */
export interface ExplainedWayBack {
  /** As in formatFiveTuple. */
  readonly tuple: string;
  /**
   * `hash`: both directions have the same, whoever sees them first. `flow`: the kernel remembers it, as long as both
   * directions come by and it is not idle for too long. `nothing`: each direction is hashed by itself.
   */
  readonly sameBy: 'hash' | 'flow' | 'nothing';
  /** Backend that a first packet in this direction would get; absent where no rule covers it, or nobody is eligible. */
  readonly hashedTo?: string;
}

export interface ExplainedTimeout {
  readonly name: 'idle' | 'connect attempt' | 'embryonic' | 'PROXY header';
  readonly valueMs: number;
  /** Which part of the configuration it is from; `default` where known to be nobody's wish. */
  readonly origin: 'default' | 'rule' | 'frontend' | 'pool' | 'limits';
}

export interface ExplainedBehaviour {
  readonly flowPolicy: FlowPolicy;
  readonly allDown: AllDownAction;
  /** RST to both ends on TCP idle. */
  readonly tcpReset: boolean;
  /** Backends tried before a new TCP flow is given up. */
  readonly connectAttempts: number;
}

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
  const view = state.views[state.viewOfRule[ruleIndex] ?? -1];
  if (rule === undefined || view === undefined) {
    return { ...head, candidates: [], timeouts: [] };
  }
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
      ...(rule.probe === undefined ? {} : { probe: rule.probe.name }),
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

/** Names the parts of a key that was written and hashed. The bytes shown are cut from those bytes, not made again. */
export function describeKey(
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
export function explainWayBack(
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
    ...(result?.kind === 'picked' ? { hashedTo: result.backendId } : {}),
  };
}
