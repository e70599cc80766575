import type { ReloadReport } from '../model/plan-report.js';
import { formatCount, formatShare, formatSpan, plural } from './human.js';
import { printable } from './table.js';
import { wrapWords } from './wrap-words.js';

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
