import { Command, CommanderError, Option } from 'commander';
import { BalancerError, errorMessage } from '../model/errors.js';
import { VERSION } from '../model/version.js';
import { checkCommand, type CheckOptions } from './check-command.js';
import type { CliDeps } from './cli-deps.js';
import { demoCommand } from './demo-command.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { explainCommand, type ExplainOptions } from './explain-command.js';
import { runCommand, type RunOptions } from './run-command.js';
import { schemaCommand } from './schema-command.js';

const EXIT_CODES = `
Exit codes: 0 fine, 1 failed, 2 bad configuration or usage.
`;

const RUN_HELP = `
Signals: SIGTERM or SIGINT takes no new flows, lets flows finish until shutdown.deadline (30s) and resets the rest;
a second one ends at once. SIGHUP re-opens the flow log (for log rotation).

The log goes to stderr: lines for people on a terminal, else JSON.
`;

const EXPLAIN_HELP = `
Examples:
  haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080
  haports explain -c config.json udp [2001:db8::7]:40000 [::1]:8053 --json
  haports explain -c config.json tcp 192.0.2.7:40000 127.0.0.1:8080 --down nvas/nva-2

The source is the client, the destination the frontend. Probes are taken for up unless --down says otherwise.
`;

const DEMO_HELP = `
Starts a small sample NVA for each backend of the configuration, and the balancer in front of them, all on this
machine's loopback addresses. Needs no root and no other software. Ends with Ctrl-C.
`;

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
  return error.source === 'usage' || error.source === 'config' ? EXIT.badInput : EXIT.failed;
}

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

  withConfig(program.command('run'), 'config.json')
    .description('start balancing, until a signal says stop')
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

  withConfig(program.command('explain'), 'config.json')
    .description('say which backend a flow goes to, and exactly why')
    .argument('<protocol>', 'tcp or udp')
    .argument('<source>', 'client address and port, as 192.0.2.7:40000')
    .argument('<destination>', 'frontend address and port, as 127.0.0.1:8080')
    .addOption(
      new Option('--down <pool/backend>', 'take this backend for down (may be given again)')
        .argParser(collect)
        .default([], 'none'),
    )
    .option('--json', 'the explanation as JSON', false)
    .addHelpText('after', EXPLAIN_HELP)
    .action(async (protocol: string, source: string, destination: string, options: ExplainOptions) =>
      done(await explainCommand(deps, { protocol, source, destination }, options)),
    );

  withConfig(program.command('demo'), bundledConfig)
    .description('the whole thing on loopback: sample NVAs and a balancer in front of them')
    .addHelpText('after', DEMO_HELP)
    .action(async (options: RunOptions) =>
      done(
        await demoCommand(deps, {
          ...options,
          explainCommand: `node dist/main.js explain -c ${options.config}`,
        }),
      ),
    );

  return program;
}

function withConfig(command: Command, path: string): Command {
  return command.option('-c, --config <file>', 'configuration file', path);
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}
