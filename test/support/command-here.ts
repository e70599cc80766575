import { loadConfigurationFile } from '../../src/app/configuration-file.js';
import { processDeps, runCli } from '../../src/cli/program.js';
import type { CommandResult } from './haports-process.js';

/**
 * Runs a command line in this process, with the dependencies that main.ts gives it, and collects what it prints. It saves the
 * start of a process; for commands that ask a running process or read files. Those that start or examine one need `haports()`.
 */
export async function haportsHere(args: readonly string[]): Promise<CommandResult> {
  let stdout = '';
  let stderr = '';
  const needsProcess = (): Promise<never> =>
    Promise.reject(new Error(`${args[0]} needs a process of its own`));
  const deps = {
    ...processDeps(),
    out: (text: string) => void (stdout += text),
    err: (text: string) => void (stderr += text),
    load: loadConfigurationFile,
    startBalancer: needsProcess,
    kernel: { ruleset: needsProcess, flush: needsProcess },
    doctor: needsProcess,
  };
  return { code: await runCli(deps, args, 'config.json'), stdout, stderr };
}
