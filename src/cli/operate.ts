import { ROUTES, readFields, type Request } from '../api/contract.js';
import { drainEnd as drainEnds, type DrainStatus, type ReloadReport } from '../api/views.js';
import * as words from '../api/words.js';
import { formatFindings } from '../config/findings.js';
import { AdminProblem, clientFor, type LiveOptions } from './client.js';
import {
  addConnection,
  durationText,
  oneOf,
  numberOrText,
  parseBackendRef,
  share,
  type BackendRef,
  type CliCommand,
} from './command.js';
import {
  EXIT,
  interruptible,
  layoutOf,
  printAnswer,
  printJson,
  printJsonLine,
  printLines,
  readNamedFile,
  usageError,
  type CliDeps,
  type ExitCode,
  type Interrupt,
} from './deps.js';
import { formatFlows } from './flows.js';
import * as format from './format.js';

const BACKEND = ['<pool/backend>', 'name or address, as nvas/nva-1'] as const;

const WATCH_MS = 1000;

/** Lines that cannot be replaced are repeated this often, and when the phase changes. */
const LINE_MS = 10_000;

interface DrainOptions extends LiveOptions, Required<Omit<Request<'drain'>, keyof BackendRef>> {
  readonly watch: boolean;
  readonly cancel: boolean;
  /** Shows the drain that is under way instead of starting one. */
  readonly show: boolean;
}

export const drain: CliCommand = {
  name: 'drain',
  summary: 'give a backend no new flows, and let those that it has finish',
  examples: [
    'haports drain nvas/nva-1 --watch',
    'haports drain nvas/nva-1 --deadline 1h --then leave',
    'haports drain nvas/nva-1 --show --watch',
    'haports drain nvas/nva-1 --cancel',
  ],
  notes: `
From the next flow on the backend gets none. At the deadline, flows that are left end as their rule's flow policy for
drain-deadline says, spread over --spread so that clients do not all come back at once; or they stay (--then leave). The
backend gets no new flows until --cancel. Ctrl-C ends --watch, not the drain.`,
  exitCodes:
    '0 started, shown, cancelled, or with --watch done; 1 no process answers, too few backends would be left, there ' +
    'is nothing to show or cancel, or with --watch the drain was cancelled; 2 bad usage, or no such backend',
  define: (command, { deps, run }) =>
    addConnection(command, 'the drain as JSON; with --watch one line a second')
      .argument(...BACKEND)
      .option('--deadline <duration>', 'how long flows may take', durationText, '10m')
      .addOption(oneOf('--then <action>', 'what happens to the remaining flows', drainEnds.options, 'reset'))
      .option('--spread <duration>', 'time over which they are ended', durationText, '10s')
      .option('--force', 'even if too few backends of the pool are left', false)
      .option('--watch', 'show it live until it is done', false)
      .option('--show', 'show the drain that is under way, start none', false)
      .option('--cancel', 'end the drain: the backend gets new flows again', false)
      .action(run((name: string, options: DrainOptions) => drainBackend(deps, name, options))),
};

async function drainBackend(deps: CliDeps, name: string, options: DrainOptions): Promise<ExitCode> {
  const { deadline, then, spread, force, watch, cancel, show } = options;
  const backend = parseBackendRef(name);
  if (cancel && (watch || show)) throw usageError('Cannot combine --cancel with --watch or --show');
  const client = await clientFor(deps, options);
  if (cancel) {
    await client.cancelDrain(backend);
    printAnswer(deps, options, { backend: name, cancelled: true }, () => [
      `${name} gets new flows again; flows that were left stay`,
    ]);
    return EXIT.fine;
  }
  // Before the drain starts: Ctrl-C in between must not leave it open whether it did.
  const interrupt = interruptible(deps);
  try {
    const started = show
      ? await client.drainStatus(backend)
      : await client.drain({ ...backend, deadline, then, spread, force });
    if (watch) {
      const ask = () => client.drainStatus(backend, { signal: interrupt.signal });
      return await watchDrain(deps, { name, json: options.json, interrupt, ask }, started);
    }
    printAnswer(deps, options, started, formatDrain);
    return EXIT.fine;
  } finally {
    interrupt.release();
  }
}

