import { Command, CommanderError } from 'commander';
import { BalancerError, errorMessage } from '../model/errors.js';
import { VERSION } from '../model/version.js';
import type { CliDeps } from './cli-deps.js';
import { completionCommand } from './completion-command.js';
import { registerDoctorCommand } from './doctor-register.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { COMPLETION_HELP, EXIT_CODES } from './help-texts.js';
import { registerKernelCommand } from './kernel-register.js';
import { registerLiveCommands } from './register-live.js';
import { registerLocalCommands } from './register-local.js';
import { registerPlanCommands } from './register-plan.js';

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
