import { ROUTES, readFields, type Request } from '../api/contract.js';
import type { FlowFates, SimulatedRule } from '../api/views.js';
import * as words from '../api/words.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import {
  NOT_CHECKED_REASONS,
  replay as replayLog,
  type NotCheckedReason,
  type ReplayReport,
} from '../whatif/replay.js';
import {
  simulate as simulateFlows,
  simulateRecorded,
  type RecordedPopulation,
  type SimulationOutcome,
  type SimulationRequest,
  type Supposition,
} from '../whatif/simulate.js';
import { clientFor, type LiveOptions } from './client.js';
import { addConnection, numberOrText, repeatable, wholeNumber, type CliCommand } from './command.js';
import { ALL_UP, EXIT, loadUsable, offlineSelection, printAnswer, usageError, type CliDeps } from './deps.js';
import * as format from './format.js';
import { noFlows } from './plan.js';

/** Backends are `pool/name` or ids. */
interface SimulateOptions extends LiveOptions {
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
}

/** Where flows would go if. Changes nothing. */
export const simulate: CliCommand = {
  name: 'simulate',
  summary: 'say where flows would go if backends were down, drained or weighted otherwise',
  examples: [
    'haports simulate --down nvas/nva-1',
    'haports simulate --live --drain nvas/nva-1 --weight nvas/nva-2=50',
    'haports simulate --offline config.json --down nvas/nva-1 --sources 3',
    'haports simulate --flow-log /var/log/haports/flow.log --drain nvas/nva-1',
  ],
  notes: `
--flow-log asks no process: it starts from the log's own last configuration and epoch, or from the file that --offline
names, with every probe up.`,
  exitCodes:
    '0 simulated; 1 no process answers; 2 bad usage, no such backend, or the configuration or flow log cannot be used',
  define: (command, { deps, run }) =>
    addConnection(command, 'the report as JSON')
      .option('--offline <file>', 'start from this configuration, all probes up, without a running process')
      .addOption(repeatable('--down <pool/backend>', 'suppose that its probe is down'))
      .addOption(repeatable('--up <pool/backend>', 'suppose that its probe is up'))
      .addOption(repeatable('--drain <pool/backend>', 'suppose that it is drained'))
      .addOption(
        repeatable('--admin-state <pool/backend=state>', 'suppose its admin state: up, down or none'),
      )
      .addOption(repeatable('--weight <pool/backend=weight>', 'suppose its weight, 0 to 256'))
      .option('--live', 'follow the flows that live now, instead of random ones', false)
      .option('--flow-log <file>', 'follow the flows of this flow log instead, without a running process')
      .option(
        '--last <count>',
        'of its distinct flows, only the last so many',
        wholeNumber(1, 1_000_000),
        100_000,
      )
      .option('--flows <count>', 'random flows for each rule', wholeNumber(1, 1_000_000), 10_000)
      .option(
        '--sources <count>',
        'distinct client addresses of random flows',
        wholeNumber(1, 16_777_216),
        1000,
      )
      .option('--seed <number>', 'other random flows', wholeNumber(0, 0xffff_ffff), 0)
      .action(run((options: SimulateOptions) => showSimulation(deps, options))),
};

async function showSimulation(deps: CliDeps, options: SimulateOptions): Promise<void> {
  const { offline, flowLog, last } = options;
  const request = requestOf(options);
  const loaded = offline === undefined ? undefined : await loadUsable(deps, offline);
  const start = loaded && { configuration: loaded.configuration, inputs: ALL_UP };
  const { hash, compiler, picker } = await offlineSelection();
  let report: SimulationOutcome;
  if (flowLog !== undefined) {
    // From the given start, else from the log's own last configuration and epoch.
    report = await readFlowLog(deps, flowLog, (chunks) =>
      simulateRecorded(chunks, { suppose: request.suppose, last, start }, { hash, picker }),
    );
  } else if (start !== undefined) {
    report = await simulateFlows(request, {
      ...start,
      compile: (configuration, inputs) => compiler.preview(configuration, inputs),
      picker,
      flows: noFlows,
    });
  } else {
    report = await (await clientFor(deps, options)).simulate(request as Request<'simulate'>);
  }
  const live = offline === undefined && flowLog === undefined;
  printAnswer(deps, options, report, () => formatSimulation(report, { request, live, flowLog }));
}

/** Throws `LB_USAGE` where the file cannot be read. */
async function readFlowLog<T>(
  deps: CliDeps,
  file: string,
  read: (chunks: AsyncIterable<Uint8Array>) => Promise<T>,
): Promise<T> {
  try {
    return await read(deps.readChunks(file));
  } catch (cause) {
    if (cause instanceof BalancerError) throw cause;
    throw usageError(`Cannot read flow log "${file}": ${errorMessage(cause)}`);
  }
}

