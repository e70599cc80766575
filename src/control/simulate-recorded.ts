import { setImmediate } from 'node:timers/promises';
import type { Configuration } from '../model/configuration.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { SimulationReport, Supposition } from '../model/simulation.js';
import type { Hash32 } from '../selection/hasher.js';
import type { Picker } from '../selection/picker.js';
import { ForwardingCompiler, type CompilerInputs } from './forwarding-compiler.js';
import { readRecordedFlows, type RecordedFlow, type RecordedFlows } from './recorded-flows.js';
import { inputsOfEpoch } from './recorded-inputs.js';
import { RecordedStates } from './recorded-state.js';
import { simulate, type KnownFlow } from './simulate.js';

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

/** Flows handed on before others in the process get their turn. */
const FLOWS_AT_A_TIME = 4096;

/**
 * As simulate, over the flows of a flow log, each from the backend where it was last. Needs no running process. Rejects
 * as simulate does, with `LB_USAGE` where the log does not tell what to start from, and if `chunks` does.
 */
export async function simulateRecorded(
  chunks: AsyncIterable<Uint8Array>,
  { suppose, last, start }: RecordedSimulation,
  { hash, picker }: { readonly hash: Hash32; readonly picker: Picker },
): Promise<SimulationReport> {
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
  return { configuration, inputs: inputsOfEpoch(epoch, configuration.backendPools) };
}

function unusable(why: string): BalancerError {
  return new BalancerError(
    `Cannot tell from the flow log what to start from: ${why}; name a configuration file by --offline`,
    { code: 'LB_USAGE', source: 'usage' },
  );
}

async function* known(flows: readonly RecordedFlow[]): AsyncGenerator<KnownFlow> {
  for (const [index, flow] of flows.entries()) {
    if (index % FLOWS_AT_A_TIME === 0) await setImmediate();
    yield { ...flow, state: 'established' };
  }
}
