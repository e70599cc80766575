import { deleteRouting, listOwnRouting } from './own-routing.js';
import { listStructure, removeTable } from './own-table.js';
import { instanceTag, ipCommandLine, tableOf } from './routing-entry.js';
import type { Tools } from './tools.js';

/**
 * Takes away what an instance has left in the kernel, whatever its configuration was and however it ended; another
 * instance's stays. The caller sees to it that it does not run. Rejects with BalancerError when something could not be
 * removed.
 *
 * @returns what was there, one line each: `table inet haports`, `ip -4 route local 240.7.0.0/16 ...`.
 */
export async function flushInstance(tools: Tools, instance: string): Promise<readonly string[]> {
  const table = tableOf(instance);
  const removed: string[] = [];
  if ((await listStructure(tools, table)) !== undefined) {
    await removeTable(tools, table);
    removed.push(`table inet ${table}`);
  }
  const entries = await listOwnRouting(tools, instanceTag(instance));
  const failure = await deleteRouting(tools, entries);
  if (failure !== undefined) throw failure;
  return [...removed, ...entries.map((entry) => ipCommandLine('add', entry).replace(' add ', ' '))];
}