function requestOf(options: SimulateOptions): SimulationRequest {
  const { offline, live, flowLog, last, flows, sources, seed } = options;
  if (live && flowLog !== undefined) {
    throw usageError(`Cannot follow both live flows and those of "${flowLog}": it must be one of them`);
  }
  if (live && offline !== undefined) {
    throw usageError(`Cannot follow the live flows of "${offline}": only a running process has any`);
  }
  const suppose = suppositionsOf(options);
  if (flowLog !== undefined) return { suppose, population: { kind: 'recorded', last } };
  return { suppose, population: live ? { kind: 'live' } : { kind: 'generated', flows, sources, seed } };
}

function suppositionsOf({ down, up, drain, adminState, weight }: SimulateOptions): readonly Supposition[] {
  const suppose = [
    ...down.map((backend) => ({ backend, health: 'down' })),
    ...up.map((backend) => ({ backend, health: 'up' })),
    ...drain.map((backend) => ({ backend, draining: true })),
    ...adminState.map((text) => {
      const [backend, value] = assignment('--admin-state', text, 'pool/backend=up, down or none');
      return { backend, adminState: value };
    }),
    ...weight.map((text) => {
      const [backend, value] = assignment('--weight', text, 'pool/backend=0 to 256');
      return { backend, weight: numberOrText(value) };
    }),
  ];
  // Options have checked the population; of a flow log the contract knows none.
  const request = readFields(ROUTES.simulate.keys, { suppose, population: { kind: 'live' } });
  return (request as SimulationRequest).suppose;
}

/** No name or address has an equals sign. */
function assignment(option: string, text: string, expected: string): readonly [string, string] {
  const [, backend, value] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (backend !== undefined && value !== undefined) return [backend, value];
  throw usageError(`Cannot read ${option} "${text}": it must be ${expected}`);
}

/** Backends of a rule listed; the rest is only counted. */
const BACKENDS_SHOWN = 64;

const COLUMNS: readonly format.TableColumn<SimulatedRule['backends'][number]>[] = [
  format.left('  BACKEND', ({ name }) => `  ${name}`, { importance: 2, minimum: 14 }),
  format.left('ID', ({ backendId }) => backendId, { importance: 1, minimum: 10 }),
  format.right('BEFORE', ({ shareBefore }) => words.share(shareBefore)),
  format.right('AFTER', ({ shareAfter }) => words.share(shareAfter)),
  format.right('DIFFERENCE', ({ shareBefore, shareAfter }) => signed(shareAfter - shareBefore)),
];

interface SimulationContext {
  readonly request: SimulationRequest;
  /** A running process was asked. */
  readonly live: boolean;
  /** File whose flows were followed. */
  readonly flowLog?: string;
}

/** A simulation for people, within 80 columns. */
function formatSimulation(report: SimulationOutcome, context: SimulationContext): readonly string[] {
  const { suppose, population } = context.request;
  return [
    ...format.labelled(
      {
        'What if': suppose.length === 0 ? 'nothing changed' : suppose.map(suppositionText).join('; '),
        Followed: [
          populationText(population, context.flowLog),
          report.recorded && recordedText(report.recorded),
        ],
        State: stateText(report, context),
      },
      10,
    ),
    ...report.rules.flatMap((rule) => ['', ...ruleLines(rule)]),
  ];
}

function suppositionText({ backend, health, adminState, weight, draining }: Supposition): string {
  const facts = [
    health !== undefined && `probe ${health}`,
    adminState !== undefined && `admin state ${adminState}`,
    weight !== undefined && `weight ${weight}`,
    draining !== undefined && (draining ? 'draining' : 'not draining'),
  ];
  return `${backend}: ${words.listed(facts)}`;
}

function stateText(
  { configDigest, revision, recorded }: SimulationOutcome,
  { live }: SimulationContext,
): string {
  const config = `config ${configDigest.slice(0, 12)}`;
  if (live) return `${config}, revision ${revision}`;
  if (recorded?.start === 'epoch') {
    return `${config}, revision ${revision}: the last epoch of the log; no process was asked`;
  }
  return `${config}, every probe up: no process was asked`;
}

function populationText(population: SimulationRequest['population'], flowLog = 'a flow log'): string {
  switch (population.kind) {
    case 'live':
      return 'the flows that live now';
    case 'recorded':
      return `the flows of ${flowLog}, each from the backend where it was last; of distinct ones the last ${words.count(population.last)} at most`;
    case 'generated': {
      const { flows, sources, seed } = population;
      return `${words.plural(flows, 'random flow')} for each rule, of ${words.plural(sources, 'client')} at most (seed ${seed})`;
    }
  }
}

function recordedText(recorded: RecordedPopulation): string {
  const { started, distinct, isCut, ofOtherRules, lost, damaged } = recorded;
  const kept = isCut ? 'kept, older ones left out' : 'ones';
  return words.listed(
    [
      `${words.plural(started, 'flow')} started in it, ${words.count(distinct)} distinct ${kept}`,
      ofOtherRules > 0 &&
        `${words.count(ofOtherRules)} not followed: the configuration has no rule of that name`,
      lost > 0 && `${words.plural(lost, 'line')} lost, according to the log itself`,
      damaged > 0 && `${words.plural(damaged, 'line')} damaged`,
    ],
    '; ',
  );
}

