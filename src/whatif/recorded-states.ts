import type { LoggedEpoch, LoggedMember } from '../api/flow-log.js';
import type { Backend, Configuration, Rule } from '../model/configuration.js';
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

/**
 * What swayed the state of an epoch, so that the state can be compiled again, and with something else supposed. Gives the
 * same tables. Backends that the epoch does not have count as up.
 */
export function inputsOfEpoch({ views }: LoggedEpoch): CompilerInputs {
  /** By backend, then by the name of the probe that saw it so; no probe: an empty name. */
  const byBackend = new Map<string, Map<string, LoggedMember>>();
  for (const { key, backends } of views) {
    const probe = key.slice(key.indexOf('|') + 1);
    for (const member of backends) {
      const seen = byBackend.get(member.id) ?? new Map<string, LoggedMember>();
      byBackend.set(member.id, seen.set(probe, member));
    }
  }
  const anyOf = ({ id }: Backend): LoggedMember | undefined => byBackend.get(id)?.values().next().value;
  return {
    health(backend, probe) {
      const member = byBackend.get(backend.id)?.get(probe);
      if (member === undefined) return { state: 'up' };
      const { wanted, origin } = weightOf(member);
      return { state: member.health, ...(origin === 'probe-header' && { weight: wanted }) };
    },
    override(backend) {
      const member = anyOf(backend);
      if (member === undefined) return undefined;
      const { wanted, origin } = weightOf(member);
      const weight = origin === 'operator' ? wanted : undefined;
      return { adminState: member.adminState, weight, drain: drainOf(member) };
    },
    rampPercent: (backend) => anyOf(backend)?.ramp ?? 100,
  };
}

/** Lines of older versions do not say whose weight it was: an operator's outranks all others. */
function weightOf({ weight, wanted = weight, origin = 'operator' }: LoggedMember) {
  return { wanted, origin };
}

/** Its flows may not stay, though neither the probe nor the operator's switch says so: the drain's deadline has passed. */
function drainOf({ exclusion, valid, health, adminState }: LoggedMember): DrainStage | undefined {
  if (exclusion !== 'draining') return undefined;
  const isEnding = !valid && eligibilityOf(health, adminState).valid;
  // How fast its flows end is not recorded.
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
  const { weight: effectiveWeight, eligible, valid, serving, health, adminState, ramp = 100 } = recorded;
  const { wanted: wantedWeight, origin: weightOrigin } = weightOf(recorded);
  const weights = { wantedWeight, weightOrigin, rampPercent: ramp, effectiveWeight };
  return { backend, health, adminState, ...weights, eligible, valid, serving };
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
