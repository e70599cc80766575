import { formatFindings, summariseFindings, type Finding } from '../config/findings.js';
import type { Configuration } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import type { FlowRecord } from '../model/flow.js';
import type { ForwardingState } from '../model/forwarding.js';
import type { PlanOutcome, PlanReport, PlannedRule } from '../api/views.js';
import { ForwardingCompiler } from '../selection/compiler.js';
import { createHasher } from '../selection/flow-hash.js';
import { createPicker } from '../selection/picker.js';
import { planChange } from '../whatif/plan.js';
import { AdminProblem, type AdminClient } from './client.js';
import { ALL_UP, EXIT, usageError, type CliDeps, type ExitCode } from './deps.js';
import {
  formatCount,
  formatShare,
  formatTable,
  plural,
  printable,
  wrapWords,
  type TableColumn,
} from './output.js';

export interface PlanDeps extends Pick<CliDeps, 'out' | 'load' | 'readText'> {
  /** For the running process; only asked for where one is meant. */
  readonly client: () => Promise<Pick<AdminClient, 'plan'>>;
}

/** Without a report where the configuration cannot be used: the findings say why. */
export type Planned = Pick<PlanOutcome, 'findings'> & Partial<PlanOutcome>;

export interface PlanOptions {
  /** File to compare with; absent: the running process is asked. */
  readonly against?: string;
  /** 0 to 1. Exit code 3 above it. @default no limit */
  readonly maxMoved?: number;
  readonly json: boolean;
}

/** `haports plan`: what a configuration would do to the running one, or to that of a file. Changes nothing. */
export async function planCommand(deps: PlanDeps, file: string, options: PlanOptions): Promise<ExitCode> {
  const { against, maxMoved, json } = options;
  const outcome =
    against === undefined ? await askProcess(deps, file) : await comparedWith(deps, file, against);
  const { report } = outcome;
  if (json) deps.out(`${JSON.stringify(outcome, undefined, 2)}\n`);
  else {
    const limit = maxMoved === undefined ? {} : { maxMoved };
    deps.out(formatPlan(outcome, { file, live: against === undefined, ...limit }));
  }
  if (report === undefined) return EXIT.badInput;
  return maxMoved !== undefined && report.movedShare > maxMoved ? EXIT.gateExceeded : EXIT.fine;
}

async function askProcess({ readText, client }: PlanDeps, file: string): Promise<Planned> {
  const text = await readText(file).catch((cause: unknown) => {
    throw usageError(`Configuration file "${file}" cannot be read: ${errorMessage(cause)}`);
  });
  const live = await client();
  try {
    return await live.plan({ configuration: text });
  } catch (error) {
    // It cannot be used: that is an answer too.
    if (error instanceof AdminProblem && error.findings.length > 0) return { findings: error.findings };
    throw error;
  }
}

async function comparedWith({ load }: PlanDeps, file: string, against: string): Promise<Planned> {
  const before = await load(against);
  if (!before.ok) {
    throw usageError(
      `Cannot compare with "${against}": ${before.findings[0]?.message ?? 'it cannot be used'}`,
    );
  }
  const after = await load(file);
  if (!after.ok) return { findings: after.findings };
  const hash = await createHasher();
  const compiler = new ForwardingCompiler(hash);
  const compile = (configuration: Configuration): ForwardingState => compiler.compile(configuration, ALL_UP);
  const report = await planChange({
    before: compile(before.configuration),
    after: compile(after.configuration),
    flows: noFlows(),
    picker: createPicker(hash),
  });
  return { findings: after.findings, report };
}

// eslint-disable-next-line @typescript-eslint/require-await -- there are none
async function* noFlows(): AsyncGenerator<FlowRecord> {
  return;
}

const WIDTH = 80;
const LABEL_WIDTH = 12;
/** Backends listed of each kind; the rest is only counted. */
const BACKENDS_SHOWN = 20;

const COLUMNS: readonly TableColumn[] = [
  { title: 'RULE', importance: 1, minimum: 12 },
  { title: 'CHANGE' },
  { title: 'MOVED', align: 'right' },
  { title: 'STAY', align: 'right' },
  { title: 'MOVE', align: 'right' },
  { title: 'RESET', align: 'right' },
  { title: 'DROP', align: 'right' },
];

export interface PlanTextOptions {
  readonly file: string;
  /** A running process was asked: there are live flows to speak of. */
  readonly live: boolean;
  /** 0 to 1. */
  readonly maxMoved?: number;
}

/** A plan for people, within 80 columns as long as paths and names are of ordinary length. Ends with a newline. */
export function formatPlan({ report, findings }: Planned, options: PlanTextOptions): string {
  const told = formatFindings(options.file, findings satisfies readonly Finding[]).map(printable);
  const summary = summariseFindings(findings);
  if (report === undefined) return `${[...told, `${options.file} cannot be used: ${summary}`].join('\n')}\n`;
  const lines = [
    ...heading(report, options),
    '',
    ...formatTable(COLUMNS, report.rules.map(ruleRow), { width: WIDTH }),
    ...report.rules.flatMap(changeLines),
    '',
    ...moved(report, options),
    ...(options.live ? flowLines(report) : []),
    ...backendLines(report),
    ...probeLines(report),
    ...labelled('Listeners', listenerText(report)),
    ...restartLines(report),
    ...labelled('Findings', summary),
    ...told.map((line) => `  ${line}`),
    '',
    ...stepLines(report),
  ];
  return `${lines.join('\n')}\n`;
}

