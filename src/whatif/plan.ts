import { isDeepStrictEqual } from 'node:util';
import { FlowJudge, ruleSuccessors, type Verdict } from '../flows/judge.js';
import type { Protocol } from '../model/address.js';
import type { Configuration, FlowAction, Rule } from '../model/configuration.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
import type { FlowFates, PlanReport, PlannedBackend, PlannedRule } from '../api/views.js';
import { NONE_EXCLUDED, ruleAndView, tableInUse, type Picker } from '../selection/picker.js';
import { backendChanges, listenerChanges, lostProbeState, restartKeys, ruleChanges } from './diff.js';
import { generatedTuples } from './population.js';

export interface PlannedChange {
  /** What is served now. */
  readonly before: ForwardingState;
  /** What would be. */
  readonly after: ForwardingState;
  /** Live flows, one after another. */
  readonly flows: AsyncIterable<FlowRecord>;
  readonly picker: Picker;
}

/**
 * What would happen if `after` took the place of `before`: who moves, who stays, what is lost. The same functions give
 * the answer that later do it. Pure, apart from reading `flows`; rejects only if those do.
 */
export async function planChange({ before, after, flows, picker }: PlannedChange): Promise<PlanReport> {
  const from = before.configuration;
  const to = after.configuration;
  const successors = ruleSuccessors(from, to);
  const tallies = await judgeFlows(before, after, successors, flows);
  const rules = plannedRules(before, after, { successors, tallies, picker });
  const base = {
    fromDigest: from.digest,
    toDigest: to.digest,
    revision: before.revision,
    rules,
    movedShare: rules
      .filter(({ change }) => change === 'same' || change === 'changed')
      .reduce((most, { movedShare }) => Math.max(most, movedShare), 0),
    flows: sumFates([...tallies.values()].flatMap(({ byProtocol: { tcp, udp } }) => [tcp, udp])),
    backends: backendChanges(from, to),
    probeStateLost: lostProbeState(from, to),
    listeners: listenerChanges(from, to),
    restartNeeded: restartKeys(from, to),
  };
  return { ...base, steps: planSteps(base) };
}

/**
 * By name of the rule that flows will have, or had where it goes. A fate that a flow meets anyway, being drained, is not
 * the change's: it counts as staying.
 */
async function judgeFlows(
  before: ForwardingState,
  after: ForwardingState,
  successors: ReadonlyMap<string, string>,
  flows: AsyncIterable<FlowRecord>,
): Promise<ReadonlyMap<string, FateTally>> {
  const judge = new FlowJudge(after);
  const judgeOfNow = new FlowJudge(before);
  const indexes = indexByName(after.configuration);
  const indexesNow = indexByName(before.configuration);
  const tallies = new Map<string, FateTally>();
  for await (const { rule, tuple, backendId, state } of flows) {
    const { protocol } = tuple;
    const name = successors.get(rule) ?? rule;
    const tally = tallies.get(name) ?? new FateTally();
    tallies.set(name, tally);
    const ruleIndex = indexes.get(name);
    // A rule that has another name may have fewer protocols.
    const goesOn =
      ruleIndex !== undefined &&
      (name === rule || after.configuration.rules[ruleIndex]?.protocols.includes(protocol) === true);
    const atStake = { protocol, backendId, state };
    const fate = fateOf(judge.judge(goesOn ? ruleIndex : -1, atStake));
    const fateAnyway = fateOf(judgeOfNow.judge(indexesNow.get(rule) ?? -1, atStake));
    tally.count(protocol, fate === fateAnyway ? 'stay' : fate);
  }
  return tallies;
}

/** Rules as they will stand, then those that go. */
function plannedRules(
  before: ForwardingState,
  after: ForwardingState,
  known: {
    readonly successors: ReadonlyMap<string, string>;
    readonly tallies: ReadonlyMap<string, FateTally>;
    readonly picker: Picker;
  },
): readonly PlannedRule[] {
  const from = before.configuration;
  const to = after.configuration;
  const shares = new MovedShares(before, after, known.picker);
  const indexes = indexByName(from);
  // Of several rules that become one, the first counts.
  const predecessors = new Map([...known.successors].reverse().map(([old, name]) => [name, old]));
  const flowsOf = (name: string) => (known.tallies.get(name) ?? new FateTally()).byProtocol;
  const present = to.rules.map((rule, afterIndex): PlannedRule => {
    const old = predecessors.get(rule.name) ?? '';
    const beforeIndex = indexes.get(old);
    const was = beforeIndex === undefined ? undefined : from.rules[beforeIndex];
    if (beforeIndex === undefined || was === undefined) {
      return { name: rule.name, change: 'added', changes: [], movedShare: 1, flows: flowsOf(rule.name) };
    }
    const changes = ruleChanges(from, was, to, rule);
    return {
      name: rule.name,
      ...(was.name === rule.name ? {} : { renamedFrom: was.name }),
      change: changes.length === 0 ? 'same' : 'changed',
      changes,
      movedShare: shares.of(beforeIndex, afterIndex),
      flows: flowsOf(rule.name),
    };
  });
  const gone = from.rules
    .filter(({ name }) => !known.successors.has(name))
    .map(({ name }): PlannedRule => ({
      name,
      change: 'removed',
      changes: [],
      movedShare: 1,
      flows: flowsOf(name),
    }));
  return [...present, ...gone];
}

