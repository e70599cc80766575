import { Argument, Command, CommanderError, Option } from 'commander';
import { drainEnd, flowSort, flowState, placementReason, protocol } from '../api/views.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import { VERSION } from '../model/version.js';
import { systemClock } from '../runtime/clock.js';
import { readChunks, systemFileChanges, systemFiles } from '../runtime/files.js';
import { watchFile } from '../runtime/watch.js';
import {
  KERNEL_ACTIONS,
  checkCommand,
  doctorCommand,
  kernelCommand,
  schemaCommand,
  type CheckOptions,
  type DoctorOptions,
  type KernelOptions,
} from './check.js';
import { clientFor, type LiveOptions } from './client.js';
import { completionCommand } from './completion.js';
import {
  EXIT,
  addConnection,
  durationText,
  share,
  wholeNumber,
  type CliDeps,
  type ExitCode,
  type ProcessSignal,
} from './deps.js';
import { explainCommand, type ExplainOptions } from './explain.js';
import { eventsCommand, flowsCommand, type EventsOptions, type FlowsOptions } from './flows.js';
import {
  adminStateCommand,
  drainCommand,
  reloadCommand,
  upgradeCommand,
  weightCommand,
  type DrainOptions,
  type ReloadOptions,
  type UpgradeOptions,
} from './operate.js';
import { planCommand, type PlanOptions } from './plan.js';
import { demoCommand, runCommand, type DemoOptions, type RunOptions } from './run.js';
import { replayCommand, simulateCommand, type ReplayOptions, type SimulateOptions } from './simulate.js';
import { backendsCommand, statusCommand } from './status.js';
import { createTerminal } from './terminal.js';
import { TOP_SORTS, topCommand, type TopOptions } from './top.js';