function ruleLines(rule: SimulatedRule): string[] {
  const { name, followed, flows, unplacedBefore, unplacedAfter, backends } = rule;
  if (followed === 0) return [`Rule ${format.printable(name)}: no flows`];
  const shown = backends.slice(0, BACKENDS_SHOWN);
  const more = backends.length - shown.length;
  return [
    `Rule ${format.printable(name)}: ${words.plural(followed, 'flow')}`,
    ...format.table(COLUMNS, shown),
    ...(more > 0 ? [`  and ${words.count(more)} more`] : []),
    ...format.labelled(
      {
        '  None':
          unplacedBefore + unplacedAfter > 0 &&
          `no backend for ${words.count(unplacedBefore)} before, ${words.count(unplacedAfter)} after`,
        '  TCP': fatesText(flows.tcp),
        '  UDP': fatesText(flows.udp),
      },
      10,
    ),
  ];
}

function fatesText({ stay, move, reset, drop }: FlowFates): string | false {
  if (stay + move + reset + drop === 0) return false;
  return words.counts({
    stay,
    move: move > 0 && move,
    'are reset': reset > 0 && reset,
    'are dropped': drop > 0 && drop,
  });
}

function signed(difference: number): string {
  const text = words.share(difference);
  return difference > 0 ? `+${text}` : text;
}

const WHY_NOT: Readonly<Record<NotCheckedReason, string>> = {
  'unknown-epoch': 'of an epoch that is not in the file',
  'unknown-configuration': 'of a configuration that is not in the file',
  'digest-mismatch': "of another run's epoch",
  'unknown-rule': 'of a rule that has another name now',
  pinned: 'pinned: decided before, and kept',
  'per-packet': 'moved datagram by datagram',
};

/** Makes every decision of a flow log again. */
export const replay: CliCommand = {
  name: 'replay',
  summary: 'make every decision of a flow log again, and report differences',
  examples: ['haports replay /var/log/haports/flow.log', 'haports replay flow.log --json'],
  notes: `
Every decision is recomputed from the configurations and epochs in the log.`,
  exitCodes:
    '0 every decision that could be made again comes out as recorded; 1 a decision comes out differently; ' +
    '2 the file cannot be read, or bad usage',
  define: (command, { deps, run }) =>
    command
      .argument('<flow.log>', 'a flow log')
      .option('--json', 'the report as JSON', false)
      .action(
        run(async (file: string, options: { readonly json: boolean }) => {
          const { hash, picker } = await offlineSelection();
          const report = await readFlowLog(deps, file, (chunks) => replayLog(chunks, { hash, picker }));
          printAnswer(deps, options, report, () => formatReplay(file, report));
          return report.differ === 0 ? EXIT.fine : EXIT.failed;
        }),
      ),
};

/** A replay for people, within 80 columns as long as names are of ordinary length. */
function formatReplay(file: string, report: ReplayReport): readonly string[] {
  const { lines, configurations, epochs, decisions, checked, agree, differ, lost, damaged } = report;
  const row = (rows: Readonly<Record<string, words.Texts>>) => format.labelled(rows, 12);
  const more = (count: number): string[] => (count > 0 ? [`  and ${words.count(count)} more`] : []);
  return [
    verdict(file, report),
    '',
    ...row({
      Lines: `${words.count(lines)}: ${words.plural(configurations, 'configuration')}, ${words.plural(epochs, 'epoch')}`,
      Decisions: `${words.count(decisions)}: ${words.count(checked)} made again`,
      Agree: words.count(agree),
      Differ: words.count(differ),
    }),
    ...report.differences.flatMap(({ line, tuple, rule, epoch, recorded, recomputed }) => [
      `  line ${line}: ${tuple}`,
      `    rule "${rule}", epoch ${epoch}: recorded ${recorded}, must be ${recomputed}`,
    ]),
    ...more(differ - report.differences.length),
    ...row({ 'Not checked': words.count(decisions - checked) }),
    ...NOT_CHECKED_REASONS.filter((reason) => report.notChecked[reason] > 0).map(
      (reason) => `  ${words.count(report.notChecked[reason])} ${WHY_NOT[reason]}`,
    ),
    ...row({
      Lost: lost > 0 && `${words.plural(lost, 'line')}, according to the log itself`,
      Damaged: damaged > 0 && words.plural(damaged, 'line'),
    }),
    ...report.damagedLines.map(({ line, evidence }) => `  line ${line}: ${evidence}`),
    ...more(damaged - report.damagedLines.length),
  ].flatMap((line) => format.wrapWords(format.printable(line), 6));
}

function verdict(file: string, { decisions, checked, differ }: ReplayReport): string {
  if (decisions === 0) return `${file}: there is no decision in it`;
  if (checked === 0) return `${file}: none of ${words.plural(decisions, 'decision')} could be made again`;
  const all = words.plural(checked, 'decision');
  if (differ > 0) return `${file}: ${words.count(differ)} of ${all} come out differently`;
  return `${file}: ${checked === 1 ? 'the one decision comes' : `all ${all} come`} out as recorded`;
}
