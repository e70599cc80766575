import { ForwardingCompiler } from '../control/forwarding-compiler.js';
import { simulateRecorded } from '../control/simulate-recorded.js';
import { simulate } from '../control/simulate.js';
import type { AdminState } from '../model/configuration.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { FlowRecord } from '../model/flow.js';
import type { Population, SimulationReport, SimulationRequest, Supposition } from '../model/simulation.js';
import { createHasher } from '../selection/hasher.js';
import { createPicker } from '../selection/picker.js';
import type { AdminClient } from './admin-client.js';
import { ALL_UP } from './all-up.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { loadUsable } from './load-usable.js';
import { parseWeight, usageError } from './option-parsers.js';
import { formatSimulation } from './simulate-text.js';

export interface SimulateDeps extends Pick<CliDeps, 'out' | 'err' | 'load' | 'readChunks'> {
  /** For the running process; only asked for where one is meant. */
  readonly client: () => Promise<Pick<AdminClient, 'simulate'>>;
}

/** Backends are `pool/name` or ids. */
export interface SimulateOptions {
  /** File to start from; absent: the running process is asked. */
  readonly offline?: string;
  readonly down: readonly string[];
  readonly up: readonly string[];
  readonly drain: readonly string[];
  /** `pool/name=up|down|none`. */
  readonly adminState: readonly string[];
  /** `pool/name=50`. */
  readonly weight: readonly string[];
  /** Follow the flows that live now, instead of random ones. */
  readonly live: boolean;
  /** Follow the flows of this flow log instead; no process is asked. */
  readonly flowLog?: string;
  /** Of them, the last so many distinct ones, 1 to 1,000,000. */
  readonly last: number;
  /** Random flows for each rule, 1 to 1,000,000. */
  readonly flows: number;
  /** Distinct client addresses of them, 1 to 16,777,216. */
  readonly sources: number;
  /** 0 to 2^32-1. */
  readonly seed: number;
  readonly json: boolean;
}

const ADMIN_STATES: readonly AdminState[] = ['none', 'up', 'down'];

/** `haports simulate`: where flows would go if. Changes nothing. */
export async function simulateCommand(deps: SimulateDeps, options: SimulateOptions): Promise<ExitCode> {
  const { offline, flowLog, json } = options;
  const request = requestOf(options);
  const live = offline === undefined && flowLog === undefined;
  const report =
    flowLog !== undefined
      ? await simulateFlowLog(deps, flowLog, options, request)
      : offline !== undefined
        ? await simulateOffline(deps, offline, request)
        : await (await deps.client()).simulate(request);
  if (report === undefined) return EXIT.badInput;
  if (json) deps.out(`${JSON.stringify(report, undefined, 2)}\n`);
  else deps.out(formatSimulation(report, { request, live, ...(flowLog === undefined ? {} : { flowLog }) }));
  return EXIT.fine;
}

/** From the file that --offline names, else from the log's own last configuration and epoch. */
async function simulateFlowLog(
  deps: SimulateDeps,
  file: string,
  { offline, last }: SimulateOptions,
  { suppose }: SimulationRequest,
): Promise<SimulationReport | undefined> {
  const usable = offline === undefined ? undefined : await loadUsable(deps, offline);
  if (offline !== undefined && usable === undefined) return undefined;
  const start =
    usable === undefined ? {} : { start: { configuration: usable.configuration, inputs: ALL_UP } };
  const hash = await createHasher();
  try {
    return await simulateRecorded(
      deps.readChunks(file),
      { suppose, last, ...start },
      { hash, picker: createPicker(hash) },
    );
  } catch (cause) {
    if (cause instanceof BalancerError) throw cause;
    throw usageError(`Cannot read flow log "${file}": ${errorMessage(cause)}`);
  }
}

async function simulateOffline(
  deps: SimulateDeps,
  config: string,
  request: SimulationRequest,
): Promise<SimulationReport | undefined> {
  const usable = await loadUsable(deps, config);
  if (usable === undefined) return undefined;
  const hash = await createHasher();
  const compiler = new ForwardingCompiler(hash);
  return simulate(request, {
    configuration: usable.configuration,
    inputs: ALL_UP,
    compile: (configuration, inputs) => compiler.preview(configuration, inputs),
    picker: createPicker(hash),
    flows: noFlows,
  });
}

function requestOf(options: SimulateOptions): SimulationRequest {
  const { offline, live, flowLog } = options;
  if (live && flowLog !== undefined) {
    throw usageError(`Cannot follow both live flows and those of "${flowLog}": it must be one of them`);
  }
  if (live && offline !== undefined) {
    throw usageError(`Cannot follow the live flows of "${offline}": only a running process has any`);
  }
  return { suppose: suppositionsOf(options), population: populationOf(options) };
}

function populationOf({ live, flowLog, last, flows, sources, seed }: SimulateOptions): Population {
  if (flowLog !== undefined) return { kind: 'recorded', last };
  return live ? { kind: 'live' } : { kind: 'generated', flows, sources, seed };
}

function suppositionsOf(options: SimulateOptions): readonly Supposition[] {
  return [
    ...options.down.map((backend): Supposition => ({ backend, health: 'down' })),
    ...options.up.map((backend): Supposition => ({ backend, health: 'up' })),
    ...options.drain.map((backend): Supposition => ({ backend, draining: true })),
    ...options.adminState.map((text): Supposition => {
      const [backend, value] = assignment('--admin-state', text, 'pool/backend=up, down or none');
      const adminState = ADMIN_STATES.find((state) => state === value);
      if (adminState === undefined) {
        throw usageError(
          `Cannot suppose admin state "${value}" of "${backend}": it must be up, down or none`,
        );
      }
      return { backend, adminState };
    }),
    ...options.weight.map((text): Supposition => {
      const [backend, value] = assignment('--weight', text, 'pool/backend=0 to 256');
      const weight = parseWeight(value);
      if (weight === 'configured') {
        throw usageError(`Cannot suppose weight "${value}" of "${backend}": it must be a number, 0 to 256`);
      }
      return { backend, weight };
    }),
  ];
}

/** No name or address has an equals sign. */
function assignment(option: string, text: string, expected: string): readonly [string, string] {
  const [, backend, value] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (backend === undefined || value === undefined) {
    throw usageError(`Cannot read ${option} "${text}": it must be ${expected}`);
  }
  return [backend, value];
}

// eslint-disable-next-line @typescript-eslint/require-await -- a file has none
async function* noFlows(): AsyncGenerator<FlowRecord> {
  return;
}
