import type { PlannedRule, PlanOutcome, PlanReport } from '../api/views.js';
import * as words from '../api/words.js';
import { formatFindings, summariseFindings } from '../config/findings.js';
import type { Configuration } from '../model/configuration.js';
import type { FlowRecord } from '../model/flow.js';
import { planChange } from '../whatif/plan.js';
import { AdminProblem, clientFor, type LiveOptions } from './client.js';
import { addConnection, share, type CliCommand } from './command.js';
import {
  ALL_UP,
  EXIT,
  offlineSelection,
  printAnswer,
  readNamedFile,
  usageError,
  type CliDeps,
  type ExitCode,
} from './deps.js';
import * as format from './format.js';

/** Without a report where the configuration cannot be used: the findings say why. */
type Planned = Pick<PlanOutcome, 'findings'> & Partial<PlanOutcome>;

interface PlanOptions extends LiveOptions {
  /** File to compare with; absent: the running process is asked. */
  readonly against?: string;
  /** 0 to 1. Exit code 3 above it. @default no limit */
  readonly maxMoved?: number;
}

/** What a configuration would do to the running one, or to that of a file. Changes nothing. */
export const plan: CliCommand = {
  name: 'plan',
  summary: 'preview what a configuration would do to the running process',
  examples: [
    'haports plan new.json',
    'haports plan new.json --max-moved 2%',
    'haports plan new.json --against config.json',
  ],
  notes: `
Shows per rule the share of the hash space that moves, live flows that stay, move or end, backends whose health history
is discarded, listeners, and the steps in their order: additions come before removals.`,
  exitCodes:
    '0 planned; 1 no process answers; 2 the configuration cannot be used (the findings say why), or bad usage; ' +
    '3 more would move than --max-moved',
  define: (command, { deps, run }) =>
    addConnection(command, 'the plan as JSON')
      .argument('<file>', 'the new configuration')
      .option('--against <file>', 'compare with this configuration instead, without a running process')
      .option('--max-moved <share>', 'exit with 3 if more of the hash space of a rule moves, as 2%', share)
      .action(run((file: string, options: PlanOptions) => showPlan(deps, file, options))),
};

async function showPlan(deps: CliDeps, file: string, options: PlanOptions): Promise<ExitCode> {
  const { against, maxMoved } = options;
  const live = against === undefined;
  const outcome = live ? await askProcess(deps, file, options) : await comparedWith(deps, file, against);
  printAnswer(deps, options, outcome, () => formatPlan(outcome, { file, live, maxMoved }));
  if (outcome.report === undefined) return EXIT.badInput;
  return maxMoved !== undefined && outcome.report.movedShare > maxMoved ? EXIT.gateExceeded : EXIT.fine;
}

async function askProcess(deps: CliDeps, file: string, options: PlanOptions): Promise<Planned> {
  const configuration = await readNamedFile(deps, file, 'Configuration file');
  const client = await clientFor(deps, options);
  try {
    return await client.plan({ configuration });
  } catch (error) {
    // A configuration that cannot be used is an answer too.
    if (error instanceof AdminProblem && error.findings.length > 0) return { findings: error.findings };
    throw error;
  }
}

async function comparedWith({ load }: CliDeps, file: string, against: string): Promise<Planned> {
  const before = await load(against);
  if (!before.ok) {
    throw usageError(
      `Cannot compare with "${against}": ${before.findings[0]?.message ?? 'it cannot be used'}`,
    );
  }
  const after = await load(file);
  if (!after.ok) return { findings: after.findings };
  const { compiler, picker } = await offlineSelection();
  const compile = (configuration: Configuration) => compiler.compile(configuration, ALL_UP);
  const report = await planChange({
    before: compile(before.configuration),
    after: compile(after.configuration),
    flows: noFlows(),
    picker,
  });
  return { findings: after.findings, report };
}

// eslint-disable-next-line @typescript-eslint/require-await -- there are none
export async function* noFlows(): AsyncGenerator<FlowRecord> {
  return;
}

/** Backends listed of each kind; the rest is only counted. */
const BACKENDS_SHOWN = 20;

const COLUMNS: readonly format.TableColumn<PlannedRule>[] = [
  format.left('RULE', ({ name }) => name, { importance: 1, minimum: 12 }),
  format.left('CHANGE', ({ change }) => change),
  format.right('MOVED', ({ movedShare }) => words.share(movedShare)),
  ...(['stay', 'move', 'reset', 'drop'] as const).map((fate) =>
    format.right<PlannedRule>(fate.toUpperCase(), ({ flows: { tcp, udp } }) =>
      words.count(tcp[fate] + udp[fate]),
    ),
  ),
];

