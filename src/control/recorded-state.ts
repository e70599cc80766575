import type { AdminState, Backend, Configuration } from '../model/configuration.js';
import type { BackendState, ForwardingState, PoolView } from '../model/forwarding-state.js';
import type { HealthState } from '../model/probe.js';
import type { Hash32 } from '../selection/hasher.js';
import { buildMaglevTable, type MaglevMember } from '../selection/maglev.js';

/** A backend as an epoch of the flow log has it. */
export interface RecordedMember {
  readonly id: string;
  readonly weight: number;
  readonly eligible: boolean;
  readonly valid: boolean;
  readonly serving: boolean;
  readonly health: HealthState;
  readonly adminState: AdminState;
  /** @default false */
  readonly draining?: boolean;
}

export interface RecordedView {
  /** `pool|probe`. */
  readonly key: string;
  readonly servingPriority?: number;
  readonly backends: readonly RecordedMember[];
}

export interface RecordedEpoch {
  readonly revision: number;
  readonly digest: string;
  readonly views: readonly RecordedView[];
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
  readonly #epochs = new Map<number, RecordedEpoch>();
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
  addEpoch(epoch: RecordedEpoch): void {
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

  #build(configuration: Configuration, { revision, views }: RecordedEpoch): ForwardingState {
    const backends = new Map(
      configuration.backendPools.flatMap((pool) => pool.backends.map((backend) => [backend.id, backend])),
    );
    const indexes = new Map(views.map(({ key }, index) => [key, index]));
    return {
      revision,
      configuration,
      views: views.map((view) => this.#view(view, backends, configuration.tableSize)),
      viewOfRule: configuration.rules.map((rule) => {
        const index = indexes.get(`${rule.backendPool}|${rule.probe ?? ''}`);
        if (index === undefined) throw new TypeError(`Epoch ${revision} has no view for rule "${rule.name}"`);
        return index;
      }),
    };
  }

  #view(
    { key, servingPriority, backends: recorded }: RecordedView,
    backends: ReadonlyMap<string, Backend>,
    size: number,
  ): PoolView {
    const members = recorded.map((member) => memberOf(member, backends));
    const weights = members.map(({ backend, effectiveWeight, serving }) => ({
      id: backend.id,
      weight: serving ? effectiveWeight : 0,
    }));
    const table = this.#table(weights, size);
    const [pool = '', probe = ''] = key.split('|');
    return {
      key,
      pool,
      ...(probe === '' ? {} : { probe }),
      ...(servingPriority === undefined ? {} : { servingPriority }),
      backends: members,
      table,
      ...(table.length > 0 ? {} : { failOpenTable: this.#table(failOpenWeights(members), size) }),
    };
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

function memberOf(recorded: RecordedMember, backends: ReadonlyMap<string, Backend>): BackendState {
  const backend = backends.get(recorded.id);
  if (backend === undefined) throw new TypeError(`No backend "${recorded.id}" in the recorded configuration`);
  const { weight, eligible, valid, serving, health, adminState } = recorded;
  return { backend, health, adminState, effectiveWeight: weight, eligible, valid, serving };
}

/** Everybody but those switched down (control/forwarding-compiler.ts). */
function failOpenWeights(members: readonly BackendState[]): readonly MaglevMember[] {
  return members.map(({ backend, adminState, effectiveWeight }) => ({
    id: backend.id,
    weight: adminState === 'down' ? 0 : effectiveWeight,
  }));
}

function membersOf({ views }: RecordedEpoch): number {
  return views.reduce((sum, { backends }) => sum + backends.length, 0);
}

/** A Map goes through its keys in the order in which they came. */
function forgetOldest<K>(map: Map<K, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return;
    map.delete(key);
  }
}
