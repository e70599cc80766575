import type { DoctorReport } from '../control/doctor.js';
import type { DoctorLevel } from '../control/doctor-machine.js';

const LABELS: Readonly<Record<DoctorLevel, string>> = {
  fine: 'ok',
  note: 'note',
  warning: 'warning',
  problem: 'PROBLEM',
};
const WIDTH = 9;

/** The report for people: sections, a line for each finding, and what to do about it below. */
export function doctorText({ sections }: DoctorReport): string {
  const lines = sections.flatMap(({ title, findings }) => [
    title,
    ...findings.flatMap(({ level, text, fix = [] }) => [
      `  ${LABELS[level].padEnd(WIDTH)}${text}`,
      ...fix.map((line) => `${' '.repeat(2 + WIDTH)}> ${line}`),
    ]),
    '',
  ]);
  const all = sections.flatMap(({ findings }) => findings);
  const count = (level: DoctorLevel): number => all.filter((finding) => finding.level === level).length;
  const [problems, warnings] = [count('problem'), count('warning')];
  return `${[...lines, `${problems} problem${problems === 1 ? '' : 's'}, ${warnings} warning${warnings === 1 ? '' : 's'}`].join('\n')}\n`;
}