interface Watching {
  readonly name: string;
  readonly json: boolean;
  readonly interrupt: Interrupt;
  readonly ask: () => Promise<DrainStatus>;
}

async function watchDrain(
  deps: CliDeps,
  { name, json, interrupt, ask }: Watching,
  first: DrainStatus,
): Promise<ExitCode> {
  const { signal } = interrupt;
  const show = json ? (status: DrainStatus) => printJsonLine(deps, status) : progress(deps);
  const say = (line: string): void => {
    if (!json) printLines(deps, [line]);
  };
  let status = first;
  for (;;) {
    show(status);
    if (status.phase === 'done') {
      say(drainEnd(status, deps.clock.wallMs()));
      return EXIT.fine;
    }
    await interrupt.pause(WATCH_MS);
    try {
      if (!signal.aborted) status = await ask();
    } catch (error) {
      if (error instanceof AdminProblem && error.code === 'LB_NOT_FOUND') {
        say(`${name} is no longer being drained: the drain was cancelled`);
        return EXIT.failed;
      }
      if (!signal.aborted) throw error;
    }
    if (signal.aborted) {
      say(`The drain continues; "haports drain ${name} --show --watch" shows it again, --cancel cancels it`);
      return EXIT.fine;
    }
  }
}

/** Shows a drain again and again: in place on a terminal, else now and then in one line. */
function progress(deps: CliDeps): (status: DrainStatus) => void {
  if (deps.terminal.isInteractive) {
    let height = 0;
    return (status) => {
      const lines = formatDrain(status, layoutOf(deps)).slice(0, Math.max(1, deps.terminal.size().rows - 2));
      const up = height === 0 ? '' : `\u001b[${height}A`;
      deps.out(`${up}\r\u001b[J${lines.join('\n')}\n`);
      height = lines.length;
    };
  }
  let shown: { readonly phase: string; readonly atMs: number } | undefined;
  return (status) => {
    const atMs = deps.clock.monotonicMs();
    if (shown?.phase === status.phase && atMs - shown.atMs < LINE_MS) return;
    shown = { phase: status.phase, atMs };
    if (status.phase !== 'done') printLines(deps, [words.drainSummary(status, deps.clock.wallMs())]);
  };
}

/** A drain as it stands, for people: what is left, until when, and which flows take longest. */
export function formatDrain(status: DrainStatus, { nowMs, width }: format.Layout): readonly string[] {
  const facts = Object.entries(words.drainFacts(status, nowMs));
  const lines = [
    ...format.wrapWords(format.printable(words.drainSummary(status, nowMs)), 13, width),
    ...format.labelled(Object.fromEntries(facts.map(([label, text]) => [`  ${label}`, text])), 13, width),
  ];
  if (status.longest.length === 0) return lines;
  const names = new Map([[status.backendId, `${status.pool}/${status.backendName}`]]);
  const table = formatFlows(status.longest, { nowMs, width: width - 2, names });
  return [...lines, '  longest', ...table.map((line) => `  ${line}`)];
}

function drainEnd(status: DrainStatus, nowMs: number): string {
  const name = `${status.pool}/${status.backendName}`;
  return `${words.drainSummary(status, nowMs)}, after ${words.span(nowMs - status.startedAtMs)}; ${name} gets no new flows until --cancel`;
}

type AdminStateChange = Pick<Request<'setAdminState'>, 'adminState'>;

type WeightChange = Pick<Request<'setWeight'>, 'weight'>;

const MEANING = {
  none: 'follows its probe',
  up: 'gets new flows regardless of its probe',
  down: 'gets no new flows regardless of its probe',
  configured: 'is as configured',
} as const;

