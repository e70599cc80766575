import type { Request } from '../api/contract.js';
import { formatFindings } from '../config/findings.js';
import { errorMessage } from '../model/errors.js';
import type { DrainStatus, ReloadReport } from '../api/views.js';
import {
  type AdminClient,
  AdminProblem,
  clientFor,
  type LiveOptions,
  printJson,
  printJsonLine,
  printLines,
} from './client.js';
import {
  EXIT,
  interruptible,
  parseAdminState,
  parseBackendRef,
  parseWeight,
  usageError,
  type BackendRef,
  type CliDeps,
  type ExitCode,
  type Interrupt,
} from './deps.js';
import { formatFlows } from './flows.js';
import { formatAgo, formatCount, formatShare, formatSpan, plural, printable, wrapWords } from './output.js';

const WATCH_MS = 1000;

/** Where lines cannot be replaced, they are worth a look this often, or when the phase changes. */
const LINE_MS = 10_000;

export interface DrainOptions extends LiveOptions, Required<Omit<Request<'drain'>, keyof BackendRef>> {
  readonly watch: boolean;
  readonly cancel: boolean;
  /** Shows the drain that is under way instead of starting one. */
  readonly show: boolean;
}

/** `haports drain`: no new flows for a backend, and what becomes of those that it has. */
export async function drainCommand(deps: CliDeps, name: string, options: DrainOptions): Promise<ExitCode> {
  const backend = parseBackendRef(name);
  if (options.cancel && (options.watch || options.show)) {
    throw usageError('Cannot combine --cancel with --watch or --show');
  }
  const client = await clientFor(deps, options);
  if (options.cancel) {
    await client.cancelDrain(backend);
    if (options.json) printJson(deps, { backend: name, cancelled: true });
    else printLines(deps, [`${name} gets new flows again; flows that were left stay`]);
    return EXIT.fine;
  }
  // Before the drain starts: Ctrl-C in between must not leave anybody in doubt whether it did.
  const interrupt = interruptible(deps);
  try {
    const { deadline, then, spread, force } = options;
    const drain = options.show
      ? await client.drainStatus(backend)
      : await client.drain({ ...backend, deadline, then, spread, force });
    if (options.watch) return await watchDrain({ deps, client, name, backend, interrupt }, drain, options);
    if (options.json) printJson(deps, drain);
    else printLines(deps, formatDrain(drain, placing(deps)));
    return EXIT.fine;
  } finally {
    interrupt.release();
  }
}

interface Watching {
  readonly deps: CliDeps;
  readonly client: AdminClient;
  readonly name: string;
  readonly backend: BackendRef;
  readonly interrupt: Interrupt;
}

async function watchDrain(watching: Watching, first: DrainStatus, { json }: LiveOptions): Promise<ExitCode> {
  const { deps, client, name, backend, interrupt } = watching;
  const shown = progress(deps, json);
  let drain = first;
  for (;;) {
    shown.update(drain);
    if (drain.phase === 'done') {
      if (!json) printLines(deps, [drainEnd(drain, deps.clock.wallMs())]);
      return EXIT.fine;
    }
    await interrupt.pause(WATCH_MS);
    try {
      if (!interrupt.signal.aborted) drain = await client.drainStatus(backend, { signal: interrupt.signal });
    } catch (error) {
      if (error instanceof AdminProblem && error.code === 'LB_NOT_FOUND') {
        if (!json) printLines(deps, [`${name} is not being drained any more: somebody cancelled it`]);
        return EXIT.failed;
      }
      if (!interrupt.signal.aborted) throw error;
    }
    if (interrupt.signal.aborted) {
      if (!json) {
        printLines(deps, [
          `The drain goes on; "haports drain ${name} --show --watch" shows it again, --cancel ends it`,
        ]);
      }
      return EXIT.fine;
    }
  }
}

/** Shows a drain again and again: in place on a terminal, else now and then in one line. */
function progress(deps: CliDeps, json: boolean): { update(drain: DrainStatus): void } {
  if (json) return { update: (drain) => printJsonLine(deps, drain) };
  if (deps.terminal.isInteractive) {
    let height = 0;
    return {
      update(drain) {
        const lines = formatDrain(drain, placing(deps)).slice(0, Math.max(1, deps.terminal.size().rows - 2));
        const up = height === 0 ? '' : `\u001b[${height}A`;
        deps.out(`${up}\r\u001b[J${lines.join('\n')}\n`);
        height = lines.length;
      },
    };
  }
  let told: { readonly phase: string; readonly atMs: number } | undefined;
  return {
    update(drain) {
      const atMs = deps.clock.monotonicMs();
      if (told?.phase === drain.phase && atMs - told.atMs < LINE_MS) return;
      told = { phase: drain.phase, atMs };
      if (drain.phase !== 'done') printLines(deps, [drainSummary(drain, deps.clock.wallMs())]);
    },
  };
}

