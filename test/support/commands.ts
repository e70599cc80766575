import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { within } from './deadline.js';

/** What was built of a source, by its path from the repository without the ending: `test/support/traffic-main`. */
export function builtFile(path: string): string {
  return resolve('build', `${path}.js`);
}

/** Whether a program can be found on the PATH. */
export async function hasCommand(name: string): Promise<boolean> {
  return (await runCommand('sh', ['-c', `command -v ${name}`])).code === 0;
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, with `input` on its standard input. Kills it when it takes too long. */
export async function runCommand(
  name: string,
  args: readonly string[],
  options: { readonly input?: string; readonly timeoutMs?: number; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<Outcome> {
  const child = spawn(name, args, { stdio: ['pipe', 'pipe', 'pipe'], env: options.env ?? process.env });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  try {
    const code = await within(ended, options.timeoutMs ?? 10_000, `${name} ${args.join(' ')} to end`);
    return { code, stdout, stderr };
  } finally {
    child.kill('SIGKILL');
  }
}
