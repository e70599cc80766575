import type { LoggedEpoch, LoggedMember } from '../api/flow-log.js';
import type { Backend, BackendPool, Configuration, Rule } from '../model/configuration.js';
import {
  viewKey,
  type BackendState,
  type DrainStage,
  type ForwardingState,
  type PoolView,
} from '../model/forwarding.js';
import { withTables, type CompilerInputs } from '../selection/compiler.js';
import type { Hash32 } from '../selection/flow-hash.js';
import { buildMaglevTable, type MaglevMember } from '../selection/maglev.js';
import { eligibilityOf } from '../selection/pool.js';

/** One backend, by the probe that saw it so; no probe: an empty name. */
type Seen = ReadonlyMap<string, LoggedMember>;

/** While a member is in slow start, weights are recorded this many times as large (BackendState). */
const RAMP_SCALE = 100;

/** Members in slow start get so many times a multiple of their weight (control/slow-start.ts). */
const RAMP_STEP = 10;

/**
 * What swayed the state of an epoch, so that the state can be compiled again, and with something else supposed. Gives the
 * same tables. Backends that the epoch does not have are taken for up.
 */
export function inputsOfEpoch({ views }: LoggedEpoch, pools: readonly BackendPool[]): CompilerInputs {
  const byBackend = new Map<string, Map<string, LoggedMember>>();
  for (const { key, backends } of views) {
    const probe = key.slice(key.indexOf('|') + 1);
    for (const member of backends) {
      const seen = byBackend.get(member.id) ?? new Map<string, LoggedMember>();
      byBackend.set(member.id, seen.set(probe, member));
    }
  }
  const ramping = new Set(
    pools
      .filter((pool) => isRamping(pool, byBackend))
      .flatMap(({ backends }) => backends.map(({ id }) => id)),
  );
  const anyOf = ({ id }: Backend): LoggedMember | undefined => byBackend.get(id)?.values().next().value;
  const weightIn = (backend: Backend, { weight }: LoggedMember): number => {
    if (!ramping.has(backend.id)) return weight;
    return weight < backend.weight * RAMP_SCALE ? backend.weight : weight / RAMP_SCALE;
  };
  return {
    health(backend, probe) {
      const member = byBackend.get(backend.id)?.get(probe);
      if (member === undefined) return { state: 'up' };
      return { state: member.health, weight: weightIn(backend, member) };
    },
    override(backend) {
      const member = anyOf(backend);
      const weights = new Set(
        [...(byBackend.get(backend.id)?.values() ?? [])].map((one) => weightIn(backend, one)),
      );
      return {
        adminState: member?.adminState,
        // Where probes weigh it differently, each view has its own; else it may be the operator's, which outranks them.
        weight: weights.size === 1 ? weights.values().next().value : undefined,
        drain: drainOf(member),
      };
    },
    rampPercent(backend) {
      const member = anyOf(backend);
      if (member === undefined || !ramping.has(backend.id)) return 100;
      return member.weight < backend.weight * RAMP_SCALE ? member.weight / backend.weight : 100;
    },
  };
}

/** Told from the weights alone; where it is not seen, they are taken as they stand, which gives the same table. */
function isRamping({ slowStartMs, backends }: BackendPool, byBackend: ReadonlyMap<string, Seen>): boolean {
  if (slowStartMs === undefined) return false;
  let starting = 0;
  let full = 0;
  for (const { id, weight: configured } of backends) {
    for (const { weight } of byBackend.get(id)?.values() ?? []) {
      if (weight === 0) continue;
      const isStarting = weight < configured * RAMP_SCALE;
      if (weight % (isStarting ? configured * RAMP_STEP : RAMP_SCALE) !== 0) return false;
      if (isStarting) starting++;
      else full++;
    }
  }
  return starting > 0 && full > 0;
}

/** Its flows may not stay, though neither the probe nor the operator's switch says so. How fast they end is not recorded. */
/** Valid again but for the drain: then its deadline has passed. */
function drainOf(member: LoggedMember | undefined): DrainStage | undefined {
  if (member?.exclusion !== 'draining') return undefined;
  const isEnding = !member.valid && eligibilityOf(member.health, member.adminState).valid;
  return isEnding ? { ending: true, spreadMs: 0 } : { ending: false };
}

/** A state, or why there is none. */
export type RecordedStateResult = ForwardingState | 'unknown-epoch' | 'unknown-configuration';

/** What is kept of a log that may be far longer than memory. A flow names an epoch that is seconds old at most. */
const MOST_CONFIGURATIONS = 16;
const MOST_EPOCHS = 1024;
const MOST_MEMBERS = 200_000;
const MOST_STATES = 16;
const MOST_TABLES = 64;

/** The schema's limit: a larger one is no table of haports, and would only take memory. */
const MOST_SLOTS = 655_373;

