import { formatEndpoint, type FiveTuple, type IpAddress } from '../model/address.js';
import type { Backend, Configuration, Rule } from '../model/configuration.js';
import { NO_BACKEND, type ForwardingState, type PoolView } from '../model/forwarding.js';
import { isAdmitted } from './access.js';
import { flowHashOf, type FlowHash, type Hash32 } from './flow-hash.js';
import { NO_RULE, RulePorts, crossesSpokes } from './rule-ports.js';

/** A backend was found. */
export interface Picked {
  readonly kind: 'picked';
  /** Into `configuration.rules`. */
  readonly ruleIndex: number;
  /** Into `state.views`. */
  readonly viewIndex: number;
  /** Into the view's `backends`. */
  readonly backendIndex: number;
  readonly backendId: string;
  /** Of the flow's key bytes, unsigned 32 bits; with `skipped` added to the seed where the data plane hashes again. */
  readonly hash: number;
  /** The slot whose backend was taken: the one that the hash (and sequence) named, or `skipped` slots after it. */
  readonly slot: number;
  /** `retry`: the first slot's backend was excluded. `fail-open`: no backend is eligible and the rule says so. */
  readonly reason: 'hash' | 'retry' | 'fail-open';
  /** Slots walked past because their backend was excluded, or times hashed again for that. */
  readonly skipped: number;
}

/** No rule covers the destination address, port and protocol. */
export interface NoRule {
  readonly kind: 'no-rule';
}

/** The frontend's allow and deny lists do not admit the source. */
export interface Denied {
  readonly kind: 'denied';
  readonly ruleIndex: number;
}

/** A rule, but no backend to take the flow. Never remembered: the next packet asks again. */
export interface NoBackend {
  readonly kind: 'none';
  readonly ruleIndex: number;
  /** `no-eligible`: the table is empty. `all-excluded`: every backend in it failed to connect or is at its cap. */
  readonly cause: 'no-eligible' | 'all-excluded';
  /** From the rule's `allDown`; `reset` where that is `fail-open` and even this found none. */
  readonly action: 'reset' | 'drop';
}

/** What selecting for a rule that is already known can give. */
export type RulePickResult = Picked | NoBackend;

/** What selection can give. Outcomes are values: nothing on this path throws but bugs. */
export type PickResult = RulePickResult | NoRule | Denied;

export interface HashedKey {
  readonly bytes: Uint8Array;
  readonly hash: number;
}

/** For calls that exclude no backend. */
export const NONE_EXCLUDED: ReadonlySet<string> = new Set();

export interface TableInUse {
  readonly table: Uint16Array;
  readonly failOpen: boolean;
}

/** The table that new flows of a rule are placed with; undefined where no backend may take them. */
export function tableInUse(rule: Pick<Rule, 'allDown'>, view: PoolView): TableInUse | undefined {
  if (view.table.length > 0) return { table: view.table, failOpen: false };
  const { failOpenTable } = view;
  if (rule.allDown !== 'fail-open' || failOpenTable === undefined || failOpenTable.length === 0) {
    return undefined;
  }
  return { table: failOpenTable, failOpen: true };
}

/**
 * Chooses backends. The result depends on the arguments and nothing else: no clock, socket or counter. `excluded` holds
 * ids of backends that this flow must not get (failed to connect, at their cap); the caller decides which. Not thread-safe:
 * it reuses one buffer.
 */
export class Picker {
  readonly #hash: Hash32;
  // All only remember what the immutable key already determines.
  readonly #flowHashes = new WeakMap<Configuration, FlowHash>();
  readonly #rulePorts = new WeakMap<Configuration, RulePorts>();
  readonly #slotCounts = new WeakMap<Uint16Array, ReadonlyMap<number, number>>();

  constructor(hash: Hash32) {
    this.#hash = hash;
  }

