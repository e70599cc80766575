import { ruleSuccessors } from '../flow/rule-succession.js';
import type { Configuration } from '../model/configuration.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { PlannedRule, PlanReport } from '../model/plan-report.js';
import type { Picker } from '../selection/picker.js';
import { backendChanges, lostProbeState, restartKeys, ruleChanges } from './configuration-diff.js';
import { FateTally, FlowFateJudge, sumFates } from './flow-fates.js';
import { listenerChanges } from './listener-diff.js';
import { MovedShares } from './moved-share.js';
import { planSteps } from './plan-steps.js';

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
  const judge = new FlowFateJudge(after);
  const judgeOfNow = new FlowFateJudge(before);
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
    const fate = judge.fateOf(goesOn ? ruleIndex : undefined, atStake);
    tally.count(protocol, fate === judgeOfNow.fateOf(indexesNow.get(rule), atStake) ? 'stay' : fate);
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
