import { Argument } from 'commander';
import * as words from '../api/words.js';
import { formatFindings, summariseFindings } from '../config/findings.js';
import { configJsonSchema } from '../config/schema.js';
import { examine, type DoctorReport } from '../doctor/checks.js';
import type { DoctorLevel } from '../doctor/machine.js';
import { wholeNumber, type CliCommand } from './command.js';
import {
  EXIT,
  loadUsable,
  printAnswer,
  printJson,
  printLines,
  usageError,
  type CliDeps,
  type ExitCode,
} from './deps.js';

/** Every finding about a configuration, errors first. Starts nothing. */
export const check: CliCommand = {
  name: 'check',
  summary: 'say everything that is wrong, risky or worth knowing about a configuration',
  exitCodes: '0 it can be used; 2 it cannot',
  define: (command, { deps, run }) =>
    command
      .option('-c, --config <file>', 'configuration file', 'config.json')
      .option('--json', 'findings as JSON', false)
      .action(
        run(async (options: { readonly config: string; readonly json: boolean }) => {
          const { config } = options;
          const { ok, findings } = await deps.load(config);
          printAnswer(deps, options, { ok, findings }, () => [
            ...formatFindings(config, findings),
            `${config} ${ok ? 'can' : 'cannot'} be used: ${summariseFindings(findings)}`,
          ]);
          return ok ? EXIT.fine : EXIT.badInput;
        }),
      ),
};

export const schema: CliCommand = {
  name: 'schema',
  summary: 'print the JSON Schema of the configuration, with a description of every key',
  exitCodes: '0 always',
  define: (command, { deps, run }) =>
    command.action(
      run(() => {
        printJson(deps, configJsonSchema());
        return EXIT.fine;
      }),
    ),
};

interface DoctorOptions {
  readonly config: string;
  readonly json: boolean;
  /** `--no-paths`. */
  readonly paths: boolean;
  readonly port?: number;
}

export const doctor: CliCommand = {
  name: 'doctor',
  summary: 'examine this machine and the path of flows to each backend, and say what is missing where',
  examples: ['haports doctor -c config.json', 'haports doctor -c config.json --no-paths --json'],
  notes: `
Examines tools, privilege, sysctls, the interface, frontends' addresses, and each backend: whether it answers, and on
the kernel data plane whether flows reach it and come back. With a floating mode a connection to the frontend's address
is sent to each backend in turn, by its source port; with nat one comes from an unused address. For that, routes of
this machine are changed for a moment, for that connection alone: --no-paths leaves that out. Below each problem stands
what to do about it, on this machine and on backends (Linux).`,
  exitCodes: '0 no problem (there may be warnings); 1 a problem was found; 2 bad configuration or usage',
  define: (command, { deps, run }) =>
    command
      .option('-c, --config <file>', 'configuration file', 'config.json')
      .option('--json', 'the findings as JSON', false)
      .option(
        '--port <number>',
        'TCP port to try on backends (default: that of the probe)',
        wholeNumber(1, 65_535),
      )
      .option('--no-paths', 'change no routes, not even for a moment')
      .action(run((options: DoctorOptions) => examineMachine(deps, options))),
};

async function examineMachine(deps: CliDeps, options: DoctorOptions): Promise<ExitCode> {
  const { configuration } = await loadUsable(deps, options.config);
  // Signals wait: the routes that a test adds are removed within seconds, before the process ends.
  const stopListening = deps.onSignal(() => undefined);
  try {
    const paths = options.paths ? 'tried' : 'not-tried';
    const report = await examine(await deps.doctor(), configuration, { paths, port: options.port });
    printAnswer(deps, options, report, doctorLines);
    return report.healthy ? EXIT.fine : EXIT.failed;
  } finally {
    stopListening();
  }
}

const LABELS: Readonly<Record<DoctorLevel, string>> = {
  fine: '  ok       ',
  note: '  note     ',
  warning: '  warning  ',
  problem: '  PROBLEM  ',
};

/** Sections, a line for each finding, and what to do about it below. */
function doctorLines({ sections }: DoctorReport): readonly string[] {
  const all = sections.flatMap(({ findings }) => findings);
  const count = (level: DoctorLevel, noun: string): string =>
    words.plural(all.filter((finding) => finding.level === level).length, noun);
  return [
    ...sections.flatMap(({ title, findings }) => [
      title,
      ...findings.flatMap(({ level, text, fix = [] }) => [
        `${LABELS[level]}${text}`,
        ...fix.map((line) => `           > ${line}`),
      ]),
      '',
    ]),
    `${count('problem', 'problem')}, ${count('warning', 'warning')}`,
  ];
}

interface KernelOptions {
  readonly config: string;
  readonly full: boolean;
  readonly instance: string;
}

/** As in the configuration: names reach nft. */
const INSTANCE_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;

export const kernel: CliCommand = {
  name: 'kernel',
  summary:
    'show what capture or the kernel data plane would write into the kernel, or remove what is left there',
  examples: [
    'haports kernel ruleset -c config.json',
    'haports kernel ruleset -c config.json --full > haports.nft',
    'haports kernel flush --instance edge',
  ],
  notes: `
ruleset is a dry run that needs no privilege: the nft table and the routes and addresses that "haports run" would put in
place, with elements abbreviated unless --full. Ports that other processes of this machine use are left out by "run"
only. flush removes what an instance has left behind, by its name; it refuses while that instance runs, and needs
CAP_NET_ADMIN. A start of the same instance does so by itself.`,
  exitCodes: '0 fine; 1 the instance runs, or the kernel refused; 2 bad configuration or usage',
  define: (command, { deps, run }) =>
    command
      .addArgument(new Argument('<action>', 'what to do').choices(['ruleset', 'flush']))
      .option('-c, --config <file>', 'configuration file, for ruleset', 'config.json')
      .option('--full', 'ruleset with every element', false)
      .option('--instance <name>', 'whose leftovers to flush', 'haports')
      .action(
        run((action: 'ruleset' | 'flush', options: KernelOptions) =>
          action === 'ruleset' ? printRuleset(deps, options) : flush(deps, options),
        ),
      ),
};

async function printRuleset(deps: CliDeps, { config, full }: KernelOptions): Promise<void> {
  const { configuration } = await loadUsable(deps, config);
  deps.out(await deps.kernel.ruleset(configuration, { full }));
}

async function flush(deps: CliDeps, { instance }: KernelOptions): Promise<void> {
  if (!INSTANCE_NAME.test(instance)) {
    throw usageError(
      `Cannot flush instance "${instance}": the name must be 1 to 63 of a-z, 0-9 and -, not starting with -`,
    );
  }
  const removed = await deps.kernel.flush(instance);
  const nothing = [`Instance "${instance}" has left nothing in the kernel`];
  printLines(deps, removed.length === 0 ? nothing : removed.map((line) => `Removed ${line}`));
}