interface PlanTextOptions {
  readonly file: string;
  /** A running process was asked: there are live flows to report on. */
  readonly live: boolean;
  /** 0 to 1. */
  readonly maxMoved?: number;
}

/** A plan for people, within 80 columns as long as paths and names are of ordinary length. */
export function formatPlan({ report, findings }: Planned, options: PlanTextOptions): readonly string[] {
  const { file, live } = options;
  const lines = formatFindings(file, findings).map(format.printable);
  const summary = summariseFindings(findings);
  if (report === undefined) return [...lines, `${file} cannot be used: ${summary}`];
  const { listeners, restartNeeded, rules, steps, flows } = report;
  const { backends, probeStateLost } = report;
  const { kept, opened, closed } = listeners;
  const row = (rows: Readonly<Record<string, words.Texts>>) => format.labelled(rows, 12);
  return [
    ...heading(report, options),
    '',
    ...format.table(COLUMNS, rules),
    ...rules.flatMap(changeLines),
    '',
    ...row({
      Moved: movedText(report, options),
      'Live flows':
        live &&
        words.counts({
          stay: flows.stay,
          'move (UDP)': flows.move,
          'are reset': flows.reset,
          'are dropped': flows.drop,
        }),
      Backends: words.counts({
        added: backends.added.length,
        removed: backends.removed.length,
        changed: backends.changed.length,
      }),
    }),
    ...backendLines(report),
    ...row({
      Probes:
        probeStateLost.length === 0
          ? 'no health history is discarded'
          : `health history is discarded for ${words.plural(probeStateLost.length, 'backend')}`,
    }),
    ...format.shortList(
      probeStateLost.map(({ backendId, probe }) => `${backendId} by "${probe}"`),
      BACKENDS_SHOWN,
    ),
    ...row({
      Listeners: words.counts({ kept, opened, closed }),
      Restart:
        restartNeeded.length > 0 &&
        `reload refuses ${restartNeeded.join(', ')}: only a new process applies it`,
      Findings: summary,
    }),
    ...lines.map((line) => `  ${line}`),
    '',
    steps.length === 0 ? 'Nothing would change' : 'Steps',
    ...format.labelled(
      Object.fromEntries(steps.map((step, index) => [`${String(index + 1).padStart(3)}.`, step])),
      5,
    ),
  ];
}

function heading({ fromDigest, toDigest, revision }: PlanReport, { live }: PlanTextOptions): string[] {
  const from = fromDigest.slice(0, 12);
  return [
    `Plan from ${live ? `the running configuration (${from}, revision ${revision})` : `configuration ${from}`}`,
    `       to ${toDigest.slice(0, 12)}${fromDigest === toDigest ? ', the same' : ''}`,
    ...(live ? [] : ['Every probe is assumed up, and no live flows are known: no process was asked']),
  ].flatMap((line) => format.wrapWords(line, 2));
}

function changeLines({ name, renamedFrom, changes }: PlannedRule): string[] {
  const keys = changes.filter((key) => key !== 'name');
  const said = words.listed(
    [renamedFrom !== undefined && `was "${renamedFrom}"`, keys.length > 0 && `changes ${keys.join(', ')}`],
    '; ',
  );
  return said === '' ? [] : format.wrapWords(format.printable(`  ${name}: ${said}`), 4);
}

function movedText({ movedShare }: PlanReport, { maxMoved }: PlanTextOptions): string {
  const text = `${percent(movedShare)} of a rule's hash space at most`;
  if (maxMoved === undefined) return text;
  return `${text}, ${movedShare > maxMoved ? 'more than' : 'within'} the ${percent(maxMoved)} allowed`;
}

function backendLines({ backends: { added, removed, changed } }: PlanReport): string[] {
  const titled = ({ backendId, name }: { readonly backendId: string; readonly name: string }): string =>
    backendId.endsWith(`/${name}`) ? backendId : `${backendId} (${name})`;
  const changes = changed.map((backend) => `${titled(backend)}: ${backend.changes.join(', ')}`);
  return [
    ...format.shortList(added.map(titled), BACKENDS_SHOWN, '  + '),
    ...format.shortList(removed.map(titled), BACKENDS_SHOWN, '  - '),
    ...format.shortList(changes, BACKENDS_SHOWN, '  ~ '),
  ].flatMap((line) => format.wrapWords(line, 6));
}

/** Finer than a table's: a gate may be. */
function percent(moved: number): string {
  return `${Number((moved * 100).toFixed(2))} %`;
}
