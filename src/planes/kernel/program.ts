import { policyAction } from '../../flows/judge.js';
import { parseIpAddress, type IpAddress, type Protocol } from '../../model/address.js';
import type {
  Backend,
  Configuration,
  FlowAction,
  FlowTrigger,
  Frontend,
  KernelOptions,
  Rule,
} from '../../model/configuration.js';
import { fnv1a } from '../../model/fnv1a.js';
import type { ForwardingState, PoolView } from '../../model/forwarding.js';
import { tableInUse } from '../../selection/picker.js';
import { RulePorts } from '../../selection/rule-ports.js';

/** A table that new flows are placed with: by slot, the mark of a backend. Empty: no backend takes new flows. */
export interface KernelTable {
  /** `nvas`, `nvas.alive`, `nvas.alive.open`: pool, probe, and whether it fails open. */
  readonly name: string;
  readonly marks: readonly number[];
}

/** What is done with flows on backends that may not keep them: the marks, by what is done. `persist` is not there. */
export type KernelActions = Readonly<Record<Exclude<FlowAction, 'persist'>, readonly number[]>>;

export interface KernelRule {
  readonly rule: Rule;
  /** Of the rule in the configuration, as `rulePorts` has it. */
  readonly index: number;
  readonly table: KernelTable;
  /** Of the members of its pool, and of backends that were removed from it and may have flows. */
  readonly actions: Readonly<Record<Protocol, KernelActions>>;
}

export interface KernelBackend {
  readonly id: string;
  readonly mark: number;
  readonly address: IpAddress;
}

/** A forwarding state as rulesets are made from it. */
export interface KernelProgram {
  readonly instance: string;
  readonly options: KernelOptions;
  readonly seed: number;
  readonly tableSize: number;
  readonly frontends: readonly Frontend[];
  /** Rules that name a port before HA-ports rules, else as configured. */
  readonly rules: readonly KernelRule[];
  readonly rulePorts: RulePorts;
  readonly tables: readonly KernelTable[];
  /** Of all pools, and those that were removed and may have flows. */
  readonly backends: readonly KernelBackend[];
}

/** A backend that a pool had before. */
export type RemovedBackend = Pick<Backend, 'id' | 'address'> & { readonly pool: string };

export interface CompileOptions {
  /** @default none */
  readonly removed?: readonly RemovedBackend[];
  /** Ids of drained backends whose flows are being ended one after another: nothing is done about them yet. @default none */
  readonly spreading?: ReadonlySet<string>;
  /** Of the same configuration: to build it takes a while where frontends are many. */
  readonly rulePorts?: RulePorts | undefined;
}

/** Throws TypeError on a configuration of another data plane: that is a bug. */
export function compileProgram(
  state: ForwardingState,
  { removed = [], spreading = new Set(), rulePorts }: CompileOptions = {},
): KernelProgram {
  const { configuration, views, viewOfRule } = state;
  const { instance, kernel: options, seed, tableSize, frontends, backendPools } = configuration;
  if (options === undefined) throw new TypeError('The configuration asks for another data plane');
  const present = backendPools.flatMap((pool) => pool.backends);
  const known = new Map([...removed, ...present].map((backend) => [backend.id, backend]));
  const marks = backendMarks(instance, [...known.keys()]);
  const markOf = (id: string): number => marks.get(id) ?? 0;
  const tables = new Map<string, KernelTable>();
  const ranked = [...configuration.rules.entries()].sort(
    ([, a], [, b]) => Number(a.haPorts) - Number(b.haPorts),
  );
  const rules = ranked.flatMap(([index, rule]): KernelRule[] => {
    const view = views[viewOfRule[index] ?? -1];
    if (view === undefined) return [];
    const table = tableOf(rule, view, markOf);
    tables.set(table.name, table);
    const gone = removed.filter(({ pool }) => pool === rule.pool.name).map(({ id }) => markOf(id));
    const actionsFor = (protocol: Protocol): KernelActions => {
      const actions = { rebalance: [] as number[], reset: [] as number[], drop: [] as number[] };
      const add = (trigger: FlowTrigger, mark: number): void => {
        const action = policyAction(rule, protocol, trigger, view, options);
        if (action !== 'persist') actions[action].push(mark);
      };
      for (const { backend, valid, invalidBecause } of view.backends) {
        if (invalidBecause === 'drain-deadline' && spreading.has(backend.id)) continue;
        if (!valid && invalidBecause !== undefined) add(invalidBecause, markOf(backend.id));
      }
      for (const mark of gone) add('removed', mark);
      return actions;
    };
    return [{ rule, index, table, actions: { tcp: actionsFor('tcp'), udp: actionsFor('udp') } }];
  });
  return {
    ...{ instance, options, seed, tableSize, frontends, rules },
    rulePorts: rulePorts ?? new RulePorts(configuration.rules),
    tables: [...tables.values()],
    backends: [...known.values()].map(({ id, address }) => ({ id, address, mark: markOf(id) })),
  };
}

