import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { adminApiPage } from './admin-api-page.js';
import { COMMAND_PAGES } from './command-pages.js';
import { configurationPage } from './configuration-page.js';
import { dashboard } from './grafana.js';
import { metricsPage } from './metrics-page.js';

/**
 * Files that are written from what the program knows of itself, by their paths from the root of the repository. To add
 * one, add a line; test/project/docs/generated.test.ts checks that each is up to date.
 */
export const GENERATED: Readonly<Record<string, () => string | Promise<string>>> = {
  'docs/reference/admin-api.md': adminApiPage,
  'docs/reference/configuration.md': configurationPage,
  'docs/reference/metrics.md': metricsPage,
  'deploy/grafana/haports.json': () => JSON.stringify(dashboard()),
  ...COMMAND_PAGES,
};

/** What a file should be, formatted as the repository is. */
export async function generate(path: string): Promise<string> {
  const write = GENERATED[path];
  if (write === undefined) throw new TypeError(`Nothing generates ${path}`);
  return format(await write(), { ...(await resolveConfig(path)), filepath: path });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const path of Object.keys(GENERATED)) {
    const text = await generate(path);
    const before = await readFile(path, 'utf8').catch(() => undefined);
    if (text === before) continue;
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
    process.stdout.write(`${path}\n`);
  }
}