/** The operator's switch on a backend, over its probe. */
export const adminState: CliCommand = {
  name: 'admin-state',
  summary: "set the operator's switch on a backend, over its probe",
  examples: ['haports admin-state nvas/nva-1 down', 'haports admin-state nvas/nva-1 configured'],
  notes: `
none follows the probe, up and down override it, configured is what the configuration says. Existing flows of a backend
that goes down meet their rule's flow policy for admin-down; "haports drain" lets them finish.`,
  exitCodes: '0 every data worker has it; 1 no process answers; 2 bad usage, or no such backend',
  define: (command, { deps, run }) =>
    addConnection(command, 'what was set as JSON')
      .argument(...BACKEND)
      .argument('<state>', 'none, up, down or configured')
      .action(
        run(async (name: string, text: string, options: LiveOptions) => {
          const backend = parseBackendRef(name);
          const { adminState } = readFields(ROUTES.setAdminState.keys, {
            adminState: text,
          }) as AdminStateChange;
          await (await clientFor(deps, options)).setAdminState({ ...backend, adminState });
          printAnswer(deps, options, { backend: name, adminState }, () => [
            `${name} ${MEANING[adminState]}, from the next flow on`,
          ]);
        }),
      ),
};

export const weight: CliCommand = {
  name: 'weight',
  summary: "set a backend's share of new flows",
  examples: ['haports weight nvas/nva-1 10', 'haports weight nvas/nva-1 configured'],
  notes: `
Weight 0 gives no new flows. The weight stays, over reloads too, until it is set to configured.`,
  exitCodes: '0 every data worker has it; 1 no process answers; 2 bad usage, or no such backend',
  define: (command, { deps, run }) =>
    addConnection(command, 'what was set as JSON')
      .argument(...BACKEND)
      .argument('<weight>', '0 to 256, or configured')
      .action(
        run(async (name: string, text: string, options: LiveOptions) => {
          const backend = parseBackendRef(name);
          const { weight } = readFields(ROUTES.setWeight.keys, {
            weight: numberOrText(text),
          }) as WeightChange;
          await (await clientFor(deps, options)).setWeight({ ...backend, weight });
          const zero = weight === 0 ? ': it gets no new flows' : '';
          printAnswer(deps, options, { backend: name, weight }, () => [
            `${name} has weight ${weight === 'configured' ? 'as configured' : weight}${zero}, from the next flow on`,
          ]);
        }),
      ),
};

interface ReloadOptions extends LiveOptions {
  /** 0 to 1. */
  readonly maxMoved?: number;
}

export const reload: CliCommand = {
  name: 'reload',
  summary: 'have the running process apply a configuration, whole or not at all',
  examples: ['haports reload', 'haports reload -c new.json --max-moved 2%'],
  notes: `
The text of the file is sent; files that it names are read by the process. "haports plan" shows first what would move.
Whenever the exit code is not 0, nothing has changed.`,
  exitCodes:
    '0 applied; 1 not applied: no process answers, a restart is needed, another reload is under way; 2 the ' +
    'configuration cannot be used, or bad usage; 3 more would move than --max-moved',
  define: (command, { deps, run }) =>
    addConnection(command, 'the report as JSON', 'configuration file to apply; its admin.socket says where')
      .option('--max-moved <share>', 'refuse to move more of the hash space of a rule, as 2%', share)
      .action(run((options: ReloadOptions) => reloadProcess(deps, options))),
};

async function reloadProcess(deps: CliDeps, options: ReloadOptions): Promise<void> {
  const { config, json, maxMoved } = options;
  const configuration = await readNamedFile(deps, config, 'Configuration file');
  const client = await clientFor(deps, options);
  try {
    printAnswer(deps, options, await client.reload({ configuration, maxMoved }), (outcome, layout) => [
      ...formatFindings(
        config,
        outcome.findings.filter(({ severity }) => severity !== 'note'),
      ),
      ...formatReload(outcome.report, layout),
    ]);
  } catch (error) {
    if (!(error instanceof AdminProblem)) throw error;
    const { code, message, findings } = error;
    const errors = findings.filter(({ severity }) => severity === 'error');
    if (json) printJson(deps, { code, message, findings });
    else if (errors.length > 0) deps.err(`${formatFindings(config, errors).join('\n')}\n`);
    // The findings do not say that nothing has changed; the error does.
    throw error;
  }
}