/** Builds forwarding states again from what the flow log says of them. Remembers the last ones, within bounds. */
export class RecordedStates {
  readonly #hash: Hash32;
  readonly #configurations = new Map<string, Configuration>();
  readonly #epochs = new Map<number, LoggedEpoch>();
  readonly #states = new Map<number, ForwardingState>();
  readonly #tables = new Map<string, Uint16Array>();
  #members = 0;
  #newest = 0;

  constructor(hash: Hash32) {
    this.#hash = hash;
  }

  addConfiguration(configuration: Configuration): void {
    this.#configurations.delete(configuration.digest);
    this.#configurations.set(configuration.digest, configuration);
    forgetOldest(this.#configurations, MOST_CONFIGURATIONS);
  }

  /** Revisions grow within one run; where they fall back, another run writes to the same file. */
  addEpoch(epoch: LoggedEpoch): void {
    if (epoch.revision < this.#newest) {
      this.#epochs.clear();
      this.#states.clear();
      this.#members = 0;
    }
    this.#newest = epoch.revision;
    this.#drop(epoch.revision);
    this.#epochs.set(epoch.revision, epoch);
    this.#members += membersOf(epoch);
    for (const revision of this.#epochs.keys()) {
      if (this.#epochs.size <= 2) break;
      if (this.#epochs.size <= MOST_EPOCHS && this.#members <= MOST_MEMBERS) break;
      this.#drop(revision);
    }
  }

  /** Throws TypeError or RangeError where the record contradicts itself. */
  state(revision: number): RecordedStateResult {
    const known = this.#states.get(revision);
    if (known !== undefined) return known;
    const epoch = this.#epochs.get(revision);
    if (epoch === undefined) return 'unknown-epoch';
    const configuration = this.#configurations.get(epoch.digest);
    if (configuration === undefined) return 'unknown-configuration';
    const state = this.#build(configuration, epoch);
    this.#states.set(revision, state);
    forgetOldest(this.#states, MOST_STATES);
    return state;
  }

  #drop(revision: number): void {
    const epoch = this.#epochs.get(revision);
    if (epoch !== undefined) this.#members -= membersOf(epoch);
    this.#epochs.delete(revision);
    this.#states.delete(revision);
  }

  #build(configuration: Configuration, { revision, views }: LoggedEpoch): ForwardingState {
    const indexes = new Map(views.map(({ key }, index) => [key, index]));
    const rules = new Map(configuration.rules.map((rule) => [viewKey(rule), rule]));
    return {
      revision,
      configuration,
      views: views.map((view) => this.#view(view, rules.get(view.key), configuration.tableSize)),
      viewOfRule: configuration.rules.map((rule) => {
        const index = indexes.get(viewKey(rule));
        if (index === undefined) throw new TypeError(`Epoch ${revision} has no view for rule "${rule.name}"`);
        return index;
      }),
    };
  }

  #view(
    { key, servingPriority, backends: recorded }: LoggedEpoch['views'][number],
    rule: Rule | undefined,
    size: number,
  ): PoolView {
    if (rule === undefined) throw new TypeError(`No rule sees its pool as view "${key}"`);
    const { pool, probe } = rule;
    const backends = new Map(pool.backends.map((backend) => [backend.id, backend]));
    const members = recorded.map((member) => memberOfRecordedState(member, backends));
    return withTables({ key, pool, probe, servingPriority, backends: members }, (weights) =>
      this.#table(weights, size),
    );
  }

  #table(members: readonly MaglevMember[], size: number): Uint16Array {
    if (size > MOST_SLOTS)
      throw new RangeError(`A table of ${size} slots is recorded, at most ${MOST_SLOTS} can be`);
    const key = `${size} ${members.map(({ id, weight }) => `${id}=${weight}`).join(' ')}`;
    const known = this.#tables.get(key);
    if (known !== undefined) return known;
    const table = buildMaglevTable(members, size, this.#hash);
    this.#tables.set(key, table);
    forgetOldest(this.#tables, MOST_TABLES);
    return table;
  }
}

function memberOfRecordedState(recorded: LoggedMember, backends: ReadonlyMap<string, Backend>): BackendState {
  const backend = backends.get(recorded.id);
  if (backend === undefined) throw new TypeError(`No backend "${recorded.id}" in the recorded configuration`);
  const { weight, eligible, valid, serving, health, adminState } = recorded;
  return { backend, health, adminState, effectiveWeight: weight, eligible, valid, serving };
}

function membersOf({ views }: LoggedEpoch): number {
  return views.reduce((sum, { backends }) => sum + backends.length, 0);
}

/** A Map goes through its keys in the order in which they came. */
function forgetOldest<K>(map: Map<K, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return;
    map.delete(key);
  }
}