function heading({ fromDigest, toDigest, revision }: PlanReport, { live }: PlanTextOptions): string[] {
  const from = live
    ? `the running configuration (${fromDigest.slice(0, 12)}, revision ${revision})`
    : `configuration ${fromDigest.slice(0, 12)}`;
  const to = `${toDigest.slice(0, 12)}${fromDigest === toDigest ? ', the same' : ''}`;
  const assumption = live
    ? []
    : ['Every probe is taken for up, and no live flows are known: no process was asked'];
  return [`Plan from ${from}`, `       to ${to}`, ...assumption].flatMap((line) => wrapWords(line, WIDTH, 2));
}

function ruleRow({ name, change, movedShare, flows: { tcp, udp } }: PlannedRule): readonly string[] {
  return [
    name,
    change,
    formatShare(movedShare),
    ...(['stay', 'move', 'reset', 'drop'] as const).map((fate) => formatCount(tcp[fate] + udp[fate])),
  ];
}

function changeLines({ name, renamedFrom, changes }: PlannedRule): string[] {
  const renamed = renamedFrom === undefined ? [] : [`was "${renamedFrom}"`];
  const keys = changes.filter((key) => key !== 'name');
  const said = [...renamed, ...(keys.length === 0 ? [] : [`changes ${keys.join(', ')}`])];
  return said.length === 0 ? [] : wrapWords(printable(`  ${name}: ${said.join('; ')}`), WIDTH, 4);
}

function moved({ movedShare }: PlanReport, { maxMoved }: PlanTextOptions): string[] {
  const limit =
    maxMoved === undefined
      ? ''
      : movedShare > maxMoved
        ? `, more than the ${percent(maxMoved)} allowed`
        : `, within the ${percent(maxMoved)} allowed`;
  return labelled('Moved', `${percent(movedShare)} of a rule's hash space at most${limit}`);
}

function flowLines({ flows: { stay, move, reset, drop } }: PlanReport): string[] {
  const parts = [
    `${formatCount(stay)} stay`,
    `${formatCount(move)} move (UDP)`,
    `${formatCount(reset)} are reset`,
    `${formatCount(drop)} are dropped`,
  ];
  return labelled('Live flows', parts.join(', '));
}

function backendLines({ backends: { added, removed, changed } }: PlanReport): string[] {
  const listed = (sign: string, items: readonly { readonly text: string }[]): string[] => {
    const shown = items.slice(0, BACKENDS_SHOWN).map(({ text }) => `  ${sign} ${printable(text)}`);
    const more = items.length - shown.length;
    return more > 0 ? [...shown, `  ${sign} and ${formatCount(more)} more`] : shown;
  };
  const titled = ({ backendId, name }: { readonly backendId: string; readonly name: string }): string =>
    backendId.endsWith(`/${name}`) ? backendId : `${backendId} (${name})`;
  const total = `${formatCount(added.length)} added, ${formatCount(removed.length)} removed, ${formatCount(changed.length)} changed`;
  return [
    ...labelled('Backends', total),
    ...listed(
      '+',
      added.map((backend) => ({ text: titled(backend) })),
    ),
    ...listed(
      '-',
      removed.map((backend) => ({ text: titled(backend) })),
    ),
    ...listed(
      '~',
      changed.map((backend) => ({ text: `${titled(backend)}: ${backend.changes.join(', ')}` })),
    ),
  ].flatMap((line) => wrapWords(line, WIDTH, 6));
}

function probeLines({ probeStateLost }: PlanReport): string[] {
  if (probeStateLost.length === 0) return labelled('Probes', 'nothing that is known gets lost');
  const shown = probeStateLost
    .slice(0, BACKENDS_SHOWN)
    .map(({ backendId, probe }) => `  ${backendId} by "${probe}"`);
  const more = probeStateLost.length - shown.length;
  return [
    ...labelled('Probes', `what is known gets lost of ${plural(probeStateLost.length, 'backend')}`),
    ...shown,
    ...(more > 0 ? [`  and ${formatCount(more)} more`] : []),
  ];
}

function listenerText({ listeners: { kept, opened, closed } }: PlanReport): string {
  return `${formatCount(kept)} kept, ${formatCount(opened)} opened, ${formatCount(closed)} closed`;
}

function restartLines({ restartNeeded }: PlanReport): string[] {
  if (restartNeeded.length === 0) return [];
  return labelled('Restart', `only a new process takes over ${restartNeeded.join(', ')}: reload refuses it`);
}

function stepLines({ steps }: PlanReport): string[] {
  if (steps.length === 0) return ['Nothing would change'];
  return [
    'Steps',
    ...steps.flatMap((step, index) =>
      wrapWords(printable(`${String(index + 1).padStart(3)}. ${step}`), WIDTH, 5),
    ),
  ];
}

function labelled(label: string, text: string): string[] {
  return wrapWords(`${label.padEnd(LABEL_WIDTH)}${text}`, WIDTH, LABEL_WIDTH);
}

/** Finer than a table's: a gate may be. */
function percent(share: number): string {
  return `${Number((share * 100).toFixed(2))} %`;
}
