import { formatFindings, summariseFindings } from '../config/findings.js';
import { configJsonSchema } from '../config/schema.js';
import { examine, type DoctorReport } from '../doctor/checks.js';
import type { DoctorLevel } from '../doctor/machine.js';
import { BalancerError } from '../model/errors.js';
import { EXIT, loadUsable, type CliDeps, type ExitCode } from './deps.js';

export interface CheckOptions {
  readonly config: string;
  readonly json: boolean;
}

/** `haports check`: every finding about a configuration, errors first. Starts nothing. */
export async function checkCommand(deps: CliDeps, options: CheckOptions): Promise<ExitCode> {
  const { ok, findings } = await deps.load(options.config);
  if (options.json) {
    deps.out(`${JSON.stringify({ ok, findings }, undefined, 2)}\n`);
  } else {
    const verdict = ok ? 'can be used' : 'cannot be used';
    const lines = formatFindings(options.config, findings);
    deps.out([...lines, `${options.config} ${verdict}: ${summariseFindings(findings)}`, ''].join('\n'));
  }
  return ok ? EXIT.fine : EXIT.badInput;
}

/** `haports schema`: the JSON Schema of the configuration, with a description of every key. */
export function schemaCommand(deps: CliDeps): ExitCode {
  deps.out(`${JSON.stringify(configJsonSchema(), undefined, 2)}\n`);
  return EXIT.fine;
}

export interface DoctorOptions {
  readonly config: string;
  readonly json: boolean;
  /** `--no-paths`. */
  readonly paths: boolean;
  readonly port?: number;
}

/** `haports doctor`: examines this machine and the ways to the backends. */
export async function doctorCommand(deps: CliDeps, options: DoctorOptions): Promise<ExitCode> {
  const usable = await loadUsable(deps, options.config);
  if (usable === undefined) return EXIT.badInput;
  // What was put into the routing for a moment is taken out before the process ends: within seconds.
  const stopListening = deps.onSignal(() => undefined);
  try {
    const report = await examine(deps.doctor, usable.configuration, {
      paths: options.paths ? 'tried' : 'not-tried',
      ...(options.port === undefined ? {} : { port: options.port }),
    });
    deps.out(options.json ? `${JSON.stringify(report, undefined, 2)}\n` : doctorText(report));
    return report.healthy ? EXIT.fine : EXIT.failed;
  } finally {
    stopListening();
  }
}

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

export const KERNEL_ACTIONS = ['ruleset', 'flush'] as const;

export interface KernelOptions {
  readonly config: string;
  readonly full: boolean;
  /** Absent: `haports`, the default of the configuration. */
  readonly instance?: string;
}

/** As in the configuration: names reach nft. */
const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** `haports kernel ruleset`: what capture or the kernel data plane would write into the kernel. `haports kernel flush`: takes leftovers away. */
export async function kernelCommand(
  deps: CliDeps,
  action: (typeof KERNEL_ACTIONS)[number],
  options: KernelOptions,
): Promise<ExitCode> {
  return action === 'ruleset' ? ruleset(deps, options) : flush(deps, options);
}

async function ruleset(deps: CliDeps, { config, full }: KernelOptions): Promise<ExitCode> {
  const usable = await loadUsable(deps, config);
  if (usable === undefined) return EXIT.badInput;
  deps.out(await deps.kernel.ruleset(usable.configuration, { full }));
  return EXIT.fine;
}

async function flush(deps: CliDeps, { instance = 'haports' }: KernelOptions): Promise<ExitCode> {
  if (!NAME.test(instance)) {
    throw new BalancerError(
      `"${instance}" is no name of an instance, must be 1 to 63 of a-z, 0-9 and -, the first no -`,
      { code: 'LB_USAGE', source: 'usage' },
    );
  }
  const removed = await deps.kernel.flush(instance);
  if (removed.length === 0) deps.out(`Instance "${instance}" has left nothing in the kernel\n`);
  for (const line of removed) deps.out(`Removed ${line}\n`);
  return EXIT.fine;
}
