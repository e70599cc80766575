import type { PlannedBackend, PlanReport } from '../model/plan-report.js';

/** Names listed in one sentence. */
const NAMES_SHOWN = 10;

/**
 * What a reload will do, as sentences in order: everything that is added comes before anything that is removed, so that
 * no moment has fewer backends or listeners than it needs. Empty: nothing changes.
 */
export function planSteps(report: Omit<PlanReport, 'steps'>): readonly string[] {
  const { backends, flows, listeners, probeStateLost, restartNeeded } = report;
  return [
    ...(restartNeeded.length === 0
      ? []
      : [`Start a new process: a reload cannot take over ${list(restartNeeded.map((key) => `"${key}"`))}`]),
    ...byPool(backends.added, (pool, names) =>
      names.length === 1
        ? `Probe new backend ${list(names)} of pool "${pool}" until its first verdict (1 s at most)`
        : `Probe new backends ${list(names)} of pool "${pool}" until their first verdicts (1 s at most)`,
    ),
    ...byProbe(probeStateLost).map(
      ([probe, ids]) => `Probe ${list(ids)} anew with "${probe}" until the first verdict (1 s at most)`,
    ),
    ...(listeners.opened === 0 ? [] : [`Open ${count(listeners.opened, 'listener')}`]),
    ...report.rules.filter(({ change }) => change === 'added').map(({ name }) => `Begin with rule "${name}"`),
    ...report.rules.flatMap(changedRule),
    ...byPool(
      backends.changed,
      (pool, names) => `Take over what changed of ${list(names)} of pool "${pool}"`,
    ),
    ...(flows.move === 0 ? [] : [`Move ${count(flows.move, 'UDP flow')}, each with its next datagram`]),
    ...(flows.reset === 0 ? [] : [`Reset ${count(flows.reset, 'flow')}`]),
    ...(flows.drop === 0 ? [] : [`Drop ${count(flows.drop, 'flow')} without a word`]),
    ...report.rules.filter(({ change }) => change === 'removed').map(({ name }) => `End rule "${name}"`),
    ...(listeners.closed === 0 ? [] : [`Close ${count(listeners.closed, 'listener')}`]),
    ...byPool(backends.removed, (pool, names) => `Let go of ${list(names)} of pool "${pool}"`),
  ];
}

function changedRule({
  name,
  change,
  changes,
  movedShare,
  renamedFrom,
}: PlanReport['rules'][number]): string[] {
  if (change !== 'changed' && movedShare === 0) return [];
  if (change === 'added' || change === 'removed') return [];
  const others = changes.filter((key) => key !== 'name');
  return [
    ...(renamedFrom === undefined ? [] : [`Go on with rule "${renamedFrom}" as "${name}", flows and all`]),
    ...(others.length === 0 ? [] : [`Change ${list(others)} of rule "${name}"`]),
    ...(movedShare === 0
      ? []
      : [`Give rule "${name}" its new table: ${percent(movedShare)} of its hash space changes hands`]),
  ];
}

function byPool(
  backends: readonly PlannedBackend[],
  sentence: (pool: string, names: readonly string[]) => string,
): string[] {
  const pools = new Map<string, string[]>();
  for (const { pool, name } of backends) {
    const names = pools.get(pool) ?? [];
    pools.set(pool, names);
    names.push(name);
  }
  return [...pools].map(([pool, names]) => sentence(pool, names));
}

function byProbe(lost: PlanReport['probeStateLost']): readonly (readonly [string, readonly string[]])[] {
  const probes = new Map<string, string[]>();
  for (const { backendId, probe } of lost) {
    const ids = probes.get(probe) ?? [];
    probes.set(probe, ids);
    ids.push(backendId);
  }
  return [...probes];
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_SHOWN).join(', ');
  const more = names.length - NAMES_SHOWN;
  return more > 0 ? `${shown} and ${more} more` : shown;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