function placing(deps: CliDeps): { readonly nowMs: number; readonly width: number } {
  return { nowMs: deps.clock.wallMs(), width: deps.terminal.size().columns };
}

/** Flows that are left. */
export function flowsLeft({ flows }: DrainStatus): number {
  return flows.tcp + flows.udp;
}

/** A drain in one line: `nvas/nva-1 draining: 12 flows left of 300, ...`. */
export function drainSummary(drain: DrainStatus, nowMs: number): string {
  const name = `${drain.pool}/${drain.backendName}`;
  const left = flowsLeft(drain);
  if (drain.phase === 'done') {
    return left === 0
      ? `${name} drained: no flow is left`
      : `${name} drained: ${plural(left, 'flow')} left alone`;
  }
  const what = drain.phase === 'ending' ? 'ending flows' : 'draining';
  return `${name} ${what}: ${plural(left, 'flow')} left of ${drain.flowsAtStart}, ${deadlineText(drain, nowMs)}`;
}

/** A drain as it stands, for people: what is left, until when, and which flows take longest. */
export function formatDrain(
  drain: DrainStatus,
  options: { readonly nowMs: number; readonly width: number },
): readonly string[] {
  const { nowMs, width } = options;
  const { tcp, udp } = drain.flows;
  const lines = [
    drainSummary(drain, nowMs),
    `  flows      ${tcp} TCP, ${udp} UDP; ${drain.flowsAtStart} at the start, ${formatAgo(drain.startedAtMs, nowMs)}`,
    `  finish     ${forecastText(drain, nowMs)}`,
    `  deadline   ${drain.deadlineAtMs > nowMs ? `in ${formatSpan(drain.deadlineAtMs - nowMs)}; then` : 'passed;'} ${thenText(drain)}`,
    `  last new   ${formatAgo(drain.lastNewFlowAtMs, nowMs)}`,
  ].flatMap((line) => wrapWords(printable(line), width, 13));
  if (drain.longest.length === 0) return lines;
  const names = new Map([[drain.backendId, `${drain.pool}/${drain.backendName}`]]);
  const table = formatFlows(drain.longest, { nowMs, width: width - 2, names });
  return [...lines, '  longest', ...table.map((line) => `  ${line}`)];
}

/** The last words on a drain that is done. */
export function drainEnd(drain: DrainStatus, nowMs: number): string {
  return `${drainSummary(drain, nowMs)}, after ${formatSpan(nowMs - drain.startedAtMs)}; ${drain.pool}/${drain.backendName} gets no new flows until --cancel`;
}

function forecastText(
  { predictedFinishAtMs, phase, deadlineAtMs, then }: DrainStatus,
  nowMs: number,
): string {
  if (phase === 'ending') return 'flows are being ended now';
  if (predictedFinishAtMs === undefined) return 'nothing to go by yet: no flow has finished so far';
  const by = `in about ${formatSpan(predictedFinishAtMs - nowMs)} by themselves`;
  if (predictedFinishAtMs <= deadlineAtMs) return by;
  return then === 'reset'
    ? `${by}, which is past the deadline: some will be ended`
    : `${by}, past the deadline`;
}

function deadlineText({ deadlineAtMs }: DrainStatus, nowMs: number): string {
  return deadlineAtMs > nowMs ? `deadline in ${formatSpan(deadlineAtMs - nowMs)}` : 'past its deadline';
}

function thenText({ then, spreadMs }: DrainStatus): string {
  if (then === 'leave') return 'flows that are left stay';
  return `flows that are left end as their rule says, over ${formatSpan(spreadMs)}`;
}

const MEANING = {
  none: 'follows its probe',
  up: 'gets new flows whatever its probe says',
  down: 'gets no new flows whatever its probe says',
  configured: 'is as the configuration says',
} as const;

/** `haports admin-state`: the operator's switch on a backend, over its probe. */
export async function adminStateCommand(
  deps: CliDeps,
  name: string,
  stateText: string,
  options: LiveOptions,
): Promise<ExitCode> {
  const backend = parseBackendRef(name);
  const adminState = parseAdminState(stateText);
  await (await clientFor(deps, options)).setAdminState({ ...backend, adminState });
  if (options.json) printJson(deps, { backend: name, adminState });
  else printLines(deps, [`${name} ${MEANING[adminState]}, from the next flow on`]);
  return EXIT.fine;
}

/** `haports weight`: a backend's share of new flows. */
export async function weightCommand(
  deps: CliDeps,
  name: string,
  weightText: string,
  options: LiveOptions,
): Promise<ExitCode> {
  const backend = parseBackendRef(name);
  const weight = parseWeight(weightText);
  await (await clientFor(deps, options)).setWeight({ ...backend, weight });
  const zero = weight === 0 ? ': it gets no new flows' : '';
  if (options.json) printJson(deps, { backend: name, weight });
  else
    printLines(deps, [
      `${name} has weight ${weight === 'configured' ? 'as configured' : weight}${zero}, from the next flow on`,
    ]);
  return EXIT.fine;
}

