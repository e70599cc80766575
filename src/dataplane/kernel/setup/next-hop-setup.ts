import type { Elements, KernelSetup } from '../../../nft/kernel-setup.js';
import {
  backendRoute,
  backendRule,
  backendTable,
  instanceTag,
  tableOf,
  type RoutingEntry,
} from '../../../nft/routing-entry.js';
import type { KernelBackend, KernelInput } from '../kernel-input.js';
import { actionPart } from './action-sets.js';
import { ageingObjects } from './flow-ageing.js';
import { NEXT_HOP_SETS, nextHopChains } from './next-hop-structure.js';
import { placementPart } from './placement.js';
import { addressText, hex32, mergeParts, tableText, type TablePart } from './table-text.js';
import { trafficDeclaration } from './traffic-counters.js';

/** What the kernel needs for mode `next-hop`: one table, and a policy rule and a routing table for each backend. */
export function nextHopSetup(input: KernelInput): KernelSetup {
  const table = tableOf(input.instance);
  const tag = instanceTag(input.instance);
  const isPinned = input.options.flowState === 'pinned';
  // Without flow state a packet of a flow is like any other: there is nothing to act on.
  const actions: TablePart = isPinned
    ? actionPart(input, 'moves')
    : { declarations: [], elements: new Map() };
  const parts = mergeParts(placementPart(input), neighbourPart(input), actions);
  const structure = tableText(table, [
    ...(isPinned ? [...ageingObjects(input.rules), trafficDeclaration()] : []),
    ...parts.declarations,
    ...nextHopChains(input),
  ]);
  const routing = input.backends.flatMap((backend) => routingTo(backend, tag));
  return { table, tag, structure, sets: parts.elements, routing, carried: [NEXT_HOP_SETS.near] };
}

/** Who the backends are, and by which gateway a mark must leave. */
function neighbourPart({ backends }: KernelInput): TablePart {
  const elements = new Map<string, Elements>();
  const declarations = [
    // Filled by packets. A backend whose probe answers is in it.
    `  set ${NEXT_HOP_SETS.near} { type ether_addr; size 4096; flags dynamic,timeout; timeout 10m; }`,
  ];
  for (const family of [4, 6] as const) {
    const type = family === 4 ? 'ipv4_addr' : 'ipv6_addr';
    const own = backends.filter(({ address }) => address.family === family);
    declarations.push(
      `  set ${NEXT_HOP_SETS.backends[family]} { type ${type}; }`,
      `  set ${NEXT_HOP_SETS.ways[family]} { type mark . ${type}; }`,
    );
    elements.set(
      NEXT_HOP_SETS.backends[family],
      new Map(own.map(({ address }) => [addressText(address), ''])),
    );
    const ways = own.map(({ mark, address }) => [`${hex32(mark)} . ${addressText(address)}`, ''] as const);
    elements.set(NEXT_HOP_SETS.ways[family], new Map(ways));
  }
  return { declarations, elements };
}

function routingTo({ mark, address }: KernelBackend, tag: number): RoutingEntry[] {
  const table = backendTable(tag, mark);
  const { family } = address;
  return [backendRoute(family, addressText(address), table), backendRule(family, mark, table)];
}
