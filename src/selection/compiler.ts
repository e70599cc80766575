import type { Backend, BackendPool, Configuration, HealthState, Probe } from '../model/configuration.js';
import {
  viewKey,
  type BackendOverride,
  type BackendState,
  type ForwardingState,
  type PoolView,
} from '../model/forwarding.js';
import type { Hash32 } from './flow-hash.js';
import { buildMaglevTable, type MaglevMember } from './maglev.js';
import { evaluatePool, type BackendInputs } from './pool.js';

/** What sways a forwarding state apart from the configuration. */
export interface CompilerInputs {
  /** As seen by this probe. Not asked for pools without one. */
  health(backend: Backend, probe: string): { readonly state: HealthState; readonly weight?: number };
  /** What an operator has set on it. @default nothing */
  override?(backend: Backend): BackendOverride | undefined;
  /** How much of its weight a backend in slow start gets, 1-100. @default 100 */
  rampPercent?(backend: Backend): number;
}

/**
 * Turns configuration, health and admin state into a forwarding state. Holds no decision of its own, only tables it
 * has built before: a table is built again only if its members or their weights changed. A view in which nothing has
 * changed is the same object as before.
 */
export class ForwardingCompiler {
  readonly #hash: Hash32;
  #tables = new Map<string, Uint16Array>();
  /** By key, those of the last state. */
  #views: ReadonlyMap<string, PoolView> = new Map();
  #revision = 0;

  constructor(hash: Hash32) {
    this.#hash = hash;
  }

  /** Each call gives a new revision, one higher than the last. */
  compile(configuration: Configuration, inputs: CompilerInputs): ForwardingState {
    const { built, used } = this.#build(configuration, inputs);
    this.#tables = used;
    this.#views = new Map(built.views.map((view) => [view.key, view]));
    return { revision: ++this.#revision, ...built };
  }

  /** What compile would give, with the last revision, and without a trace. */
  preview(configuration: Configuration, inputs: CompilerInputs): ForwardingState {
    return { revision: this.#revision, ...this.#build(configuration, inputs).built };
  }

  #build(
    configuration: Configuration,
    inputs: CompilerInputs,
  ): { readonly built: Omit<ForwardingState, 'revision'>; readonly used: Map<string, Uint16Array> } {
    const views: PoolView[] = [];
    const indexByKey = new Map<string, number>();
    const used = new Map<string, Uint16Array>();
    const viewOfRule = configuration.rules.map((rule) => {
      const key = viewKey(rule);
      const known = indexByKey.get(key);
      if (known !== undefined) return known;
      const { pool, probe } = rule;
      indexByKey.set(key, views.length);
      const table = (members: readonly MaglevMember[]): Uint16Array =>
        this.#table(pool.name, members, configuration.tableSize, used);
      const view = buildView(key, pool, probe, inputs, table);
      const before = this.#views.get(key);
      return views.push(before !== undefined && isSame(before, view) ? before : view) - 1;
    });
    return { built: { configuration, views, viewOfRule }, used };
  }

  #table(
    pool: string,
    members: readonly MaglevMember[],
    size: number,
    used: Map<string, Uint16Array>,
  ): Uint16Array {
    const key = `${pool} ${size} ${members.map(({ id, weight }) => `${id}=${weight}`).join(' ')}`;
    const table = used.get(key) ?? this.#tables.get(key) ?? buildMaglevTable(members, size, this.#hash);
    used.set(key, table);
    return table;
  }
}

function isSame(before: PoolView, view: PoolView): boolean {
  return (
    before.pool === view.pool &&
    before.probe === view.probe &&
    before.table === view.table &&
    before.failOpenTable === view.failOpenTable &&
    before.backends.every((member, index) => haveSameFields(member, view.backends[index]!))
  );
}

/** Compares what the fields hold, one by one; linked objects are the same or not. */
function haveSameFields<T extends object>(a: T, b: T): boolean {
  const fields = Object.keys(a) as (keyof T)[];
  return fields.length === Object.keys(b).length && fields.every((field) => a[field] === b[field]);
}

function buildView(
  key: string,
  pool: BackendPool,
  probe: Probe | undefined,
  inputs: CompilerInputs,
  table: (members: readonly MaglevMember[]) => Uint16Array,
): PoolView {
  const ask = (backend: Backend): BackendInputs => {
    const verdict = probe === undefined ? { state: 'up' as const } : inputs.health(backend, probe.name);
    const { adminState = backend.adminState, weight, drain } = inputs.override?.(backend) ?? {};
    return {
      health: verdict.state,
      adminState,
      draining: drain !== undefined,
      ...wantedWeight(backend, weight, verdict.weight),
      rampPercent: inputs.rampPercent?.(backend) ?? 100,
      endSpreadMs: drain?.ending === true ? drain.spreadMs : undefined,
    };
  };
  return withTables({ key, pool, probe, ...evaluatePool(pool, ask) }, table);
}

/** Members keep their places, with weight 0 where they are left out, so that slots index the pool directly. */
export function withTables(
  view: Omit<PoolView, 'table' | 'failOpenTable'>,
  tableOf: (members: readonly MaglevMember[]) => Uint16Array,
): PoolView {
  const build = (isIn: (member: BackendState) => boolean): Uint16Array =>
    tableOf(
      view.backends.map((member) => ({
        id: member.backend.id,
        weight: isIn(member) ? member.effectiveWeight : 0,
      })),
    );
  const table = build(({ serving }) => serving);
  const failOpenTable = table.length > 0 ? undefined : build(({ adminState }) => adminState !== 'down');
  return { ...view, table, failOpenTable };
}

function wantedWeight({ weight }: Backend, ofOperator: number | undefined, ofProbe: number | undefined) {
  if (ofOperator !== undefined) return { weight: ofOperator, weightOrigin: 'operator' } as const;
  // A configured weight of 0 is the operator's too: whatever the backend says of itself, it gets no new flows.
  if (weight === 0 || ofProbe === undefined) return { weight, weightOrigin: 'configured' } as const;
  return { weight: ofProbe, weightOrigin: 'probe-header' } as const;
}
