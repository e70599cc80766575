import { builtFile } from '../../../test/support/commands.js';
import type { OwnProcess, OwnProcesses } from '../own-processes.js';

const MAIN = builtFile('bench/e2e/backends/echo-backend-main');

/** TCP and UDP echo on each address, one process for all. */
export function startEchoBackend(
  processes: OwnProcesses,
  options: { readonly cores: string; readonly addresses: readonly string[]; readonly port: number },
): OwnProcess {
  return processes.start({ role: 'backend', cores: options.cores }, 'echo backend', [
    ...[process.execPath, MAIN, String(options.port), ...options.addresses],
  ]);
}
