import { deleteRouting, listOwnRouting } from './own-routing.js';
import { forgetFlows, listStructure, removeTable } from './own-table.js';
import { instanceTag, ipCommandLine, tableOf, type RoutingEntry } from './routing-entry.js';
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
  const listed = await listStructure(tools, table);
  if (listed !== undefined) {
    await removeTable(tools, table);
    removed.push(...Array.from(listed.matchAll(/^(table \w+ \S+) \{/gm), ([, name = '']) => name));
  }
  const entries = await listOwnRouting(tools, instanceTag(instance));
  // UDP flows that still lead to private addresses would go on doing so while their clients send. What cannot be
  // forgotten (no conntrack here, say) ends by itself.
  await forgetFlows(tools, entries.flatMap(flowsTo));
  const failure = await deleteRouting(tools, entries);
  if (failure !== undefined) throw failure;
  return [...removed, ...entries.map((entry) => ipCommandLine('add', entry).replace(' add ', ' '))];
}

/** The first address of the prefix stands for the frontend's UDP socket. conntrack takes no prefix here. */
function flowsTo({ object, family, args }: RoutingEntry): string[][] {
  const [, prefix] = args;
  if (object !== 'route' || prefix === undefined || prefix === 'default') return [];
  return [['-f', `ipv${family}`, '-p', 'udp', '--reply-src', prefix.replace(/\/.*/, '')]];
}
