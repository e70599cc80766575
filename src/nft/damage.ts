import { withoutSeal, type Installed } from './adoption.js';
import { tableName } from './kernel-setup.js';
import { listOwnRouting, without } from './own-routing.js';
import { elementsEvidence, listStructure } from './own-table.js';
import type { RoutingEntry } from './routing-entry.js';
import type { Tools } from './tools.js';

/** What is wrong with it. */
export interface Damage {
  /** With the table, for people; undefined: nothing. */
  readonly table?: string;
  /** What is missing. */
  readonly routing: readonly RoutingEntry[];
}

/** Compares the kernel with what was put in place. Elements take nft most of a second. Rejects with BalancerError. */
export async function findDamage(
  tools: Tools,
  { setup, structure }: Installed,
  depth: 'structure' | 'elements-too',
): Promise<Damage> {
  const routing = without(setup.routing, await listOwnRouting(tools, setup.tag, setup.routing));
  const found = await listStructure(tools, setup.table);
  if (found === undefined) return { table: `Table ${tableName(setup)} was gone`, routing };
  if (withoutSeal(found) !== structure) return { table: `Table ${tableName(setup)} was altered`, routing };
  const evidence = depth === 'structure' ? undefined : await elementsEvidence(tools, setup);
  return evidence === undefined ? { routing } : { table: evidence, routing };
}
