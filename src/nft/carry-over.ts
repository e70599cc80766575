import { tableName, type KernelSetup } from './kernel-setup.js';
import { succeeded } from './tool-failure.js';
import type { Tools } from './tools.js';

/** Flow maps can be large. */
const TIMEOUT_MS = 20_000;

/**
 * Lines that put what packets have put into sets of the old table into those of the same names of the new one; '' where
 * there is nothing. A transaction with them can fail where a set was declared otherwise.
 */
export async function carriedText(
  tools: Tools,
  setup: Pick<KernelSetup, 'table' | 'family' | 'structure' | 'carried'>,
): Promise<string> {
  const lines: string[] = [];
  const table = tableName(setup);
  for (const name of setup.carried ?? []) {
    const kind = new RegExp(`^\\s*map ${name} `, 'm').test(setup.structure) ? 'map' : 'set';
    const listed = await tools.run('nft', ['list', kind, ...table.split(' '), name], {
      timeoutMs: TIMEOUT_MS,
    });
    const [, elements] = /elements = (\{[^}]*\})/.exec(listed.stdout) ?? [];
    if (succeeded(listed) && elements !== undefined) {
      // An element that another timeout has refreshed may have more time left than its own: nft takes that from nobody.
      const text = elements.replaceAll(/ timeout \w+ expires (\w+)/g, ' timeout $1');
      lines.push(`add element ${table} ${name} ${text}\n`);
    }
  }
  return lines.join('');
}