function tableOf(rule: Rule, view: PoolView, markOf: (id: string) => number): KernelTable {
  const inUse = tableInUse(rule, view);
  // Of rules that share a view some may fail open.
  const name = [view.pool.name, view.probe?.name, rule.allDown === 'fail-open' ? 'open' : undefined]
    .filter((part) => part !== undefined)
    .join('.');
  const members = view.backends.map(({ backend }) => markOf(backend.id));
  return { name, marks: [...(inUse?.table ?? [])].map((index) => members[index] ?? 0) };
}

/*
 * Marks that stand for backends, in conntrack and on packets: the upper 16 bits tell the instance, the lower 16 the
 * backend. They follow from names and addresses, so that a process finds the flows of the one before it.
 */

/** Backends that can have a mark: 0 stands for none. */
export const MOST_BACKENDS = 65_535;

/** The bits of a mark that tell the instance. */
export const INSTANCE_MASK = 0xffff0000;

/** The marks of an instance without a backend's number. Never 0, so that no mark is 0. */
export function markTag(instance: string): number {
  return (1 + (fnv1a(Buffer.from(instance)) % 0xffff)) * 0x10000;
}

/**
 * By backend id. A number follows from the id, and only where two would have the same from the others too. Throws
 * RangeError above MOST_BACKENDS.
 */
function backendMarks(instance: string, ids: readonly string[]): ReadonlyMap<string, number> {
  if (ids.length > MOST_BACKENDS) throw new RangeError(`No marks for ${ids.length} backends`);
  const tag = markTag(instance);
  const taken = new Set<number>();
  const marks = new Map<string, number>();
  for (const id of [...ids].sort()) {
    let number = 1 + (fnv1a(Buffer.from(id)) % MOST_BACKENDS);
    while (taken.has(number)) number = (number % MOST_BACKENDS) + 1;
    taken.add(number);
    marks.set(id, tag + number);
  }
  return marks;
}

/** Backends that are configured no more, and may have flows. */
export class RemovedBackends {
  readonly #backends = new Map<string, RemovedBackend>();

  get list(): readonly RemovedBackend[] {
    return [...this.#backends.values()];
  }

  /** One configuration takes the place of another. */
  replace(before: Configuration, after: Configuration): void {
    for (const backend of backendsOf(before)) this.#backends.set(backend.id, backend);
    for (const { id } of backendsOf(after)) this.#backends.delete(id);
  }

  /**
   * Flows that are there when a process starts: by mark, the address that answers. Marks follow from pools and addresses,
   * so they tell of which pool a backend was.
   */
  adopt(configuration: Configuration, marks: ReadonlyMap<number, string>): void {
    const { instance, backendPools } = configuration;
    const present = new Set(backendsOf(configuration).map(({ id }) => id));
    for (const [mark, text] of marks) {
      const address = parseIpAddress(text);
      if (address === undefined) continue;
      for (const { name: pool } of backendPools) {
        const id = `${pool}/${address.text}`;
        if (present.has(id) || backendMarks(instance, [id]).get(id) !== mark) continue;
        this.#backends.set(id, { id, pool, address });
      }
    }
  }

  /** Whether it was there. */
  forget(id: string): boolean {
    return this.#backends.delete(id);
  }
}

function backendsOf({ backendPools }: Configuration): readonly RemovedBackend[] {
  return backendPools.flatMap(({ name: pool, backends }) =>
    backends.map(({ id, address }) => ({ id, pool, address })),
  );
}
