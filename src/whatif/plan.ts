import { isDeepStrictEqual } from 'node:util';
import type { FlowFates, PlanReport, PlannedBackend, PlannedRule } from '../api/views.js';
import { plural, share } from '../api/words.js';
import { FlowJudge, ruleSuccessors, type Verdict } from '../flows/judge.js';
import type { Protocol } from '../model/address.js';
import type { Configuration, FlowAction, Rule } from '../model/configuration.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
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
export async function planChange(change: PlannedChange): Promise<PlanReport> {
  const { before, after } = change;
  const from = before.configuration;
  const to = after.configuration;
  const successors = ruleSuccessors(from, to);
  const fates = await fatesByRule(change, successors);
  const rules = plannedRules(change, successors, fates);
  const base = {
    fromDigest: from.digest,
    toDigest: to.digest,
    revision: before.revision,
    rules,
    movedShare: rules
      .filter(({ change }) => change === 'same' || change === 'changed')
      .reduce((most, { movedShare }) => Math.max(most, movedShare), 0),
    flows: sumOfFates([...fates.values()].flatMap(({ tcp, udp }) => [tcp, udp])),
    backends: backendChanges(from, to),
    probeStateLost: lostProbeState(from, to),
    listeners: listenerChanges(from, to),
    restartNeeded: restartKeys(from, to),
  };
  return { ...base, steps: planSteps(base) };
}

export type FatesByProtocol = Readonly<Record<Protocol, { -readonly [Fate in keyof FlowFates]: number }>>;

const FATE_OF = {
  persist: 'stay',
  rebalance: 'move',
  reset: 'reset',
  drop: 'drop',
} as const satisfies Readonly<Record<FlowAction, keyof FlowFates>>;

/** `undefined`: the flow stays as it is. */
export function fateOf(verdict: Verdict | undefined): keyof FlowFates {
  return FATE_OF[verdict?.action ?? 'persist'];
}

export function noFates(): FatesByProtocol {
  return { tcp: { stay: 0, move: 0, reset: 0, drop: 0 }, udp: { stay: 0, move: 0, reset: 0, drop: 0 } };
}

function sumOfFates(fates: readonly FlowFates[]): FlowFates {
  const of = (fate: keyof FlowFates) => fates.reduce((sum, counts) => sum + counts[fate], 0);
  return { stay: of('stay'), move: of('move'), reset: of('reset'), drop: of('drop') };
}

/**
 * By name of the rule that flows will have, or had where it goes. A fate that a flow meets anyway, being drained, is not
 * the change's: it counts as staying.
 */
async function fatesByRule(
  { before, after, flows }: PlannedChange,
  successors: ReadonlyMap<string, string>,
): Promise<ReadonlyMap<string, FatesByProtocol>> {
  const judge = new FlowJudge(after);
  const judgeOfNow = new FlowJudge(before);
  const indexes = indexByName(after.configuration);
  const indexesNow = indexByName(before.configuration);
  const fates = new Map<string, FatesByProtocol>();
  for await (const { rule, tuple, backendId, state } of flows) {
    const { protocol } = tuple;
    const name = successors.get(rule) ?? rule;
    const counts = fates.get(name) ?? noFates();
    fates.set(name, counts);
    const ruleIndex = indexes.get(name) ?? -1;
    // A rule that has another name may have fewer protocols.
    const isKept = name === rule || after.configuration.rules[ruleIndex]?.protocols.includes(protocol);
    const atStake = { protocol, backendId, state };
    const fate = fateOf(judge.judge(isKept === true ? ruleIndex : -1, atStake));
    const fateAnyway = fateOf(judgeOfNow.judge(indexesNow.get(rule) ?? -1, atStake));
    counts[protocol][fate === fateAnyway ? 'stay' : fate]++;
  }
  return fates;
}

/** Rules as they will stand, then those that go. */
function plannedRules(
  { before, after, picker }: PlannedChange,
  successors: ReadonlyMap<string, string>,
  fates: ReadonlyMap<string, FatesByProtocol>,
): readonly PlannedRule[] {
  const from = before.configuration;
  const to = after.configuration;
  const movedShare = movedShares(before, after, picker);
  const indexes = indexByName(from);
  // Of several rules that become one, the first counts.
  const predecessors = new Map([...successors].reverse().map(([old, name]) => [name, old]));
  const whole = (name: string, change: 'added' | 'removed'): PlannedRule => {
    return { name, change, changes: [], movedShare: 1, flows: fates.get(name) ?? noFates() };
  };
  const present = to.rules.map((rule, afterIndex): PlannedRule => {
    const { name } = rule;
    const beforeIndex = indexes.get(predecessors.get(name) ?? '') ?? -1;
    const was = from.rules[beforeIndex];
    if (was === undefined) return whole(name, 'added');
    const changes = ruleChanges(from, was, to, rule);
    return {
      name,
      renamedFrom: was.name === name ? undefined : was.name,
      change: changes.length === 0 ? 'same' : 'changed',
      changes,
      movedShare: movedShare(beforeIndex, afterIndex),
      flows: fates.get(name) ?? noFates(),
    };
  });
  const gone = from.rules.filter(({ name }) => !successors.has(name));
  return [...present, ...gone.map(({ name }) => whole(name, 'removed'))];
}

function indexByName({ rules }: Configuration): ReadonlyMap<string, number> {
  return new Map(rules.map(({ name }, index) => [name, index]));
}

/**
 * What a reload will do, as sentences in order: everything that is added comes before anything that is removed, so that
 * no moment has fewer backends or listeners than it needs. Empty: nothing changes.
 */
