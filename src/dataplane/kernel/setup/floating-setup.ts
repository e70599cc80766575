import type { Elements, KernelSetup } from '../../../nft/kernel-setup.js';
import {
  backendRoute,
  backendRule,
  backendTable,
  instanceTag,
  tableOf,
  type RoutingEntry,
} from '../../../nft/routing-entry.js';
import type { KernelInput } from '../kernel-input.js';
import { actionPart } from './action-sets.js';
import { fragmentKey } from './floating-keys.js';
import { carriedSets, flowDeclarations, PARTS, partsDeclaration } from './floating-flows.js';
import { floatingChains } from './floating-structure.js';
import { addressRules, frontendGroups, type FrontendGroup } from './frontend-dispatch.js';
import { placementPart } from './placement.js';
import {
  addressText,
  chainText,
  hex32,
  ipWord,
  mergeParts,
  tableText,
  type TablePart,
} from './table-text.js';

/** Packets and bytes to backends, by mark: answers do not come this way. Packets fill it. */
export const FLOATING_TRAFFIC = 'traffic';

/** Backends by mark, of either family. */
const ADDRESSES = { 4: 'addr4', 6: 'addr6' } as const;

const COUNTED = `update @${FLOATING_TRAFFIC} { meta mark counter }`;

/** What the kernel needs for the modes `floating-l2` and `floating-routed`. Throws TypeError on floating-l2 without an interface: that is a bug. */
export function floatingSetup(input: KernelInput): KernelSetup {
  const { mode, interface: device } = input.options;
  if (mode === 'floating-routed') return routedSetup(input);
  if (device === undefined) throw new TypeError('Mode floating-l2 must have an interface');
  return neighbourSetup(input, device);
}

/** Packets are turned round where they come in, to the MAC address of a backend. */
function neighbourSetup(input: KernelInput, device: string): KernelSetup {
  const table = tableOf(input.instance);
  const addresses = addressPart(input);
  const parts = mergeParts(placementPart(input), addresses, actionPart(input, 'moves'));
  const structure = tableText(
    table,
    [
      ...declarations(input),
      partsDeclaration(),
      ...parts.declarations,
      ...chainText('send', undefined, [
        // Fragments that follow have no ports.
        `ip frag-off & 0x2000 != 0 update @${PARTS} { ${fragmentKey(4)} : meta mark }`,
        `frag more-fragments 1 update @${PARTS} { ${fragmentKey(6)} : meta mark }`,
        COUNTED,
        `meta protocol ip fwd ip to meta mark map @${ADDRESSES[4]} device "${device}"`,
        `meta protocol ip6 fwd ip6 to meta mark map @${ADDRESSES[6]} device "${device}"`,
        // The backend has no address of this family.
        'drop',
      ]),
      ...floatingChains(input, fragmentRules),
      ...chainText('parts4', undefined, partRules(4)),
      ...chainText('parts6', undefined, partRules(6)),
      ...chainText('arrive', `type filter hook ingress device "${device}" priority 0; policy accept;`, [
        ...toFrontends(input),
      ]),
    ],
    'netdev',
  );
  const family = 'netdev' as const;
  const tag = instanceTag(input.instance);
  return {
    ...{ table, family, tag, structure, sets: parts.elements, routing: [] },
    carried: carriedSets(input),
  };
}

function fragmentRules({ address }: FrontendGroup): string[] {
  return [address.family === 4 ? 'ip frag-off & 0x1fff != 0 goto parts4' : 'frag frag-off != 0 goto parts6'];
}

function partRules(family: 4 | 6): string[] {
  return [
    'meta mark set 0',
    `meta mark set ${fragmentKey(family)} map @${PARTS}`,
    'meta mark 0 drop',
    'goto send',
  ];
}

/** Packets get the mark of a backend, and policy routing sends each mark to one. */
function routedSetup(input: KernelInput): KernelSetup {
  const table = tableOf(input.instance);
  const parts = mergeParts(placementPart(input), actionPart(input, 'moves'));
  const arriving = input.options.interface === undefined ? '' : `iifname "${input.options.interface}" `;
  const structure = tableText(table, [
    ...declarations(input),
    ...parts.declarations,
    ...chainText('send', undefined, [COUNTED, 'accept']),
    ...floatingChains(input, () => []),
    // Conntrack sees but one direction. It has fragments put together all the same, since there is a `ct` here.
    ...chainText('untrack', 'type filter hook prerouting priority raw; policy accept;', [
      ...toFrontends(input, 'daddr', 'notrack'),
      ...toFrontends(input, 'saddr', 'notrack'),
    ]),
    ...chainText('arrive', 'type filter hook prerouting priority mangle; policy accept;', [
      ...toFrontends(input).map((rule) => `${arriving}ct state untracked ${rule}`),
    ]),
  ]);
  const tag = instanceTag(input.instance);
  return {
    ...{ table, tag, structure, sets: parts.elements, routing: routing(input, tag) },
    carried: carriedSets(input),
  };
}

function declarations(input: KernelInput): string[] {
  const traffic = `  set ${FLOATING_TRAFFIC} { type mark; size 65536; flags dynamic; }`;
  const denied = chainText('denied', undefined, ['meta l4proto tcp reject with tcp reset', 'drop']);
  return [...flowDeclarations(input), traffic, ...denied];
}

function toFrontends(input: KernelInput, end: 'daddr' | 'saddr' = 'daddr', verdict?: string): string[] {
  const groups = frontendGroups(input);
  if (verdict === undefined) {
    return addressRules(groups, {
      key: (ip) => `${ip} ${end}`,
      verdict: (group) => `goto f-${group.name}`,
    });
  }
  return ([4, 6] as const).flatMap((family) => {
    const own = groups.filter(({ address, wildcard }) => address.family === family && !wildcard);
    if (own.length === 0) return [];
    const texts = own.map(({ address }) => addressText(address));
    return [`${ipWord(family)} ${end} { ${texts.join(', ')} } ${verdict}`];
  });
}

function addressPart({ backends }: KernelInput): TablePart {
  const elements = new Map<string, Elements>();
  const sets = ([4, 6] as const).map((family) => {
    const own = backends.filter(({ address }) => address.family === family);
    elements.set(
      ADDRESSES[family],
      new Map(own.map(({ mark, address }) => [hex32(mark), addressText(address)])),
    );
    return `  map ${ADDRESSES[family]} { type mark : ${family === 4 ? 'ipv4_addr' : 'ipv6_addr'}; }`;
  });
  return { declarations: sets, elements };
}

/** A backend is a neighbour: of another the kernel refuses the route. */
function routing({ backends }: KernelInput, tag: number): RoutingEntry[] {
  return backends.flatMap(({ mark, address }) => {
    const table = backendTable(tag, mark);
    return [
      backendRoute(address.family, addressText(address), table),
      backendRule(address.family, mark, table),
    ];
  });
}