/** Runs one command line (without `node` and script) and gives the exit code. Never rejects. */
export async function runCli(
  deps: CliDeps,
  args: readonly string[],
  bundledConfig: string,
): Promise<ExitCode> {
  let exitCode: ExitCode = EXIT.fine;
  const program = createProgram(deps, bundledConfig, (code) => (exitCode = code));
  try {
    await program.parseAsync(args, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.fine : EXIT.badInput;
    return report(deps, error);
  }
}

function report(deps: CliDeps, error: unknown): ExitCode {
  if (!(error instanceof BalancerError)) {
    deps.err(
      `haports: LB_INTERNAL: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    return EXIT.failed;
  }
  deps.err(`haports: ${error.code}: ${errorMessage(error)}\n`);
  if (error.code === 'LB_GATE_EXCEEDED') return EXIT.gateExceeded;
  return error.source === 'usage' || error.source === 'config' ? EXIT.badInput : EXIT.failed;
}

/** All commands. `done` is called with the exit code of the one that ran. */
function createProgram(deps: CliDeps, bundledConfig: string, done: (code: ExitCode) => void): Command {
  const program = new Command('haports')
    .description(
      'A software load balancer in the style of Azure HA ports: one rule balances every TCP and UDP flow on every ' +
        'port of a frontend over health-probed backends, each flow to one backend by the hash of its five-tuple.',
    )
    .version(VERSION)
    .configureOutput({ writeOut: deps.out, writeErr: deps.err })
    .showHelpAfterError('(haports --help shows all commands)')
    .exitOverride()
    .addHelpText('after', EXIT_CODES);

  registerLocalCommands(program, { deps, bundledConfig, done });
  registerLiveCommands(program, { deps, done });
  registerPlanCommands(program, { deps, done });
  registerKernelCommand(program, { deps, done });
  registerDoctorCommand(program, { deps, done });

  program
    .command('completion')
    .description('print a completion script for bash or zsh')
    .argument('<shell>', 'bash or zsh')
    .addHelpText('after', COMPLETION_HELP)
    .action((shell: string) => done(completionCommand(deps, program, shell)));

  return program;
}

export interface Registration {
  readonly deps: CliDeps;
  /** Called with the exit code of the command that ran. */
  readonly done: (code: ExitCode) => void;
}

/** Commands that need no running process. `bundledConfig`: what `demo` runs unless told otherwise. */
export function registerLocalCommands(
  program: Command,
  { deps, bundledConfig, done }: Registration & { readonly bundledConfig: string },
): void {
  withConfig(program.command('run'), 'config.json')
    .description('start balancing, until a signal says stop')
    .option('--watch', 'reload whenever the content of the configuration file changes', false)
    .addHelpText('after', RUN_HELP)
    .action(async (options: RunOptions) => done(await runCommand(deps, options)));

  withConfig(program.command('check'), 'config.json')
    .description('say everything that is wrong, risky or worth knowing about a configuration')
    .option('--json', 'findings as JSON', false)
    .action(async (options: CheckOptions) => done(await checkCommand(deps, options)));

  program
    .command('schema')
    .description('print the JSON Schema of the configuration, with a description of every key')
    .action(() => done(schemaCommand(deps)));

  addConnection(program.command('explain'), { json: 'the explanation as JSON' })
    .description('say which backend a flow goes to, and exactly why')
    .argument('<protocol>', 'tcp or udp')
    .argument('<source>', 'client address and port, as 192.0.2.7:40000')
    .argument('<destination>', 'frontend address and port, as 127.0.0.1:8080')
    .addOption(
      new Option('--down <pool/backend>', 'take this backend for down (may be given again)')
        .argParser(collect)
        .default([], 'none')
        .conflicts(['socket', 'http']),
    )
    .addHelpText('after', EXPLAIN_HELP)
    .action(
      async (
        protocol: string,
        source: string,
        destination: string,
        options: Omit<ExplainOptions, 'offline'>,
        command: Command,
      ) => {
        const isNamed = options.socket !== undefined || options.http !== undefined;
        const offline = !isNamed && command.getOptionValueSource('config') === 'cli';
        done(await explainCommand(deps, { protocol, source, destination }, { ...options, offline }));
      },
    );

  withConfig(program.command('demo'), bundledConfig)
    .description('the whole thing on loopback: sample NVAs and a balancer in front of them')
    .addHelpText('after', DEMO_HELP)
    .action(async (options: Pick<DemoOptions, 'config'>) =>
      done(
        await demoCommand(deps, {
          ...options,
          explainCommand: `node dist/main.js explain -c ${options.config}`,
        }),
      ),
    );
}

/** Collects the values of an option that may be given again. */
export function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

function withConfig(command: Command, path: string): Command {
  return command.option('-c, --config <file>', 'configuration file', path);
}

/** Commands that say what would be, and prove what was. They change nothing. */
export function registerPlanCommands(program: Command, { deps, done }: Registration): void {
  addConnection(program.command('plan'), { json: 'the plan as JSON' })
    .description('preview what a configuration would do to the running process')
    .argument('<file>', 'the new configuration')
    .option('--against <file>', 'compare with this configuration instead, without a running process')
    .option('--max-moved <share>', 'exit with 3 if more of the hash space of a rule moves, as 2%', share)
    .addHelpText('after', PLAN_HELP)
    .action(async (file: string, options: PlanOptions & LiveOptions) =>
      done(await planCommand({ ...deps, client: () => clientFor(deps, options) }, file, options)),
    );

  addConnection(program.command('simulate'), { json: 'the report as JSON' })
    .description('say where flows would go if backends were down, drained or weighted otherwise')
    .option('--offline <file>', 'start from this configuration, all probes up, without a running process')
    .addOption(backends('--down <pool/backend>', 'suppose that its probe is down'))
    .addOption(backends('--up <pool/backend>', 'suppose that its probe is up'))
    .addOption(backends('--drain <pool/backend>', 'suppose that it is drained'))
    .addOption(backends('--admin-state <pool/backend=state>', 'suppose its admin state: up, down or none'))
    .addOption(backends('--weight <pool/backend=weight>', 'suppose its weight, 0 to 256'))
    .option('--live', 'follow the flows that live now, instead of random ones', false)
    .option('--flow-log <file>', 'follow the flows of this flow log instead, without a running process')
    .option(
      '--last <count>',
      'of its distinct flows, only the last so many',
      wholeNumber({ from: 1, to: 1_000_000 }),
      100_000,
    )
    .option('--flows <count>', 'random flows for each rule', wholeNumber({ from: 1, to: 1_000_000 }), 10_000)
    .option(
      '--sources <count>',
      'distinct client addresses of random flows',
      wholeNumber({ from: 1, to: 16_777_216 }),
      1000,
    )
    .option('--seed <number>', 'other random flows', wholeNumber({ from: 0, to: 0xffff_ffff }), 0)
    .addHelpText('after', SIMULATE_HELP)
    .action(async (options: SimulateOptions & LiveOptions) =>
      done(await simulateCommand({ ...deps, client: () => clientFor(deps, options) }, options)),
    );

  program
    .command('replay')
    .description('make every decision of a flow log again, and report differences')
    .argument('<flow.log>', 'a flow log')
    .option('--json', 'the report as JSON', false)
    .addHelpText('after', REPLAY_HELP)
    .action(async (file: string, options: ReplayOptions) => done(await replayCommand(deps, file, options)));
}

function backends(flags: string, words: string): Option {
  return new Option(flags, `${words} (may be given again)`).argParser(collect).default([], 'none');
}

/** Commands that ask a running process, or tell it what to do. */
export function registerLiveCommands(program: Command, { deps, done }: Registration): void {
  addConnection(program.command('status'), { json: 'the status as JSON' })
    .description('show the running process as a whole: configuration, traffic, table, drains, problems')
    .action(async (options: LiveOptions) => done(await statusCommand(deps, options)));

  addConnection(program.command('backends'), { json: 'pools and backends as JSON' })
    .description('show every backend: state, shares, traffic, what its probe says')
    .argument('[pool]', 'only this pool')
    .action(async (pool: string | undefined, options: LiveOptions) =>
      done(await backendsCommand(deps, pool, options)),
    );

  addConnection(program.command('flows'), { json: 'the flows as JSON' })
    .description('show live flows, filtered and sorted')
    .option('--rule <name>', 'only flows of this rule')
    .option('--backend <pool/backend>', 'only flows of this backend')
    .addOption(new Option('--protocol <protocol>', 'only').choices(protocol.options))
    .option('--source <address>', 'only flows of this client')
    .addOption(new Option('--state <state>', 'only').choices(flowState.options))
    .addOption(
      new Option('--reason <reason>', 'only flows placed for this reason').choices(placementReason.options),
    )
    .addOption(new Option('--sort <key>', 'largest first').choices(flowSort.options).default('age'))
    .option('--limit <count>', 'flows shown at most, 1 to 1000', wholeNumber({ from: 1, to: 1000 }), 100)
    .addHelpText('after', FLOWS_HELP)
    .action(async (options: FlowsOptions) => done(await flowsCommand(deps, options)));

  addConnection(program.command('top'), { json: 'one snapshot as JSON' })
    .description('watch backends and flows live, on the whole terminal')
    .addOption(new Option('--sort <key>', 'order of flows at the start').choices(TOP_SORTS).default('age'))
    .option('--filter <text>', 'only flows whose client or backend holds this', '')
    .addHelpText('after', TOP_HELP)
    .action(async (options: TopOptions) => done(await topCommand(deps, options)));

  addConnection(program.command('drain'), { json: 'the drain as JSON; with --watch one line a second' })
    .description('give a backend no new flows, and let those that it has finish')
    .argument('<pool/backend>', 'name or address, as nvas/nva-1')
    .option('--deadline <duration>', 'how long flows may take', durationText, '10m')
    .addOption(
      new Option('--then <action>', 'what becomes of flows that are left')
        .choices(drainEnd.options)
        .default('reset'),
    )
    .option('--spread <duration>', 'time over which they are ended', durationText, '10s')
    .option('--force', 'even if too few backends of the pool are left', false)
    .option('--watch', 'show it live until it is done', false)
    .option('--show', 'show the drain that is under way, start none', false)
    .option('--cancel', 'end the drain: the backend gets new flows again', false)
    .addHelpText('after', DRAIN_HELP)
    .action(async (backend: string, options: DrainOptions) =>
      done(await drainCommand(deps, backend, options)),
    );

  addConnection(program.command('admin-state'), { json: 'what was set as JSON' })
    .description("set the operator's switch on a backend, over its probe")
    .argument('<pool/backend>', 'name or address, as nvas/nva-1')
    .argument('<state>', 'none, up, down or configured')
    .addHelpText('after', ADMIN_STATE_HELP)
    .action(async (backend: string, state: string, options: LiveOptions) =>
      done(await adminStateCommand(deps, backend, state, options)),
    );

  addConnection(program.command('weight'), { json: 'what was set as JSON' })
    .description("set a backend's share of new flows")
    .argument('<pool/backend>', 'name or address, as nvas/nva-1')
    .argument('<weight>', '0 to 256, or configured')
    .addHelpText('after', WEIGHT_HELP)
    .action(async (backend: string, weight: string, options: LiveOptions) =>
      done(await weightCommand(deps, backend, weight, options)),
    );

  addConnection(program.command('reload'), {
    json: 'the report as JSON',
    config: 'configuration file to take over; its admin.socket says where',
  })
    .description('have the running process take a configuration over, whole or not at all')
    .option('--max-moved <share>', 'refuse to move more of the hash space of a rule, as 2%', share)
    .addHelpText('after', RELOAD_HELP)
    .action(async (options: ReloadOptions) => done(await reloadCommand(deps, options)));

  addConnection(program.command('upgrade'), { json: 'the outcome as JSON' })
    .description('have the version that is installed now take the place of the running process')
    .option('--deadline <duration>', 'how long TCP flows of the old process may take', durationText)
    .addHelpText('after', UPGRADE_HELP)
    .action(async (options: UpgradeOptions) => done(await upgradeCommand(deps, options)));

  addConnection(program.command('events'), { json: 'one event a line as JSON' })
    .description('show what has happened: health, drains, reloads, operators')
    .option('-f, --follow', 'go on with what happens from now on', false)
    .option(
      '--since <id>',
      'only events with a higher id',
      wholeNumber({ from: 0, to: Number.MAX_SAFE_INTEGER }),
    )
    .addHelpText('after', EVENTS_HELP)
    .action(async (options: EventsOptions) => done(await eventsCommand(deps, options)));
}

/** The command that examines a machine. */
export function registerDoctorCommand(program: Command, { deps, done }: Registration): void {
  program
    .command('doctor')
    .description('examine this machine and the way of flows to each backend, and say what is missing where')
    .option('-c, --config <file>', 'configuration file', 'config.json')
    .option('--json', 'the findings as JSON', false)
    .option(
      '--port <number>',
      'TCP port to try on backends (default: that of the probe)',
      wholeNumber({ from: 1, to: 65_535 }),
    )
    .option('--no-paths', 'change no routes, not even for a moment')
    .addHelpText('after', DOCTOR_HELP)
    .action(async (options: DoctorOptions) => done(await doctorCommand(deps, options)));
}

/** The command about what capture and the kernel data plane keep in the kernel. */
export function registerKernelCommand(program: Command, { deps, done }: Registration): void {
  program
    .command('kernel')
    .description(
      'show what capture or the kernel data plane would write into the kernel, or remove what is left there',
    )
    .addArgument(new Argument('<action>', 'what to do').choices(KERNEL_ACTIONS))
    .option('-c, --config <file>', 'configuration file, for ruleset', 'config.json')
    .option('--full', 'ruleset with every element', false)
    .option('--instance <name>', 'whose leftovers to flush (default: haports)')
    .addHelpText('after', KERNEL_HELP)
    .action(async (action: (typeof KERNEL_ACTIONS)[number], options: KernelOptions) =>
      done(await kernelCommand(deps, action, options)),
    );
}

/** What the commands' helps say beyond options: examples, and what is good to know before. */

export const EXIT_CODES = `
Exit codes: 0 fine, 1 failed, 2 bad configuration or usage, 3 gate exceeded (--max-moved).

Commands that ask a running process find it by --socket, HAPORTS_SOCKET, or "admin": { "socket": ... } of the
configuration file that -c names (config.json).
`;

export const RUN_HELP = `
Examples:
  haports run -c /etc/haports/config.json
  haports run --watch

Signals: SIGTERM or SIGINT takes no new flows, lets flows finish until shutdown.deadline (30s) and resets the rest;
a second one ends at once. SIGUSR2 upgrades, see haports upgrade. SIGHUP reloads the configuration file and re-opens the flow log (for log rotation). A
configuration that cannot be used is refused whole, and what was served before is served on.

--watch sees writes, renames over the file (editors) and swapped symbolic links (Kubernetes).

The log goes to stderr: lines for people on a terminal, else JSON.
`;

export const EXPLAIN_HELP = `
Examples:
  haports explain tcp 192.0.2.7:40000 127.0.0.1:8080
  haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080
  haports explain -c config.json udp [2001:db8::7]:40000 [::1]:8053 --json
  haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080 --down nvas/nva-2

The source is the client, the destination the frontend. The running process is asked, and shows the flow too if it is
there. With -c or --down, or where no process runs, the configuration alone is explained: probes are taken for up
unless --down says otherwise.
`;

export const KERNEL_HELP = `
Examples:
  haports kernel ruleset -c config.json
  haports kernel ruleset -c config.json --full > haports.nft
  haports kernel flush --instance edge

ruleset is a dry run that needs no privilege: the nft table and the routes and addresses that "haports run" would put in
place, with elements abbreviated unless --full. Ports that other processes of this machine have are left out by "run"
only. flush takes away what an instance has left behind, by its name; it refuses while that instance runs, and needs
CAP_NET_ADMIN. A start of the same instance does so by itself.
`;

export const DOCTOR_HELP = `
Examples:
  haports doctor -c config.json
  haports doctor -c config.json --no-paths --json

Examines tools, privilege, sysctls, the interface, frontends' addresses, and each backend: whether it is there, and on
the kernel data plane whether flows reach it and come back. With a floating mode a connection to the frontend's address
is sent to each backend in turn, by its source port; with nat one comes from an address of nobody. For that, routes of
this machine are changed for a moment, for that connection alone: --no-paths leaves that out. Below a problem stands
what to do about it, on backends for Linux, Windows and FreeBSD. Exit codes: 1 a problem was found.
`;

export const DEMO_HELP = `
Starts a small sample NVA for each backend of the configuration, and the balancer in front of them, all on this
machine's loopback addresses. Needs no root and no other software. Ends with Ctrl-C.
`;

export const FLOWS_HELP = `
Examples:
  haports flows --backend nvas/nva-1 --sort bytes --limit 20
  haports flows --reason pinned
  haports flows --source 192.0.2.7 --json

Reasons: hash (its slot's backend), retry (the first could not be reached), rebalanced (moved by flow policy),
fail-open (nobody was eligible), pinned (its hash would now choose another, but existing flows stay).
`;

export const TOP_HELP = `
Keys: q quit, b backends, f flows, s sort (age, bytes, rate, idle), / filter by client or backend, p pause, ? help.

Where the output is not a terminal, one snapshot is printed.
`;

export const DRAIN_HELP = `
Examples:
  haports drain nvas/nva-1 --watch
  haports drain nvas/nva-1 --deadline 1h --then leave
  haports drain nvas/nva-1 --show --watch
  haports drain nvas/nva-1 --cancel

From the next flow on the backend gets none. At the deadline, flows that are left end as their rule's flow policy for
drain-deadline says, spread over --spread so that clients do not all come back at once; or they stay (--then leave). The
backend stays without new flows until --cancel. Ctrl-C ends --watch, not the drain.
`;

export const ADMIN_STATE_HELP = `
Examples:
  haports admin-state nvas/nva-1 down
  haports admin-state nvas/nva-1 configured

none follows the probe, up and down override it, configured is what the configuration says. Existing flows of a backend
that goes down meet their rule's flow policy for admin-down; "haports drain" lets them finish.
`;

export const WEIGHT_HELP = `
Examples:
  haports weight nvas/nva-1 10
  haports weight nvas/nva-1 configured

Weight 0 gives no new flows. The weight holds, over reloads too, until configured gives it back.
`;

export const RELOAD_HELP = `
Examples:
  haports reload
  haports reload -c new.json --max-moved 2%

The text of the file is sent; files that it names are read by the process. "haports plan" shows first what would move.
Exit codes: 1 not applied, 2 the configuration cannot be used, 3 more would move than --max-moved. Whenever it is not
0, nothing has changed.
`;

export const UPGRADE_HELP = `
Examples:
  haports upgrade
  haports upgrade --deadline 1h

The running process starts itself anew, from the files that are there now, hands over its listening sockets and UDP
flows, and then lets its TCP flows finish until shutdown.deadline or --deadline. If the new process is not ready within
30 s (a broken configuration, for one), the old one goes on as if nothing had happened. SIGUSR2 does the same.
`;

export const EVENTS_HELP = `
Examples:
  haports events
  haports events --follow --json
  haports events --since 1200

Ids grow by one with each event; --follow shows only new ones unless --since says from where.
`;

export const COMPLETION_HELP = `
Examples:
  source <(haports completion bash)
  haports completion zsh > ~/.zfunc/_haports     with ~/.zfunc in $fpath, before compinit
`;

export const PLAN_HELP = `
Examples:
  haports plan new.json
  haports plan new.json --max-moved 2%
  haports plan new.json --against config.json

Shows per rule the share of the hash space that moves, live flows that stay, move or end, backends whose probe state is
lost, listeners, and the steps in their order: what is added comes before what is removed. Exit codes: 2 the
configuration cannot be used, 3 more would move than --max-moved.
`;

export const SIMULATE_HELP = `
Examples:
  haports simulate --down nvas/nva-1
  haports simulate --live --drain nvas/nva-1 --weight nvas/nva-2=50
  haports simulate --offline config.json --down nvas/nva-1 --sources 3
  haports simulate --flow-log /var/log/haports/flow.log --drain nvas/nva-1

--flow-log asks no process: it starts from the log's own last configuration and epoch, or from the file that --offline
names, with every probe up.
`;

export const REPLAY_HELP = `
Examples:
  haports replay /var/log/haports/flow.log
  haports replay flow.log --json

Every decision is recomputed from the configurations and epochs in the log. Exit codes: 1 a decision comes out
differently.
`;

const SIGNALS: readonly ProcessSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'];

/** What commands need of this process: its streams, signals, environment, files and clock. */
export function processDeps(): Omit<CliDeps, 'load' | 'startBalancer' | 'kernel' | 'doctor'> {
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    onSignal(listener) {
      for (const signal of SIGNALS) process.on(signal, listener);
      return () => {
        for (const signal of SIGNALS) process.off(signal, listener);
      };
    },
    onOutputClosed(listener) {
      process.stdout.on('error', listener);
      return () => process.stdout.off('error', listener);
    },
    env: process.env,
    clock: systemClock,
    readText: (path) => systemFiles.readText(path),
    readChunks,
    watchFile: (path, onChange) =>
      watchFile({ clock: systemClock, files: systemFiles, changes: systemFileChanges }, path, onChange),
    terminal: createTerminal({
      output: process.stdout,
      input: process.stdin,
      env: process.env,
      onExit(listener) {
        process.once('exit', listener);
        return () => process.off('exit', listener);
      },
    }),
  };
}
