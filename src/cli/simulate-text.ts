import type { FlowFates } from '../model/plan-report.js';
import type {
  RecordedPopulation,
  SimulatedRule,
  SimulationReport,
  SimulationRequest,
  Supposition,
} from '../model/simulation.js';
import { formatCount, formatShare, plural } from './human.js';
import { formatTable, printable, type TableColumn } from './table.js';
import { wrapWords } from './wrap-words.js';

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
export function formatSimulation(report: SimulationReport, options: SimulateTextOptions): string {
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
  { configDigest, revision, recorded }: SimulationReport,
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
