import type { Request } from '../api/contract.js';
import type { FlowFates, SimulatedRule } from '../api/views.js';
import type { AdminState } from '../model/configuration.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { FlowRecord } from '../model/flow.js';
import { ForwardingCompiler } from '../selection/compiler.js';
import { createHasher } from '../selection/flow-hash.js';
import { createPicker } from '../selection/picker.js';
import { NOT_CHECKED_REASONS, replay, type NotCheckedReason, type ReplayReport } from '../whatif/replay.js';
import {
  simulate,
  simulateRecorded,
  type Population,
  type RecordedPopulation,
  type SimulationOutcome,
  type SimulationRequest,
  type Supposition,
} from '../whatif/simulate.js';
import type { AdminClient } from './client.js';
import { ALL_UP, EXIT, loadUsable, parseWeight, usageError, type CliDeps, type ExitCode } from './deps.js';
import {
  formatCount,
  formatShare,
  formatTable,
  plural,
  printable,
  wrapWords,
  type TableColumn,
} from './output.js';

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
        : await (await deps.client()).simulate(request as Request<'simulate'>);
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
): Promise<SimulationOutcome | undefined> {
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
): Promise<SimulationOutcome | undefined> {
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

const WIDTH = 80;
const LABEL_WIDTH = 10;
/** Backends of a rule listed; the rest is only counted. */
const BACKENDS_SHOWN = 64;

const COLUMNS: readonly TableColumn[] = [
  { title: '  BACKEND', importance: 2, minimum: 14 },
  { title: 'ID', importance: 1, minimum: 10 },
  { title: 'BEFORE', align: 'right' },
  { title: 'AFTER', align: 'right' },
  { title: 'DIFFERENCE', align: 'right' },
];

export interface SimulateTextOptions {
  readonly request: SimulationRequest;
  /** A running process was asked. */
  readonly live: boolean;
  /** File whose flows were followed. */
  readonly flowLog?: string;
}

/** A simulation for people, within 80 columns. Ends with a newline. */
export function formatSimulation(report: SimulationOutcome, options: SimulateTextOptions): string {
  const { request, flowLog = 'a flow log' } = options;
  const lines = [
    ...labelled('What if', suppositionText(request.suppose)),
    ...labelled('Followed', populationText(request, flowLog)),
    ...(report.recorded === undefined ? [] : labelled('', recordedText(report.recorded))),
    ...labelled('State', stateText(report, options)),
    ...report.rules.flatMap((rule) => ['', ...ruleLines(rule)]),
  ];
  return `${lines.join('\n')}\n`;
}

function suppositionText(suppose: readonly Supposition[]): string {
  if (suppose.length === 0) return 'nothing changed';
  return suppose
    .map(({ backend, health, adminState, weight, draining }) => {
      const facts = [
        ...(health === undefined ? [] : [`probe ${health}`]),
        ...(adminState === undefined ? [] : [`admin state ${adminState}`]),
        ...(weight === undefined ? [] : [`weight ${weight}`]),
        ...(draining === undefined ? [] : [draining ? 'draining' : 'not draining']),
      ];
      return `${backend}: ${facts.join(', ')}`;
    })
    .join('; ');
}

function stateText(
  { configDigest, revision, recorded }: SimulationOutcome,
  { live }: SimulateTextOptions,
): string {
  const config = `config ${configDigest.slice(0, 12)}`;
  if (live) return `${config}, revision ${revision}`;
  if (recorded?.start === 'epoch') {
    return `${config}, revision ${revision}: the last epoch of the log; no process was asked`;
  }
  return `${config}, every probe up: no process was asked`;
}

function populationText({ population }: SimulationRequest, flowLog: string): string {
  if (population.kind === 'live') return 'the flows that live now';
  if (population.kind === 'recorded') {
    const last = formatCount(population.last);
    return `the flows of ${flowLog}, each from the backend where it was last; of distinct ones the last ${last} at most`;
  }
  const { flows, sources, seed } = population;
  return `${plural(flows, 'random flow')} for each rule, of ${plural(sources, 'client')} at most (seed ${seed})`;
}

function recordedText(recorded: RecordedPopulation): string {
  const { started, distinct, isCut, ofOtherRules, lost, damaged } = recorded;
  return [
    `${plural(started, 'flow')} started in it, ${formatCount(distinct)} distinct ${isCut ? 'kept, older ones left out' : 'ones'}`,
    ...(ofOtherRules === 0
      ? []
      : [`${formatCount(ofOtherRules)} not followed: the configuration has no rule of that name`]),
    ...(lost === 0 ? [] : [`${plural(lost, 'line')} lost, says the log itself`]),
    ...(damaged === 0 ? [] : [`${plural(damaged, 'line')} damaged`]),
  ].join('; ');
}

function ruleLines({
  name,
  followed,
  flows,
  unplacedBefore,
  unplacedAfter,
  backends,
}: SimulatedRule): string[] {
  if (followed === 0) return [`Rule ${printable(name)}: no flows`];
  const shown = backends.slice(0, BACKENDS_SHOWN);
  const more = backends.length - shown.length;
  const unplaced =
    unplacedBefore + unplacedAfter === 0
      ? []
      : labelled(
          '  Nobody',
          `takes ${formatCount(unplacedBefore)} before, ${formatCount(unplacedAfter)} after`,
        );
  return [
    `Rule ${printable(name)}: ${plural(followed, 'flow')}`,
    ...formatTable(
      COLUMNS,
      shown.map(({ name: backend, backendId, shareBefore, shareAfter }) => [
        `  ${backend}`,
        backendId,
        formatShare(shareBefore),
        formatShare(shareAfter),
        signed(shareAfter - shareBefore),
      ]),
      { width: WIDTH },
    ),
    ...(more > 0 ? [`  and ${formatCount(more)} more`] : []),
    ...unplaced,
    ...fateLines('  TCP', flows.tcp),
    ...fateLines('  UDP', flows.udp),
  ];
}

function fateLines(label: string, fates: FlowFates): string[] {
  const { stay, move, reset, drop } = fates;
  if (stay + move + reset + drop === 0) return [];
  const parts = [
    `${formatCount(stay)} stay`,
    ...(move === 0 ? [] : [`${formatCount(move)} move`]),
    ...(reset === 0 ? [] : [`${formatCount(reset)} are reset`]),
    ...(drop === 0 ? [] : [`${formatCount(drop)} are dropped`]),
  ];
  return labelled(label, parts.join(', '));
}

function signed(difference: number): string {
  const text = formatShare(difference);
  return difference > 0 ? `+${text}` : text;
}

function labelled(label: string, text: string): string[] {
  return wrapWords(printable(`${label.padEnd(LABEL_WIDTH)}${text}`), WIDTH, LABEL_WIDTH);
}

export interface ReplayDeps extends Pick<CliDeps, 'out'> {
  /** A file piece by piece. Rejects with the system's error. */
  readonly readChunks: (path: string) => AsyncIterable<Uint8Array>;
}

export interface ReplayOptions {
  readonly json: boolean;
}

const REPLAY_COMMAND_WIDTH = 80;
const REPLAY_COMMAND_LABEL_WIDTH = 12;

const WHY_NOT: Readonly<Record<NotCheckedReason, string>> = {
  'unknown-epoch': 'of an epoch that is not in the file',
  'unknown-configuration': 'of a configuration that is not in the file',
  'digest-mismatch': "of another run's epoch",
  'unknown-rule': 'of a rule that has another name now',
  pinned: 'pinned: decided before, and kept',
  'per-packet': 'moved datagram by datagram',
};

/** `haports replay`: makes every decision of a flow log again. Exit code 1 if one comes out differently. */
export async function replayCommand(
  deps: ReplayDeps,
  file: string,
  options: ReplayOptions,
): Promise<ExitCode> {
  const hash = await createHasher();
  let report: ReplayReport;
  try {
    report = await replay(deps.readChunks(file), { hash, picker: createPicker(hash) });
  } catch (cause) {
    throw new BalancerError(`Cannot read flow log "${file}": ${errorMessage(cause)}`, {
      code: 'LB_USAGE',
      source: 'usage',
      cause,
    });
  }
  deps.out(options.json ? `${JSON.stringify(report, undefined, 2)}\n` : formatReplay(file, report));
  return report.differ === 0 ? EXIT.fine : EXIT.failed;
}

/** A replay for people, within 80 columns as long as names are of ordinary length. Ends with a newline. */
export function formatReplay(file: string, report: ReplayReport): string {
  const { lines, configurations, epochs, decisions, checked, agree, differ, lost, damaged } = report;
  const skipped = NOT_CHECKED_REASONS.filter((reason) => report.notChecked[reason] > 0);
  const text = [
    verdict(file, report),
    '',
    ...labelledReplayCommand(
      'Lines',
      `${formatCount(lines)}: ${plural(configurations, 'configuration')}, ${plural(epochs, 'epoch')}`,
    ),
    ...labelledReplayCommand('Decisions', `${formatCount(decisions)}: ${formatCount(checked)} made again`),
    ...labelledReplayCommand('Agree', formatCount(agree)),
    ...labelledReplayCommand('Differ', formatCount(differ)),
    ...report.differences.flatMap(({ line, tuple, rule, epoch, recorded, recomputed }) => [
      `  line ${line}: ${tuple}`,
      `    rule "${rule}", epoch ${epoch}: recorded ${recorded}, must be ${recomputed}`,
    ]),
    ...more(differ - report.differences.length),
    ...labelledReplayCommand('Not checked', formatCount(decisions - checked)),
    ...skipped.map((reason) => `  ${formatCount(report.notChecked[reason])} ${WHY_NOT[reason]}`),
    ...(lost === 0 ? [] : labelledReplayCommand('Lost', `${plural(lost, 'line')}, says the log itself`)),
    ...(damaged === 0 ? [] : labelledReplayCommand('Damaged', plural(damaged, 'line'))),
    ...report.damagedLines.map(({ line, evidence }) => `  line ${line}: ${evidence}`),
    ...more(damaged - report.damagedLines.length),
  ];
  return `${text.flatMap((line) => wrapWords(printable(line), REPLAY_COMMAND_WIDTH, 6)).join('\n')}\n`;
}

function verdict(file: string, { decisions, checked, differ }: ReplayReport): string {
  if (decisions === 0) return `${file}: there is no decision in it`;
  if (checked === 0) return `${file}: none of ${plural(decisions, 'decision')} could be made again`;
  if (differ > 0)
    return `${file}: ${formatCount(differ)} of ${plural(checked, 'decision')} come out differently`;
  return `${file}: ${checked === 1 ? 'the one decision comes' : `all ${plural(checked, 'decision')} come`} out as recorded`;
}

function more(left: number): string[] {
  return left > 0 ? [`  and ${formatCount(left)} more`] : [];
}

function labelledReplayCommand(label: string, text: string): string[] {
  return wrapWords(
    `${label.padEnd(REPLAY_COMMAND_LABEL_WIDTH)}${text}`,
    REPLAY_COMMAND_WIDTH,
    REPLAY_COMMAND_LABEL_WIDTH,
  );
}
