import { NOT_CHECKED_REASONS, replay, type NotCheckedReason, type ReplayReport } from '../control/replay.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import { createHasher } from '../selection/hasher.js';
import { createPicker } from '../selection/picker.js';
import type { CliDeps } from './cli-deps.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { formatCount, plural } from './human.js';
import { printable } from './table.js';
import { wrapWords } from './wrap-words.js';

export interface ReplayDeps extends Pick<CliDeps, 'out'> {
  /** A file piece by piece. Rejects with the system's error. */
  readonly readChunks: (path: string) => AsyncIterable<Uint8Array>;
}

export interface ReplayOptions {
  readonly json: boolean;
}

const WIDTH = 80;
const LABEL_WIDTH = 12;

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
    ...labelled(
      'Lines',
      `${formatCount(lines)}: ${plural(configurations, 'configuration')}, ${plural(epochs, 'epoch')}`,
    ),
    ...labelled('Decisions', `${formatCount(decisions)}: ${formatCount(checked)} made again`),
    ...labelled('Agree', formatCount(agree)),
    ...labelled('Differ', formatCount(differ)),
    ...report.differences.flatMap(({ line, tuple, rule, epoch, recorded, recomputed }) => [
      `  line ${line}: ${tuple}`,
      `    rule "${rule}", epoch ${epoch}: recorded ${recorded}, must be ${recomputed}`,
    ]),
    ...more(differ - report.differences.length),
    ...labelled('Not checked', formatCount(decisions - checked)),
    ...skipped.map((reason) => `  ${formatCount(report.notChecked[reason])} ${WHY_NOT[reason]}`),
    ...(lost === 0 ? [] : labelled('Lost', `${plural(lost, 'line')}, says the log itself`)),
    ...(damaged === 0 ? [] : labelled('Damaged', plural(damaged, 'line'))),
    ...report.damagedLines.map(({ line, evidence }) => `  line ${line}: ${evidence}`),
    ...more(damaged - report.damagedLines.length),
  ];
  return `${text.flatMap((line) => wrapWords(printable(line), WIDTH, 6)).join('\n')}\n`;
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

function labelled(label: string, text: string): string[] {
  return wrapWords(`${label.padEnd(LABEL_WIDTH)}${text}`, WIDTH, LABEL_WIDTH);
}
