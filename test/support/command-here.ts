import type { CliDeps } from '../../src/cli/deps.js';
import { processDeps, runCli } from '../../src/cli/program.js';
import type { CommandResult } from './haports-process.js';

/**
 * Runs a command line in this process, with the dependencies that main.ts gives it, and collects what it prints. It saves the
 * start of a process; for commands that ask a running process or read files. Those that start or examine one need `haports()`.
 */
export async function haportsHere(args: readonly string[]): Promise<CommandResult> {
  let stdout = '';
  let stderr = '';
  const deps: CliDeps = {
    ...processDeps(),
    out: (text) => void (stdout += text),
    err: (text) => void (stderr += text),
    // Only where a command needs it: it loads most of the program.
    load: async (path) => (await import('../../src/app/servers.js')).loadConfigurationFile(path),
    startBalancer: () => Promise.reject(new Error('"run" needs a process of its own')),
    get kernel(): never {
      throw new Error('"kernel" needs a process of its own');
    },
    get doctor(): never {
      throw new Error('"doctor" needs a process of its own');
    },
  };
  return { code: await runCli(deps, args, 'config.json'), stdout, stderr };
}
