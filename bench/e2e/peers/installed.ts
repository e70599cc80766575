import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCommand, runCommand } from '../../../test/support/commands.js';

/** What the program calls its version; undefined when it is not installed. */
export async function versionOf(
  program: string,
  args: readonly string[],
  pattern: RegExp,
): Promise<string | undefined> {
  if (!(await hasCommand(program))) return undefined;
  const { stdout, stderr } = await runCommand(program, args);
  return pattern.exec(`${stdout}\n${stderr}`)?.[0] ?? `${program}, version unknown`;
}

/** The line that loads nginx's stream module; empty when it is built in, undefined when it is missing. */
export async function streamModuleLine(): Promise<string | undefined> {
  if (!(await hasCommand('nginx'))) return undefined;
  const { stderr } = await runCommand('nginx', ['-V']);
  if (/--with-stream(\s|$)/.test(stderr)) return '';
  const folder = /--modules-path=(\S+)/.exec(stderr)?.[1] ?? '/usr/lib/nginx/modules';
  const path = join(folder, 'ngx_stream_module.so');
  try {
    await access(path);
    return `load_module ${path};`;
  } catch {
    return undefined;
  }
}
