import { setImmediate } from 'node:timers/promises';
import { readFlowLog, type LoggedEpoch, type LoggedLine, type LoggedPlacement } from '../api/flow-log.js';
import type { Parsed } from '../api/contract.js';
import type { SimulatedRule, SimulationReport } from '../api/views.js';
import { FlowJudge } from '../flows/judge.js';
import { formatFiveTuple, type FiveTuple, type IpAddress } from '../model/address.js';
import { findBackend, type Configuration, type Rule } from '../model/configuration.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding.js';
import { ForwardingCompiler, type CompilerInputs } from '../selection/compiler.js';
import type { Hash32 } from '../selection/flow-hash.js';
import { NONE_EXCLUDED, type Picker } from '../selection/picker.js';
import { fateOf, noFates } from './plan.js';
import { generatedTuples } from './population.js';
import { RecordedStates, inputsOfEpoch } from './recorded-states.js';

type Request = Parsed<'simulate'>;

/** What is supposed about a backend; what is absent stays as it is. */
export type Supposition = Request['suppose'][number];

/**
 * Which flows are followed. `generated`: random clients, the same for the same seed, spread over all rules. `recorded`:
 * the last so many distinct five-tuples of a flow log that started, from where they were last; never over the admin API.
 */
export type Population = Request['population'] | { readonly kind: 'recorded'; readonly last: number };

/** A what-if question. */
export interface SimulationRequest {
  readonly suppose: readonly Supposition[];
  readonly population: Population;
}

/** What a flow log gave to follow. */
export interface RecordedPopulation extends Omit<RecordedFlows, 'flows' | 'configuration' | 'epoch'> {
  /** Distinct five-tuples, the last ones. */
  readonly distinct: number;
  /** Of `distinct`, those of rules that the configuration does not have: not followed. */
  readonly ofOtherRules: number;
  /** `epoch`: backends serve as in the last epoch of the log. `configuration`: as in a file, with every probe up. */
  readonly start: 'epoch' | 'configuration';
}

export interface SimulationOutcome extends SimulationReport {
  /** Only where the flows of a flow log were followed. */
  readonly recorded?: RecordedPopulation;
}

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

/** `backendId` undefined: it is where it would be placed. */
interface FollowedFlow extends Omit<KnownFlow, 'rule' | 'backendId'> {
  readonly ruleIndex: number;
  readonly backendId?: string;
}

/** Flows followed before others in the process get their turn: a few milliseconds' worth. */
const FLOWS_AT_A_TIME = 4096;

/**
 * What if: follows a population of flows from the state as it is into the state as it would be. `shareBefore` counts
 * where flows are, or would be placed; `shareAfter` where the same flows would be placed if they came then; fates are
 * what flow policy does to those that are there already. Changes nothing.
 *
 * Numbers are taken as they are: the admin API and the command line check them. Rejects with `LB_UNKNOWN_BACKEND`.
 */
export async function simulate(request: SimulationRequest, deps: SimulationDeps): Promise<SimulationReport> {
  const { configuration, inputs, compile, picker } = deps;
  const suppositions = resolveSuppositions(request.suppose, configuration);
  const before = compile(configuration, inputs);
  const after = compile(configuration, supposing(inputs, suppositions));
  const judge = new FlowJudge(after);
  const tallies = configuration.rules.map(() => new RuleTally());
  let followed = 0;
  for await (const { ruleIndex, tuple, state, backendId } of populationOf(request.population, deps)) {
    if (++followed % FLOWS_AT_A_TIME === 0) await setImmediate();
    const from = backendId ?? placed(picker, before, ruleIndex, tuple);
    const tally = tallies[ruleIndex];
    tally?.follow(from, placed(picker, after, ruleIndex, tuple));
    if (from === '' || tally === undefined) continue;
    const { protocol } = tuple;
    tally.fates[protocol][fateOf(judge.judge(ruleIndex, { protocol, backendId: from, state }))]++;
  }
  const rules = configuration.rules.flatMap((rule, index) => tallies[index]?.of(rule) ?? []);
  return { revision: before.revision, configDigest: configuration.digest, rules };
}

/** Flows of one rule that were followed. */
class RuleTally {
  readonly fates = noFates();
  /** By id of backend; empty: none. */
  readonly #before = new Map<string, number>();
  readonly #after = new Map<string, number>();
  #count = 0;