function indexByName({ rules }: Configuration): ReadonlyMap<string, number> {
  return new Map(rules.map(({ name }, index) => [name, index]));
}

/** Names listed in one sentence. */
const NAMES_SHOWN = 10;

/**
 * What a reload will do, as sentences in order: everything that is added comes before anything that is removed, so that
 * no moment has fewer backends or listeners than it needs. Empty: nothing changes.
 */
export function planSteps(report: Omit<PlanReport, 'steps'>): readonly string[] {
  const { backends, flows, listeners, probeStateLost, restartNeeded } = report;
  return [
    ...(restartNeeded.length === 0
      ? []
      : [`Start a new process: a reload cannot take over ${list(restartNeeded.map((key) => `"${key}"`))}`]),
    ...byPool(backends.added, (pool, names) =>
      names.length === 1
        ? `Probe new backend ${list(names)} of pool "${pool}" until its first verdict (1 s at most)`
        : `Probe new backends ${list(names)} of pool "${pool}" until their first verdicts (1 s at most)`,
    ),
    ...byProbe(probeStateLost).map(
      ([probe, ids]) => `Probe ${list(ids)} anew with "${probe}" until the first verdict (1 s at most)`,
    ),
    ...(listeners.opened === 0 ? [] : [`Open ${count(listeners.opened, 'listener')}`]),
    ...report.rules.filter(({ change }) => change === 'added').map(({ name }) => `Begin with rule "${name}"`),
    ...report.rules.flatMap(changedRule),
    ...byPool(
      backends.changed,
      (pool, names) => `Take over what changed of ${list(names)} of pool "${pool}"`,
    ),
    ...(flows.move === 0 ? [] : [`Move ${count(flows.move, 'UDP flow')}, each with its next datagram`]),
    ...(flows.reset === 0 ? [] : [`Reset ${count(flows.reset, 'flow')}`]),
    ...(flows.drop === 0 ? [] : [`Drop ${count(flows.drop, 'flow')} without a word`]),
    ...report.rules.filter(({ change }) => change === 'removed').map(({ name }) => `End rule "${name}"`),
    ...(listeners.closed === 0 ? [] : [`Close ${count(listeners.closed, 'listener')}`]),
    ...byPool(backends.removed, (pool, names) => `Remove ${list(names)} from pool "${pool}"`),
  ];
}

function changedRule({
  name,
  change,
  changes,
  movedShare,
  renamedFrom,
}: PlanReport['rules'][number]): string[] {
  if (change !== 'changed' && movedShare === 0) return [];
  if (change === 'added' || change === 'removed') return [];
  const others = changes.filter((key) => key !== 'name');
  return [
    ...(renamedFrom === undefined ? [] : [`Go on with rule "${renamedFrom}" as "${name}", flows and all`]),
    ...(others.length === 0 ? [] : [`Change ${list(others)} of rule "${name}"`]),
    ...(movedShare === 0
      ? []
      : [`Give rule "${name}" its new table: ${percent(movedShare)} of its hash space changes hands`]),
  ];
}

function byPool(
  backends: readonly PlannedBackend[],
  sentence: (pool: string, names: readonly string[]) => string,
): string[] {
  const pools = new Map<string, string[]>();
  for (const { pool, name } of backends) {
    const names = pools.get(pool) ?? [];
    pools.set(pool, names);
    names.push(name);
  }
  return [...pools].map(([pool, names]) => sentence(pool, names));
}

function byProbe(lost: PlanReport['probeStateLost']): readonly (readonly [string, readonly string[]])[] {
  const probes = new Map<string, string[]>();
  for (const { backendId, probe } of lost) {
    const ids = probes.get(probe) ?? [];
    probes.set(probe, ids);
    ids.push(backendId);
  }
  return [...probes];
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_SHOWN).join(', ');
  const more = names.length - NAMES_SHOWN;
  return more > 0 ? `${shown} and ${more} more` : shown;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** Flows drawn where slots cannot be compared: a share is then right within 0.01, 99 times of 100. */