  /** From scratch: finds the rule, asks the frontend's allow and deny lists, then picks. */
  pick(state: ForwardingState, tuple: FiveTuple, excluded: ReadonlySet<string>): PickResult {
    const ruleIndex = this.matchRule(state, tuple);
    if (ruleIndex === NO_RULE) return { kind: 'no-rule' };
    const { frontend } = ruleAndView(state, ruleIndex).rule;
    if (!isAdmitted(frontend, tuple.source)) return { kind: 'denied', ruleIndex };
    return this.pickForRule(state, ruleIndex, tuple, excluded);
  }

  /**
   * For a listener, which knows its rule and has asked `isAdmitted`. A rule that balances each datagram by itself counts
   * `sequence` up by one a datagram: it starts so many slots after that of the hash, and neighbouring slots belong to
   * backends in proportion to their weights.
   */
  pickForRule(
    state: ForwardingState,
    ruleIndex: number,
    tuple: FiveTuple,
    excluded: ReadonlySet<string>,
    sequence = 0,
  ): RulePickResult {
    const { rule, view, viewIndex } = ruleAndView(state, ruleIndex);
    const inUse = tableInUse(rule, view);
    const action = rule.allDown === 'drop' ? 'drop' : 'reset';
    if (inUse === undefined) return { kind: 'none', ruleIndex, cause: 'no-eligible', action };
    const { table, failOpen } = inUse;
    const flowHash = this.flowHash(state);
    const key = flowHash.write(tuple, rule);
    const { seed } = state.configuration;
    const again = excluded.size > 0 && flowHash.rehashes > 0;
    const rounds = again ? this.#rehash(view, table, flowHash, { key, seed }, excluded) : 0;
    if (rounds === NONE) return { kind: 'none', ruleIndex, cause: 'all-excluded', action };
    const hash = flowHash.hash(key, (seed + rounds) >>> 0);
    const home = (flowHash.slotOf(hash, table.length) + sequence) % table.length;
    const walked = excluded.size === 0 || again ? 0 : this.#walk(view, table, home, excluded);
    if (walked === NONE) return { kind: 'none', ruleIndex, cause: 'all-excluded', action };
    const skipped = rounds + walked;
    const slot = (home + walked) % table.length;
    const backendIndex = table[slot]!;
    return {
      kind: 'picked',
      ruleIndex,
      viewIndex,
      backendIndex,
      backendId: backendIdAt(view, backendIndex),
      hash,
      slot,
      reason: failOpen ? 'fail-open' : skipped > 0 ? 'retry' : 'hash',
      skipped,
    };
  }

  /** Index of the rule that covers the tuple's destination, or NO_RULE. */
  matchRule(state: ForwardingState, tuple: FiveTuple): number {
    const { configuration } = state;
    if (!crossesSpokes(configuration.kernel, tuple)) return NO_RULE;
    let rulePorts = this.#rulePorts.get(configuration);
    if (rulePorts === undefined) {
      rulePorts = new RulePorts(configuration.rules);
      this.#rulePorts.set(configuration, rulePorts);
    }
    return rulePorts.ownerOf(tuple.protocol, tuple.destination, tuple.destinationPort);
  }

  /** The bytes that are hashed for this rule, as a copy, and their hash. */
  hashOf(state: ForwardingState, ruleIndex: number, tuple: FiveTuple): HashedKey {
    const flowHash = this.flowHash(state);
    const bytes = flowHash.write(tuple, ruleAndView(state, ruleIndex).rule).slice();
    return { bytes, hash: flowHash.hash(bytes, state.configuration.seed) };
  }

