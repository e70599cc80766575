import { policyVerdict, tcpRebalance } from '../../flow/flow-policy.js';
import type { IpAddress } from '../../model/address.js';
import type { Backend, Frontend } from '../../model/configuration.js';
import { PROTOCOLS, type Protocol } from '../../model/five-tuple.js';
import type { ForwardingState, PoolView } from '../../model/forwarding-state.js';
import type { KernelOptions } from '../../model/kernel-options.js';
import type { FlowAction, Rule } from '../../model/rule.js';
import { tableInUse } from '../../selection/picker.js';
import { backendMarks } from './backend-marks.js';

/** A table that new flows are placed with: by slot, the mark of a backend. Empty: nobody takes new flows. */
export interface KernelTable {
  /** `nvas`, `nvas.alive`, `nvas.alive.open`: pool, probe, and whether it fails open. */
  readonly name: string;
  readonly marks: readonly number[];
}

/** What is done with flows on backends that may not keep them: the marks, by what is done. `persist` is not there. */
export type KernelActions = Readonly<Record<Exclude<FlowAction, 'persist'>, readonly number[]>>;

export interface KernelRule {
  readonly rule: Rule;
  readonly frontend: Frontend;
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
export interface KernelInput {
  readonly instance: string;
  readonly options: KernelOptions;
  readonly seed: number;
  readonly tableSize: number;
  readonly frontends: readonly Frontend[];
  /** Rules that name a port before HA-ports rules, else as configured. */
  readonly rules: readonly KernelRule[];
  readonly tables: readonly KernelTable[];
  /** Of all pools, and those that were removed and may have flows. */
  readonly backends: readonly KernelBackend[];
}

/** A backend that a pool had before. */
export type RemovedBackend = Pick<Backend, 'id' | 'address'> & { readonly pool: string };

/**
 * `spreading`: ids of drained backends whose flows are being ended one after another: nothing is done about them yet.
 * Throws TypeError on a configuration of another data plane: that is a bug.
 */
export function kernelInput(
  state: ForwardingState,
  removed: readonly RemovedBackend[] = [],
  spreading: ReadonlySet<string> = NOBODY,
): KernelInput {
  const { configuration, views, viewOfRule } = state;
  const { instance, kernel: options, seed, tableSize, frontends, backendPools } = configuration;
  if (options === undefined) throw new TypeError('The configuration asks for another data plane');
  const present = backendPools.flatMap((pool) => pool.backends);
  const known = new Map([...removed, ...present].map((backend) => [backend.id, backend]));
  const marks = backendMarks(instance, [...known.keys()]);
  const markOf = (id: string): number => marks.get(id) ?? 0;
  const tables = new Map<string, KernelTable>();
  const ranked = configuration.rules
    .map((rule, ruleIndex) => ({ rule, ruleIndex }))
    .sort((a, b) => Number(a.rule.haPorts) - Number(b.rule.haPorts));
  const rules = ranked.flatMap(({ rule, ruleIndex }): KernelRule[] => {
    const view = views[viewOfRule[ruleIndex] ?? -1];
    const frontend = frontends.find(({ name }) => name === rule.frontend);
    if (view === undefined || frontend === undefined) return [];
    const table = tableOf(rule, view, markOf);
    tables.set(table.name, table);
    const gone = removed.filter(({ pool }) => pool === rule.backendPool).map(({ id }) => markOf(id));
    return [{ rule, frontend, table, actions: actionsOf(rule, view, { markOf, gone, spreading, options }) }];
  });
  return {
    ...{ instance, options, seed, tableSize, frontends, rules },
    tables: [...tables.values()],
    backends: [...known.values()].map(({ id, address }) => ({ id, address, mark: markOf(id) })),
  };
}

function tableOf(rule: Rule, view: PoolView, markOf: (id: string) => number): KernelTable {
  const inUse = tableInUse(rule, view);
  // Of rules that share a view some may fail open.
  const name = [view.pool, view.probe, rule.allDown === 'fail-open' ? 'open' : undefined]
    .filter((part) => part !== undefined)
    .join('.');
  const members = view.backends.map(({ backend }) => markOf(backend.id));
  return { name, marks: [...(inUse?.table ?? [])].map((index) => members[index] ?? 0) };
}

function actionsOf(
  rule: Rule,
  view: PoolView,
  {
    markOf,
    gone,
    spreading,
    options,
  }: {
    readonly markOf: (id: string) => number;
    readonly gone: readonly number[];
    readonly spreading: ReadonlySet<string>;
    readonly options: KernelOptions;
  },
): KernelRule['actions'] {
  const of = (protocol: Protocol): KernelActions => {
    const actions = { rebalance: [] as number[], reset: [] as number[], drop: [] as number[] };
    const add = (trigger: Parameters<typeof policyVerdict>[2], mark: number): void => {
      const action = policyVerdict(rule, protocol, trigger, view, tcpRebalance(options));
      if (action !== 'persist') actions[action].push(mark);
    };
    for (const { backend, valid, invalidBecause } of view.backends) {
      if (invalidBecause === 'drain-deadline' && spreading.has(backend.id)) continue;
      if (!valid && invalidBecause !== undefined) add(invalidBecause, markOf(backend.id));
    }
    for (const mark of gone) add('removed', mark);
    return actions;
  };
  const [tcp, udp] = PROTOCOLS.map(of);
  return { tcp: tcp ?? NOTHING, udp: udp ?? NOTHING };
}

const NOBODY: ReadonlySet<string> = new Set();
const NOTHING: KernelActions = { rebalance: [], reset: [], drop: [] };