const SAMPLE = { flows: 16_384, sources: 16_384, seed: 1 };

/** How much of a rule's hash space is another backend's in another state. */
export class MovedShares {
  readonly #before: ForwardingState;
  readonly #after: ForwardingState;
  readonly #picker: Picker;
  /** Rules that share both views share the answer. */
  readonly #bySlots = new Map<string, number>();

  constructor(before: ForwardingState, after: ForwardingState, picker: Picker) {
    this.#before = before;
    this.#after = after;
    this.#picker = picker;
  }

  /**
   * 0 to 1, for a rule by its index in each state. Exact, slot by slot, where both hash alike into tables of one size;
   * else estimated from random flows. Slots without a backend in both states are the same.
   */
  of(beforeIndex: number, afterIndex: number): number {
    const before = ruleAndView(this.#before, beforeIndex);
    const after = ruleAndView(this.#after, afterIndex);
    const tableBefore = tableInUse(before.rule, before.view)?.table;
    const tableAfter = tableInUse(after.rule, after.view)?.table;
    if (tableBefore === undefined && tableAfter === undefined) return 0;
    if (tableBefore === undefined || tableAfter === undefined) return 1;
    if (!this.#hashAlike(before.rule, after.rule) || tableBefore.length !== tableAfter.length) {
      return this.#estimate(beforeIndex, afterIndex);
    }
    const key = `${before.viewIndex} ${after.viewIndex}`;
    const known = this.#bySlots.get(key);
    if (known !== undefined) return known;
    const share = shareOfSlots(tableBefore, before.view, tableAfter, after.view);
    this.#bySlots.set(key, share);
    return share;
  }

  #hashAlike(before: Rule, after: Rule): boolean {
    const { seed, kernel } = this.#before.configuration;
    const other = this.#after.configuration;
    return (
      seed === other.seed &&
      kernel?.mode === other.kernel?.mode &&
      isDeepStrictEqual(kernel?.spokes, other.kernel?.spokes) &&
      before.distribution === after.distribution &&
      before.symmetric === after.symmetric
    );
  }

  #estimate(beforeIndex: number, afterIndex: number): number {
    let drawn = 0;
    let moved = 0;
    for (const tuple of generatedTuples(this.#after.configuration, afterIndex, SAMPLE)) {
      const from = this.#picker.pickForRule(this.#before, beforeIndex, tuple, NONE_EXCLUDED);
      const to = this.#picker.pickForRule(this.#after, afterIndex, tuple, NONE_EXCLUDED);
      drawn++;
      if (from.kind !== 'picked' || to.kind !== 'picked' || from.backendId !== to.backendId) moved++;
    }
    return drawn === 0 ? 0 : moved / drawn;
  }
}

function shareOfSlots(
  before: Uint16Array,
  viewBefore: PoolView,
  after: Uint16Array,
  viewAfter: PoolView,
): number {
  const indexAfter = new Map(viewAfter.backends.map(({ backend }, index) => [backend.id, index]));
  const heir = viewBefore.backends.map(({ backend }) => indexAfter.get(backend.id));
  let moved = 0;
  for (const [slot, index] of before.entries()) if (heir[index] !== after[slot]) moved++;
  return moved / before.length;
}

export type Fate = keyof FlowFates;

const FATE_OF: Readonly<Record<FlowAction, Fate>> = {
  persist: 'stay',
  rebalance: 'move',
  reset: 'reset',
  drop: 'drop',
};

/** `undefined`: the flow stays as it is. */
export function fateOf(verdict: Verdict | undefined): Fate {
  return FATE_OF[verdict?.action ?? 'persist'];
}

/** Counts fates of flows by protocol. */
export class FateTally {
  readonly #counts: Readonly<Record<Protocol, Record<Fate, number>>> = { tcp: noFates(), udp: noFates() };

  count(protocol: Protocol, fate: Fate): void {
    this.#counts[protocol][fate]++;
  }

  /** A copy. */
  get byProtocol(): Readonly<Record<Protocol, FlowFates>> {
    return { tcp: { ...this.#counts.tcp }, udp: { ...this.#counts.udp } };
  }
}

export function sumFates(fates: Iterable<FlowFates>): FlowFates {
  const sum = noFates();
  for (const { stay, move, reset, drop } of fates) {
    sum.stay += stay;
    sum.move += move;
    sum.reset += reset;
    sum.drop += drop;
  }
  return sum;
}

function noFates(): Record<Fate, number> {
  return { stay: 0, move: 0, reset: 0, drop: 0 };
}
