import { builtFile } from '../../../test/support/commands.js';
import { eventually } from '../../../test/support/deadline.js';
import { tail, type OwnProcess, type OwnProcesses } from '../own-processes.js';

/** The load tools of the bench's own, each a process. */
export type ToolName =
  | 'first-datagram-main'
  | 'hold-main'
  | 'http-check-main'
  | 'open-loop-main'
  | 'transfer-main'
  | 'udp-ping-main';

/** Starts one; its options go to it as JSON, it answers with lines of JSON and ends when its input is closed. */
export function startTool(
  processes: OwnProcesses,
  cores: string,
  tool: ToolName,
  options: object,
): OwnProcess {
  const path = builtFile(`bench/e2e/load/${tool}`);
  return processes.start({ role: 'client', cores }, tool, [process.execPath, path, JSON.stringify(options)]);
}

/** The first line it says. Rejects when it ends before, or takes longer. */
export async function firstAnswer<T>(own: OwnProcess, timeoutMs: number): Promise<T> {
  const line = await eventually(
    () => {
      const [first, ...rest] = own.stdout.split('\n');
      if (rest.length > 0) return first;
      return own.ended ? '' : undefined;
    },
    timeoutMs,
    `an answer of ${own.name}`,
  );
  if (line === '' || line.startsWith('{"error"')) throw new Error(`${own.name} failed: ${line}${tail(own)}`);
  return JSON.parse(line) as T;
}

/** Runs one to its end. */
export async function runTool<T>(
  processes: OwnProcesses,
  cores: string,
  tool: ToolName,
  options: object,
  timeoutMs: number,
): Promise<T> {
  const own = startTool(processes, cores, tool, options);
  try {
    return await firstAnswer<T>(own, timeoutMs);
  } finally {
    await own.stop();
  }
}
