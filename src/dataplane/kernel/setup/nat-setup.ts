import { cidrContains, type Cidr } from '../../../model/cidr.js';
import { tableOf, instanceTag } from '../../../nft/routing-entry.js';
import type { Elements, KernelSetup } from '../../../nft/kernel-setup.js';
import type { KernelInput } from '../kernel-input.js';
import { actionPart } from './action-sets.js';
import { ageingObjects } from './flow-ageing.js';
import { NAT_SETS, natChains } from './nat-structure.js';
import { placementPart } from './placement.js';
import { addressText, hex32, mergeParts, tableText, type TablePart } from './table-text.js';
import { trafficDeclaration } from './traffic-counters.js';

export interface NatSetupOptions {
  /**
   * Networks of this machine's own links. With `returnPath: route`, clients on one that has backends too look like this
   * machine to them, since answers would reach those clients past it. @default none
   */
  readonly networks?: readonly Cidr[];
}

/** What the kernel needs for mode `nat`: one table, and nothing of the machine's routing. */
export function natSetup(input: KernelInput, { networks = [] }: NatSetupOptions = {}): KernelSetup {
  const table = tableOf(input.instance);
  const parts = mergeParts(placementPart(input), addressPart(input), actionPart(input, 'resets'));
  const structure = tableText(table, [
    ...ageingObjects(input.rules),
    trafficDeclaration(),
    ...parts.declarations,
    ...natChains(input, { networks: withBackends(networks, input) }),
  ]);
  return { table, tag: instanceTag(input.instance), structure, sets: parts.elements, routing: [] };
}

function withBackends(networks: readonly Cidr[], { backends }: KernelInput): Cidr[] {
  return networks.filter((network) => backends.some(({ address }) => cidrContains(network, address)));
}

/** Addresses of backends, by mark; and alone, for backends that are clients. */
function addressPart({ backends, options }: KernelInput): TablePart {
  const declarations: string[] = [];
  const elements = new Map<string, Elements>();
  for (const family of [4, 6] as const) {
    const type = family === 4 ? 'ipv4_addr' : 'ipv6_addr';
    const own = backends.filter(({ address }) => address.family === family);
    const byMark = own.map(({ mark, address }) => [hex32(mark), addressText(address)] as const);
    declarations.push(`  map ${NAT_SETS.address[family]} { type mark : ${type}; }`);
    elements.set(NAT_SETS.address[family], new Map(byMark));
    if (options.returnPath !== 'route') continue;
    declarations.push(`  set ${NAT_SETS.own[family]} { type ${type}; }`);
    elements.set(NAT_SETS.own[family], new Map(own.map(({ address }) => [addressText(address), ''])));
  }
  return { declarations, elements };
}