export interface ReloadOptions extends LiveOptions {
  /** 0 to 1. */
  readonly maxMoved?: number;
}

/** `haports reload`: sends the text of a configuration to the running process, which takes it over whole or not at all. */
export async function reloadCommand(deps: CliDeps, options: ReloadOptions): Promise<ExitCode> {
  const { config, json, maxMoved } = options;
  const text = await deps.readText(config).catch((error: unknown) => {
    throw usageError(`Configuration file "${config}" cannot be read: ${errorMessage(error)}`);
  });
  const client = await clientFor(deps, options);
  try {
    const outcome = await client.reload({ configuration: text, maxMoved });
    if (json) {
      printJson(deps, outcome);
      return EXIT.fine;
    }
    printLines(deps, [
      ...formatFindings(
        config,
        outcome.findings.filter(({ severity }) => severity !== 'note'),
      ),
      ...formatReload(outcome.report, { width: deps.terminal.size().columns }),
    ]);
    return EXIT.fine;
  } catch (error) {
    if (!(error instanceof AdminProblem)) throw error;
    if (json) printJson(deps, { code: error.code, message: error.message, findings: error.findings });
    const errors = error.findings.filter(({ severity }) => severity === 'error');
    if (errors.length > 0 && !json) deps.err(`${formatFindings(config, errors).join('\n')}\n`);
    // Findings, or the JSON, have said it all but that nothing has changed.
    throw error;
  }
}

/** What a reload kept and what it cost, for people. */
export function formatReload(report: ReloadReport, { width }: { readonly width: number }): readonly string[] {
  const { kept, lost, plan } = report;
  const { added, removed, changed } = plan.backends;
  const names = (list: readonly { readonly pool: string; readonly name: string }[]): string =>
    list.map(({ pool, name }) => `${pool}/${name}`).join(', ');
  const rules = plan.rules.filter(({ change }) => change !== 'same');
  const lines = [
    `Reloaded in ${formatSpan(report.durationMs)}: revision ${report.revision}, digest ${report.digest.slice(0, 12)}`,
    `  moved     ${formatShare(plan.movedShare)} of the hash space at most; flows: ${fates(plan.flows)}`,
    `  kept      ${plural(kept.flows, 'flow')}, ${plural(kept.listeners, 'listener')}, ${plural(kept.probeTargets, 'probe target')}, ` +
      `${plural(kept.adminStates, 'operator setting')}, ${plural(kept.drains, 'drain')}`,
    `  lost      ${plural(lost.flows, 'flow')}, ${plural(lost.listeners, 'listener')}, ${plural(lost.probeTargets, 'probe target')}, ` +
      `${plural(lost.overrides.length, 'operator setting')}${lost.overrides.length === 0 ? '' : ` (${lost.overrides.join(', ')})`}`,
    ...rules.map(
      ({ name, change, changes, renamedFrom }) =>
        `  rule      "${name}" ${change}${renamedFrom === undefined ? '' : `, was "${renamedFrom}"`}${changes.length === 0 ? '' : `: ${changes.join(', ')}`}`,
    ),
    ...(added.length === 0 ? [] : [`  added     ${names(added)}`]),
    ...(removed.length === 0 ? [] : [`  removed   ${names(removed)}`]),
    ...(changed.length === 0
      ? []
      : [
          `  changed   ${changed.map(({ pool, name, changes }) => `${pool}/${name} (${changes.join(', ')})`).join(', ')}`,
        ]),
  ];
  return lines.flatMap((line) => wrapWords(printable(line), width, 12));
}

function fates({ stay, move, reset, drop }: ReloadReport['plan']['flows']): string {
  return `${formatCount(stay)} stay, ${formatCount(move)} move, ${formatCount(reset)} reset, ${formatCount(drop)} dropped`;
}

export interface UpgradeOptions extends LiveOptions {
  /** A duration with a unit. */
  readonly deadline?: string;
}

/** `haports upgrade`: the version that is installed now takes the place of the running process. */
export async function upgradeCommand(deps: CliDeps, options: UpgradeOptions): Promise<ExitCode> {
  const { deadline, json } = options;
  const client = await clientFor(deps, options);
  const outcome = await client.upgrade({ deadline });
  if (json) {
    printJson(deps, outcome);
    return EXIT.fine;
  }
  const { pid, version, sockets, udpFlows, durationMs, udpPauseMs } = outcome;
  printLines(deps, [
    `haports ${version} serves as process ${pid}, after ${Math.round(durationMs)} ms`,
    `${sockets} listening sockets and ${udpFlows} UDP flows went over; UDP waited ${Math.round(udpPauseMs)} ms`,
    'The old process lets its TCP flows finish',
  ]);
  return EXIT.fine;
}
