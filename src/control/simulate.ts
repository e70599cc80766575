import { setImmediate } from 'node:timers/promises';
import type { Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import type { FiveTuple } from '../model/five-tuple.js';
import type { FlowRecord, FlowState } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type {
  Population,
  SimulatedRule,
  SimulationReport,
  SimulationRequest,
  Supposition,
} from '../model/simulation.js';
import { NONE_EXCLUDED, type Picker } from '../selection/picker.js';
import { FateTally, FlowFateJudge } from './flow-fates.js';
import type { CompilerInputs } from './forwarding-compiler.js';
import { findBackend } from './operator.js';
import { generatedTuples } from './population.js';

export interface SimulationDeps {
  readonly configuration: Configuration;
  /** What sways the state now. */
  readonly inputs: CompilerInputs;
  /** Compiles without a trace: called with `inputs`, then with what is supposed in their place. */
  readonly compile: (configuration: Configuration, inputs: CompilerInputs) => ForwardingState;
  readonly picker: Picker;
  /** Live or recorded flows, one after another; not asked for where the population is generated. */
  readonly flows: () => AsyncIterable<KnownFlow>;
}

/** Of a flow that is or was there, what is followed. */
export type KnownFlow = Pick<FlowRecord, 'rule' | 'tuple' | 'state' | 'backendId'>;

/** A flow that is followed. */
interface FollowedFlow {
  readonly ruleIndex: number;
  readonly tuple: FiveTuple;
  readonly state: FlowState;
  /** Where it is; undefined: where it would be placed. */
  readonly backendId?: string;
}

const MOST_FLOWS = 1_000_000;
const MOST_SOURCES = 16_777_216;
const MOST_SEED = 0xffff_ffff;
const MOST_WEIGHT = 256;

/** Flows followed before others in the process get their turn: a few milliseconds' worth. */
const FLOWS_AT_A_TIME = 4096;

/**
 * What if: follows a population of flows from the state as it is into the state as it would be. `shareBefore` counts
 * where flows are, or would be placed; `shareAfter` where the same flows would be placed if they came then; fates are
 * what flow policy does to those that are there already. Changes nothing.
 *
 * Rejects with `LB_UNKNOWN_BACKEND`, and with `LB_USAGE` on numbers out of range.
 */
export async function simulate(request: SimulationRequest, deps: SimulationDeps): Promise<SimulationReport> {
  const { configuration, inputs, compile, picker } = deps;
  const suppositions = resolveSuppositions(request.suppose, configuration);
  assertPopulation(request.population);
  const before = compile(configuration, inputs);
  const after = compile(configuration, supposing(inputs, suppositions));
  const judge = new FlowFateJudge(after);
  const tallies = configuration.rules.map(() => new RuleTally());
  let followed = 0;
  for await (const { ruleIndex, tuple, state, backendId } of populationOf(request.population, deps)) {
    if (++followed % FLOWS_AT_A_TIME === 0) await setImmediate();
    const from = backendId ?? placed(picker, before, ruleIndex, tuple);
    const to = placed(picker, after, ruleIndex, tuple);
    const { protocol } = tuple;
    const tally = tallies[ruleIndex];
    tally?.followed(from, to);
    if (from !== '') {
      tally?.fates.count(protocol, judge.fateOf(ruleIndex, { protocol, backendId: from, state }));
    }
  }
  return {
    revision: before.revision,
    configDigest: configuration.digest,
    rules: configuration.rules.map((_rule, index) =>
      simulatedRule(configuration, index, tallies[index] ?? new RuleTally()),
    ),
  };
}

class RuleTally {
  readonly fates = new FateTally();
  /** Empty id: nobody. */
  readonly before = new Map<string, number>();
  readonly after = new Map<string, number>();
  count = 0;

  followed(from: string, to: string): void {
    this.count++;
    this.before.set(from, (this.before.get(from) ?? 0) + 1);
    this.after.set(to, (this.after.get(to) ?? 0) + 1);
  }
}

function simulatedRule(
  { rules, backendPools }: Configuration,
  index: number,
  { count, before, after, fates }: RuleTally,
): SimulatedRule {
  const rule = rules[index];
  const members = backendPools.find(({ name }) => name === rule?.backendPool)?.backends ?? [];
  const names = new Map(members.map(({ id, name }) => [id, name]));
  // Flows may still be on backends that the pool no longer has.
  for (const id of before.keys()) if (id !== '' && !names.has(id)) names.set(id, id);
  const share = (flows: number | undefined): number => (count === 0 ? 0 : (flows ?? 0) / count);
  return {
    name: rule?.name ?? '',
    followed: count,
    flows: fates.byProtocol,
    unplacedBefore: before.get('') ?? 0,
    unplacedAfter: after.get('') ?? 0,
    backends: [...names].map(([backendId, name]) => ({
      backendId,
      name,
      shareBefore: share(before.get(backendId)),
      shareAfter: share(after.get(backendId)),
    })),
  };
}

async function* populationOf(
  population: Population,
  { configuration, flows }: SimulationDeps,
): AsyncGenerator<FollowedFlow> {
  if (population.kind === 'generated') {
    for (const ruleIndex of configuration.rules.keys()) {
      for (const tuple of generatedTuples(configuration, ruleIndex, population)) {
        yield { ruleIndex, tuple, state: 'established' };
      }
    }
    return;
  }
  const indexes = new Map(configuration.rules.map(({ name }, index) => [name, index]));
  for await (const { rule, tuple, state, backendId } of flows()) {
    const ruleIndex = indexes.get(rule);
    if (ruleIndex !== undefined) yield { ruleIndex, tuple, state, backendId };
  }
}

/** Id of the backend that a flow gets, or an empty one. */
function placed(picker: Picker, state: ForwardingState, ruleIndex: number, tuple: FiveTuple): string {
  const pick = picker.pickForRule(state, ruleIndex, tuple, NONE_EXCLUDED);
  return pick.kind === 'picked' ? pick.backendId : '';
}

/** By backend id; of several about one backend the later adds to the earlier. */
function resolveSuppositions(
  suppositions: readonly Supposition[],
  configuration: Configuration,
): ReadonlyMap<string, Supposition> {
  const byId = new Map<string, Supposition>();
  for (const supposition of suppositions) {
    const { weight } = supposition;
    if (weight !== undefined) assertWhole(`weight of "${supposition.backend}"`, weight, 0, MOST_WEIGHT);
    const { backend } = findBackend(configuration, supposition.backend);
    byId.set(backend.id, { ...byId.get(backend.id), ...supposition });
  }
  return byId;
}

function supposing(inputs: CompilerInputs, byId: ReadonlyMap<string, Supposition>): CompilerInputs {
  return {
    health(backend, probe) {
      const known = inputs.health(backend, probe);
      return { ...known, state: byId.get(backend.id)?.health ?? known.state };
    },
    adminState: (backend) => byId.get(backend.id)?.adminState ?? inputs.adminState(backend),
    draining: (backend) => byId.get(backend.id)?.draining ?? inputs.draining(backend),
    endSpreadMs: (backend) => inputs.endSpreadMs?.(backend),
    weight: (backend) => byId.get(backend.id)?.weight ?? inputs.weight?.(backend),
    rampPercent: (backend) => inputs.rampPercent?.(backend) ?? 100,
  };
}

function assertPopulation(population: Population): void {
  if (population.kind === 'live') return;
  if (population.kind === 'recorded') {
    assertWhole('number of recorded flows', population.last, 1, MOST_FLOWS);
    return;
  }
  assertWhole('number of flows', population.flows, 1, MOST_FLOWS);
  assertWhole('number of sources', population.sources, 1, MOST_SOURCES);
  assertWhole('seed', population.seed, 0, MOST_SEED);
}

function assertWhole(what: string, found: number, least: number, most: number): void {
  if (Number.isInteger(found) && found >= least && found <= most) return;
  throw new BalancerError(
    `Cannot simulate: the ${what} is ${found}, must be a whole number from ${least} to ${most}`,
    { code: 'LB_USAGE', source: 'usage' },
  );
}
