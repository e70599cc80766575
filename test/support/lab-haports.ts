import { chmod, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { CapturedHaports } from './capture-lab.js';
import type { NamespaceLab } from './namespaces.js';

/** `HAPORTS_MAIN`: another build than that of `npm run build`. */
const MAIN = resolve(process.env['HAPORTS_MAIN'] ?? join('dist', 'main.js'));

/** Starts the built process in the namespace `lb`. Resolves once its rules are in the kernel; whoever starts it kills it. */
export async function startInLab(lab: NamespaceLab, configuration: object): Promise<CapturedHaports> {
  const folder = await mkdtemp(join(tmpdir(), 'haports-kernel-'));
  await chmod(folder, 0o777);
  const [path, socket] = [join(folder, 'config.json'), join(folder, 'admin.sock')];
  await writeFile(path, JSON.stringify({ ...configuration, admin: { socket } }));
  const child = lab.spawn('lb', process.execPath, [MAIN, 'run', '-c', path], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const started = new CapturedHaports(child, { folder, path, socket });
  await started.ready();
  return started;
}