/** What a reload kept and what it cost, for people. */
function formatReload(
  { durationMs, revision, digest, kept, lost, plan }: ReloadReport,
  { width }: format.Layout,
): readonly string[] {
  const { plural } = words;
  const { stay, move, reset, drop } = plan.flows;
  const { added, removed, changed } = plan.backends;
  const names = (list: readonly Readonly<Record<'pool' | 'name', string>>[]): string | false =>
    list.length > 0 && list.map(({ pool, name }) => `${pool}/${name}`).join(', ');
  const counts = ({ flows, listeners, probeTargets }: Omit<ReloadReport['lost'], 'overrides'>): string =>
    `${plural(flows, 'flow')}, ${plural(listeners, 'listener')}, ${plural(probeTargets, 'probe target')}`;
  const fates = words.counts({ stay, move, reset, dropped: drop });
  const overrides = lost.overrides.length === 0 ? '' : ` (${lost.overrides.join(', ')})`;
  const rules = plan.rules.filter(({ change }) => change !== 'same');
  const rows = {
    '  moved': `${words.share(plan.movedShare)} of the hash space at most; flows: ${fates}`,
    '  kept': `${counts(kept)}, ${plural(kept.adminStates, 'operator setting')}, ${plural(kept.drains, 'drain')}`,
    '  lost': `${counts(lost)}, ${plural(lost.overrides.length, 'operator setting')}${overrides}`,
    '  rule': rules.map(({ name, change, changes, renamedFrom }) => {
      const was = renamedFrom === undefined ? '' : `, was "${renamedFrom}"`;
      return `"${name}" ${change}${was}${changes.length === 0 ? '' : `: ${changes.join(', ')}`}`;
    }),
    '  added': names(added),
    '  removed': names(removed),
    '  changed': names(
      changed.map(({ name, changes, ...one }) => ({ ...one, name: `${name} (${changes.join(', ')})` })),
    ),
  };
  return [
    `Reloaded in ${words.span(durationMs)}: revision ${revision}, digest ${digest.slice(0, 12)}`,
    ...format.labelled(rows, 12, width),
  ];
}

interface UpgradeOptions extends LiveOptions {
  /** A duration with a unit. */
  readonly deadline?: string;
}

export const upgrade: CliCommand = {
  name: 'upgrade',
  summary: 'have the version that is installed now take over from the running process',
  examples: ['haports upgrade', 'haports upgrade --deadline 1h'],
  notes: `
The running process starts its successor from the files that are installed now, hands over its listening sockets and UDP
flows, and then lets its TCP flows finish until shutdown.deadline or --deadline. If the new process is not ready within
30 s (a broken configuration, for one), the old one continues as before. SIGUSR2 does the same.`,
  exitCodes:
    '0 the new process serves; 1 it does not, and the old one continues as before: no process answers, the new one ' +
    'does not start, another upgrade is under way, a data worker has just died; 2 bad usage',
  define: (command, { deps, run }) =>
    addConnection(command, 'the outcome as JSON')
      .option('--deadline <duration>', 'how long TCP flows of the old process may take', durationText)
      .action(
        run(async (options: UpgradeOptions) => {
          const outcome = await (await clientFor(deps, options)).upgrade({ deadline: options.deadline });
          printAnswer(
            deps,
            options,
            outcome,
            ({ pid, version, sockets, udpFlows, durationMs, udpPauseMs }) => [
              `Upgraded to haports ${version} in ${Math.round(durationMs)} ms; pid ${pid} took over ${sockets} listening sockets and ${udpFlows} UDP flows`,
              `UDP paused for ${Math.round(udpPauseMs)} ms; the old process lets its TCP flows finish`,
            ],
          );
        }),
      ),
};