function planSteps(report: Omit<PlanReport, 'steps'>): readonly string[] {
  const { backends, flows, listeners, probeStateLost, restartNeeded, rules } = report;
  const named = (wanted: PlannedRule['change']) => rules.filter(({ change }) => change === wanted);
  const some = (number: number, sentence: string) => (number === 0 ? [] : [sentence]);
  const restartKeys = restartNeeded.map((key) => `"${key}"`);
  return [
    ...some(restartKeys.length, `Start a new process: a reload cannot take over ${list(restartKeys)}`),
    ...byPool(backends.added, (pool, names) =>
      names.length === 1
        ? `Probe new backend ${list(names)} of pool "${pool}" until its first verdict (1 s at most)`
        : `Probe new backends ${list(names)} of pool "${pool}" until their first verdicts (1 s at most)`,
    ),
    ...grouped(probeStateLost.map(({ probe, backendId }) => [probe, backendId])).map(
      ([probe, ids]) => `Probe ${list(ids)} anew with "${probe}" until the first verdict (1 s at most)`,
    ),
    ...some(listeners.opened, `Open ${plural(listeners.opened, 'listener')}`),
    ...named('added').map(({ name }) => `Add rule "${name}"`),
    ...rules.flatMap(changedRule),
    ...byPool(backends.changed, (pool, names) => `Apply the changes of ${list(names)} of pool "${pool}"`),
    ...some(flows.move, `Move ${plural(flows.move, 'UDP flow')}, each with its next datagram`),
    ...some(flows.reset, `Reset ${plural(flows.reset, 'flow')}`),
    ...some(flows.drop, `Drop ${plural(flows.drop, 'flow')} silently`),
    ...named('removed').map(({ name }) => `Remove rule "${name}"`),
    ...some(listeners.closed, `Close ${plural(listeners.closed, 'listener')}`),
    ...byPool(backends.removed, (pool, names) => `Remove ${list(names)} from pool "${pool}"`),
  ];
}

function changedRule({ name, change, changes, movedShare, renamedFrom }: PlannedRule): string[] {
  if (change === 'added' || change === 'removed') return [];
  const others = changes.filter((key) => key !== 'name');
  return [
    ...(renamedFrom === undefined ? [] : [`Rename rule "${renamedFrom}" to "${name}"; flows are kept`]),
    ...(others.length === 0 ? [] : [`Change ${list(others)} of rule "${name}"`]),
    ...(movedShare === 0
      ? []
      : [`Replace the table of rule "${name}": ${share(movedShare)} of its hash space moves`]),
  ];
}

function byPool(
  backends: readonly PlannedBackend[],
  sentence: (pool: string, names: readonly string[]) => string,
): readonly string[] {
  return grouped(backends.map(({ pool, name }) => [pool, name])).map(([pool, names]) =>
    sentence(pool, names),
  );
}

function grouped(pairs: readonly (readonly [string, string])[]): readonly [string, readonly string[]][] {
  const groups = new Map<string, string[]>();
  for (const [key, value] of pairs) groups.set(key, [...(groups.get(key) ?? []), value]);
  return [...groups];
}

/** Names listed in one sentence. */
const NAMES_SHOWN = 10;

function list(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_SHOWN).join(', ');
  const more = names.length - NAMES_SHOWN;
  return more > 0 ? `${shown} and ${more} more` : shown;
}

/** Flows drawn where slots cannot be compared: a share is then right within 0.01, 99 times of 100. */
const SAMPLE = { flows: 16_384, sources: 16_384, seed: 1 };

/**
 * How much of a rule's hash space another backend has in the other state, by the rule's index in each: 0 to 1. Exact, slot
 * by slot, where both hash alike into tables of one size; else estimated from random flows. Slots without a backend in
 * both states are the same.
 */
function movedShares(before: ForwardingState, after: ForwardingState, picker: Picker) {
  /** Rules that share both views share the answer. */
  const known = new Map<string, number>();
  return (beforeIndex: number, afterIndex: number): number => {
    const from = ruleAndView(before, beforeIndex);
    const to = ruleAndView(after, afterIndex);
    const tableBefore = tableInUse(from.rule, from.view)?.table;
    const tableAfter = tableInUse(to.rule, to.view)?.table;
    if (tableBefore === undefined || tableAfter === undefined) return tableBefore === tableAfter ? 0 : 1;
    const hashAlike = isDeepStrictEqual(
      hashInputs(before.configuration, from.rule),
      hashInputs(after.configuration, to.rule),
    );
    if (!hashAlike || tableBefore.length !== tableAfter.length) {
      return shareOfFlows(before, beforeIndex, after, afterIndex, picker);
    }
    const key = `${from.viewIndex} ${to.viewIndex}`;
    const moved = known.get(key) ?? shareOfSlots(tableBefore, from.view, tableAfter, to.view);
    known.set(key, moved);
    return moved;
  };
}

/** What decides on a flow's slot besides the flow, in tables of one size. */
function hashInputs({ seed, kernel }: Configuration, { distribution, symmetric }: Rule) {
  return { seed, mode: kernel?.mode, spokes: kernel?.spokes, distribution, symmetric };
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

function shareOfFlows(
  before: ForwardingState,
  beforeIndex: number,
  after: ForwardingState,
  afterIndex: number,
  picker: Picker,
): number {
  let drawn = 0;
  let moved = 0;
  for (const tuple of generatedTuples(after.configuration, afterIndex, SAMPLE)) {
    const from = picker.pickForRule(before, beforeIndex, tuple, NONE_EXCLUDED);
    const to = picker.pickForRule(after, afterIndex, tuple, NONE_EXCLUDED);
    drawn++;
    if (from.kind !== 'picked' || to.kind !== 'picked' || from.backendId !== to.backendId) moved++;
  }
  return drawn === 0 ? 0 : moved / drawn;
}