  follow(from: string, to: string): void {
    this.#count++;
    this.#before.set(from, (this.#before.get(from) ?? 0) + 1);
    this.#after.set(to, (this.#after.get(to) ?? 0) + 1);
  }

  of({ name, pool }: Rule): SimulatedRule {
    const names = new Map(pool.backends.map((backend) => [backend.id, backend.name]));
    // Flows may still be on backends that the pool no longer has.
    for (const id of this.#before.keys()) if (id !== '' && !names.has(id)) names.set(id, id);
    const share = (flows = 0): number => (this.#count === 0 ? 0 : flows / this.#count);
    return {
      name,
      followed: this.#count,
      flows: this.fates,
      unplacedBefore: this.#before.get('') ?? 0,
      unplacedAfter: this.#after.get('') ?? 0,
      backends: [...names].map(([backendId, backendName]) => ({
        backendId,
        name: backendName,
        shareBefore: share(this.#before.get(backendId)),
        shareAfter: share(this.#after.get(backendId)),
      })),
    };
  }
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
    override(backend) {
      const now = inputs.override?.(backend);
      const supposed = byId.get(backend.id);
      const { draining = now?.drain !== undefined } = supposed ?? {};
      return {
        adminState: supposed?.adminState ?? now?.adminState,
        weight: supposed?.weight ?? now?.weight,
        drain: draining ? (now?.drain ?? { ending: false }) : undefined,
      };
    },
    rampPercent: (backend) => inputs.rampPercent?.(backend) ?? 100,
  };
}

/** A state to suppose something of. */
export interface SimulationStart {
  readonly configuration: Configuration;
  readonly inputs: CompilerInputs;
}

export interface RecordedSimulation {
  readonly suppose: readonly Supposition[];
  /** Of distinct five-tuples, the last so many that started. 1 - 1,000,000. */
  readonly last: number;
  /** In place of the log's own last configuration and epoch. */
  readonly start?: SimulationStart;
}

/**
 * As simulate, over the flows of a flow log, each from the backend where it was last. Needs no running process. Rejects
 * as simulate does, with `LB_USAGE` where the log does not tell what to start from, and if `chunks` does.
 */
export async function simulateRecorded(
  chunks: AsyncIterable<Uint8Array>,
  { suppose, last, start }: RecordedSimulation,
  { hash, picker }: { readonly hash: Hash32; readonly picker: Picker },
): Promise<SimulationOutcome> {
  const recorded = await readRecordedFlows(chunks, { most: last });
  const revision = start === undefined ? (recorded.epoch?.revision ?? 0) : 0;
  const { configuration, inputs } = start ?? startOf(recorded, hash);
  const compiler = new ForwardingCompiler(hash);
  const report = await simulate(
    { suppose, population: { kind: 'recorded', last } },
    {
      configuration,
      inputs,
      compile: (...given) => ({ ...compiler.preview(...given), revision }),
      picker,
      flows: () => known(recorded.flows),
    },
  );
  const { flows, started, isCut, lost, damaged } = recorded;
  const rules = new Set(configuration.rules.map(({ name }) => name));
  return {
    ...report,
    recorded: {
      ...{ started, distinct: flows.length, isCut, lost, damaged },
      ofOtherRules: flows.filter(({ rule }) => !rules.has(rule)).length,
      start: start === undefined ? 'epoch' : 'configuration',
    },
  };
}

function startOf({ configuration, epoch }: RecordedFlows, hash: Hash32): SimulationStart {
  if (configuration === undefined || epoch === undefined) {
    throw unusable('it has no configuration with an epoch that can be read');
  }
  try {
    // Checks that the records agree with each other and are of a size that haports writes.
    const states = new RecordedStates(hash);
    states.addConfiguration(configuration);
    states.addEpoch(epoch);
    const state = states.state(epoch.revision);
    if (typeof state === 'string') throw new TypeError('The last epoch is of another configuration');
  } catch (error) {
    throw unusable(`its last epoch cannot be used (${errorMessage(error)})`);
  }
  return { configuration, inputs: inputsOfEpoch(epoch) };
}

function unusable(why: string): BalancerError {
  return new BalancerError(
    `Cannot tell from the flow log what to start from: ${why}; name a configuration file by --offline`,
    { code: 'LB_USAGE', source: 'usage' },
  );
}

async function* known(flows: readonly RecordedFlow[]): AsyncGenerator<KnownFlow> {
  for (const flow of flows) yield await Promise.resolve({ ...flow, state: 'established' });
}

/** A flow as a flow log has it. */
export interface RecordedFlow {
  readonly tuple: FiveTuple;
  readonly rule: string;
  /** Where it was last: placed, or moved to. */
  readonly backendId: string;
}

/** Kept at most while reading, as a multiple of what is asked for. */
const SLACK = 1.25;

/** Names and addresses remembered, so that flows share them. */
const MOST_SHARED = 65_536;

/** What a flow log tells about traffic. */
export interface RecordedFlows {
  /** One for each five-tuple, of the last that started; the one that started last comes last. */
  readonly flows: readonly RecordedFlow[];
  /** Start lines, those of the same five-tuple and of older flows included. */
  readonly started: number;
  /** Whether older flows were left out. */
  readonly isCut: boolean;
  /** The last of each that could be read. */
  readonly configuration: Configuration | undefined;
  readonly epoch: LoggedEpoch | undefined;
  /** Lines that the log says are missing from it. */
  readonly lost: number;
  readonly damaged: number;
}

/**
 * The flows of a flow log, of each five-tuple the last one, and of those the last `most` that started. Reads it once;
 * what is kept grows with `most`, not with the file. Damaged lines are counted; rejects only if `chunks` does.
 */
export async function readRecordedFlows(
  chunks: AsyncIterable<Uint8Array>,
  { most }: { readonly most: number },
): Promise<RecordedFlows> {
  const placed = new LastPlacements(most);
  const counts = { started: 0, lost: 0, damaged: 0 };
  let configuration: Configuration | undefined;
  let epoch: LoggedEpoch | undefined;
  const take = (line: LoggedLine): void => {
    if (line.type === 'config') configuration = line.configuration;
    else if (line.type === 'epoch') epoch = line;
    else if (line.type === 'lost') counts.lost += line.lines;
    else if (line.type === 'damaged') counts.damaged++;
    else if (line.type !== 'other') {
      if (line.type === 'start') counts.started++;
      placed.take(line);
    }
  };
  for await (const lines of readFlowLog(chunks)) for (const { line } of lines) take(line);
  return { ...counts, flows: placed.flows(), isCut: placed.isCut, configuration, epoch };
}

/** Where the flows that started last are, by five-tuple. */
class LastPlacements {
  readonly #most: number;
  /** A Map goes through its keys in the order in which they came. */
  readonly #flows = new Map<string, RecordedFlow>();
  readonly #texts = new Shared<string>();
  readonly #addresses = new Shared<IpAddress>();
  #isCut = false;

  constructor(most: number) {
    this.#most = most;
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  flows(): readonly RecordedFlow[] {
    this.#trim();
    return [...this.#flows.values()];
  }

  take({ type, tuple, rule, backend }: LoggedPlacement): void {
    const key = formatFiveTuple(tuple);
    // Of a flow that started in a file before this one, or was left out, nothing is known.
    if (type === 'move' && !this.#flows.has(key)) return;
    if (type === 'start') this.#flows.delete(key);
    const { destination } = tuple;
    this.#flows.set(key, {
      tuple: { ...tuple, destination: this.#addresses.of(destination.text, destination) },
      rule: this.#texts.of(rule, rule),
      backendId: this.#texts.of(backend, backend),
    });
    // Many at once: a Map looks through the places of all that were taken out since it last grew.
    if (this.#flows.size > this.#most * SLACK) this.#trim();
  }

  #trim(): void {
    let surplus = this.#flows.size - this.#most;
    if (surplus <= 0) return;
    this.#isCut = true;
    for (const oldest of this.#flows.keys()) {
      if (surplus-- <= 0) return;
      this.#flows.delete(oldest);
    }
  }
}

/** One value for all that are equal: each line of a log brings its own. */
class Shared<T> {
  readonly #values = new Map<string, T>();

  of(key: string, value: T): T {
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    if (this.#values.size >= MOST_SHARED) this.#values.clear();
    this.#values.set(key, value);
    return value;
  }
}