  /** How this state's data plane hashes. */
  flowHash({ configuration }: ForwardingState): FlowHash {
    let flowHash = this.#flowHashes.get(configuration);
    if (flowHash === undefined) {
      flowHash = flowHashOf(configuration, this.#hash);
      this.#flowHashes.set(configuration, flowHash);
    }
    return flowHash;
  }

  /** By index of a backend that has any, its slots in the table. */
  slotCounts(table: Uint16Array): ReadonlyMap<number, number> {
    const known = this.#slotCounts.get(table);
    if (known !== undefined) return known;
    const counts = new Map<number, number>();
    for (const index of table) counts.set(index, (counts.get(index) ?? 0) + 1);
    this.#slotCounts.set(table, counts);
    return counts;
  }

  /** Times to hash anew until the slot's backend is not excluded, or NONE. */
  #rehash(
    view: PoolView,
    table: Uint16Array,
    flowHash: FlowHash,
    { key, seed }: { readonly key: Uint8Array; readonly seed: number },
    excluded: ReadonlySet<string>,
  ): number {
    for (let round = 0; round <= flowHash.rehashes; round++) {
      const slot = flowHash.slotOf(flowHash.hash(key, (seed + round) >>> 0), table.length);
      if (!excluded.has(backendIdAt(view, table[slot]!))) return round;
    }
    return NONE;
  }

  /** Slots from `home` to the first whose backend is not excluded, or NONE. */
  #walk(view: PoolView, table: Uint16Array, home: number, excluded: ReadonlySet<string>): number {
    // Asked first: when all are excluded, the walk would look at every slot of the table.
    const owners = [...this.slotCounts(table).keys()];
    if (owners.every((index) => excluded.has(backendIdAt(view, index)))) return NONE;
    let skipped = 0;
    let slot = home;
    while (excluded.has(backendIdAt(view, table[slot]!))) {
      skipped++;
      slot = slot + 1 === table.length ? 0 : slot + 1;
    }
    return skipped;
  }
}

const NONE = -1;

/** A rule and the view it sees its pool through. Throws RangeError where the state has no such rule. */
export function ruleAndView(
  state: ForwardingState,
  ruleIndex: number,
): { readonly rule: Rule; readonly view: PoolView; readonly viewIndex: number } {
  const rule = state.configuration.rules[ruleIndex];
  const viewIndex = state.viewOfRule[ruleIndex] ?? -1;
  const view = state.views[viewIndex];
  if (rule === undefined || view === undefined) {
    throw new RangeError(`No rule ${ruleIndex} in forwarding state ${state.revision}`);
  }
  return { rule, view, viewIndex };
}

function backendIdAt(view: PoolView, index: number): string {
  const entry = view.backends[index];
  if (entry === undefined || index === NO_BACKEND) {
    throw new RangeError(`Table of view "${view.key}" names backend ${index} of ${view.backends.length}`);
  }
  return entry.backend.id;
}

export interface BackendEndpoint {
  readonly address: IpAddress;
  readonly port: number;
}

/**
 * Where a flow that reached `frontendPort` is dialled. Without floating IP: the backend's address, and the port moved
 * by the rule's offset (0 keeps it). With floating IP: the alias on which the backend terminates this frontend, port
 * unchanged.
 *
 * Throws TypeError where floating IP has no alias for the frontend or the port leaves 1-65535: the configuration is
 * refused in both cases, so either is a bug.
 */
export function backendEndpoint(
  rule: Pick<Rule, 'floatingIp' | 'portOffset'>,
  backend: Pick<Backend, 'id' | 'address' | 'floatingAddresses'>,
  frontendName: string,
  frontendPort: number,
): BackendEndpoint {
  if (rule.floatingIp) {
    const alias = backend.floatingAddresses[frontendName];
    if (alias === undefined) {
      throw new TypeError(
        `Cannot dial backend "${backend.id}": floating IP needs an alias for "${frontendName}"`,
      );
    }
    return { address: alias, port: frontendPort };
  }
  const port = frontendPort + rule.portOffset;
  if (port < 1 || port > 65535) {
    throw new TypeError(`Cannot dial ${formatEndpoint(backend.address, port)}: port ${port} must be 1-65535`);
  }
  return { address: backend.address, port };
}
