import { Command, CommanderError } from 'commander';
import { BalancerError, errorMessage } from '../model/errors.js';
import { VERSION } from '../model/version.js';
import { systemClock } from '../runtime/clock.js';
import { readChunks, systemFileChanges, systemFiles } from '../runtime/files.js';
import { watchFile } from '../runtime/watch.js';
import { check, doctor, kernel, schema } from './check.js';
import { helpText, type Cli, type CliCommand } from './command.js';
import { completion } from './completion.js';
import { EXIT, UnusableConfiguration, type CliDeps, type ExitCode, type ProcessSignal } from './deps.js';
import { explain } from './explain.js';
import { events, flows } from './flows.js';
import { adminState, drain, reload, upgrade, weight } from './operate.js';
import { plan } from './plan.js';
import { demo, run } from './run.js';
import { replay, simulate } from './simulate.js';
import { backends, status } from './status.js';
import { createTerminal } from './terminal.js';
import { top } from './top.js';

/** In the order of the help. */
export const COMMANDS: readonly CliCommand[] = [
  ...[run, check, schema, explain, demo],
  ...[status, backends, flows, top, drain, adminState, weight, reload, upgrade, events],
  ...[plan, simulate, replay],
  ...[kernel, doctor, completion],
];

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
  if (error instanceof UnusableConfiguration) {
    deps.err(`${error.message}\n`);
    return EXIT.badInput;
  }
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
export function createProgram(deps: CliDeps, bundledConfig: string, done: (code: ExitCode) => void): Command {
  const program = new Command('haports')
    .description(
      'A software load balancer in the style of Azure HA ports: one rule balances every TCP and UDP flow on every ' +
        'port of a frontend over health-probed backends, each flow to one backend by the hash of its five-tuple.',
    )
    .version(VERSION)
    .configureOutput({ writeOut: deps.out, writeErr: deps.err })
    .showHelpAfterError('(haports --help shows all commands)')
    .exitOverride()
    .addHelpText('after', HELP);
  const cli: Cli = {
    deps,
    bundledConfig,
    program,
    run:
      (action) =>
      async (...args) => {
        const code = await action(...args);
        done(typeof code === 'number' ? code : EXIT.fine);
      },
  };
  for (const described of COMMANDS) {
    const command = program.command(described.name).description(described.summary);
    described.define(command.addHelpText('after', helpText(described)), cli);
  }
  return program;
}

const HELP = `
Exit codes: 0 fine, 1 failed, 2 bad configuration or usage, 3 gate exceeded (--max-moved).

Commands that ask a running process find it by --socket, HAPORTS_SOCKET, or "admin": { "socket": ... } of the
configuration file that -c names (config.json).
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
