import { Option, type Command } from 'commander';
import { checkCommand, type CheckOptions } from './check-command.js';
import type { CliDeps } from './cli-deps.js';
import { addConnection } from './connection-options.js';
import { demoCommand, type DemoOptions } from './demo-command.js';
import type { ExitCode } from './exit-codes.js';
import { explainCommand, type ExplainOptions } from './explain-command.js';
import { DEMO_HELP, EXPLAIN_HELP, RUN_HELP } from './help-texts.js';
import { runCommand, type RunOptions } from './run-command.js';
import { schemaCommand } from './schema-command.js';

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
