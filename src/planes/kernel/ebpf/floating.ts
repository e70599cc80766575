import { PROTOCOL_NUMBER } from '../../../model/address.js';
import { instanceTag, routingTo, tableOf } from '../../netfilter/routing.js';
import {
  addressText,
  addressType,
  chainText,
  hex32,
  ipWord,
  tableText,
  type Elements,
  type KernelSetup,
} from '../../netfilter/setup.js';
import {
  accessRules,
  addressRules,
  frontendGroups,
  otherProtocolsRule,
  portRules,
  portTexts,
  type FrontendGroup,
} from '../nat/dispatch.js';
import {
  ICMP_ERRORS,
  WITHOUT_PORTS,
  embeddedFields,
  hashText,
  mergeParts,
  outSet,
  packetFields,
  placeRules,
  placementPart,
  reversed,
  slotMap,
  type PacketFields,
  type TablePart,
} from '../nat/placement.js';
import { ACTED, actionPart, actionSet, idleSeconds } from '../nat/policies.js';
import type { KernelProgram, KernelRule } from '../program.js';
import {
  FlowStatements,
  OPENING,
  PARTS,
  SETTLING,
  carriedSets,
  flowDeclarations,
  flowKey,
  fragmentKey,
  pairKey,
  partsDeclaration,
  whenFull,
} from './floating-flows.js';

/*
 * Chains that both floating modes have, in the order in which a packet meets them:
 *
 *   f-<frontend>   finds the rule by the port
 *   t-<rule>       a TCP packet: it goes where its flow is pinned. ts- opens a connection, tx- is not pinned, te- closes,
 *                  tm- is placed anew
 *   u-<rule>       a datagram; o-<rule> a packet of another protocol
 *   n-<rule>       places a packet: of TCP and UDP; no-<rule> of other protocols
 *   e-<frontend>   an ICMP error: it goes where the flow goes that it is about
 *   send           to the backend of its mark. What it does is the mode's
 *
 * Packets are not changed: they reach the backend as they came.
 */

type Lane = 'tcp' | 'udp' | 'others';

/** Everything but hooks and `send`. `fragments`: rules about fragments without ports, where the kernel leaves them. */
export function floatingChains(
  program: KernelProgram,
  fragments: (group: FrontendGroup) => readonly string[],
): string[] {
  const groups = frontendGroups(program);
  return [
    ...chainText('refuse', undefined, ['meta l4proto tcp reject with tcp reset', 'reject']),
    ...groups.flatMap((group) => group.rules.flatMap((rule) => ruleChains(program, group, rule))),
    ...groups.flatMap((group) => errorChain(program, group)),
    ...groups.flatMap((group) => chainText(`f-${group.name}`, undefined, toRule(group, fragments(group)))),
  ];
}

function toRule(group: FrontendGroup, fragments: readonly string[]): string[] {
  const { rules } = group;
  const to =
    (prefix: string) =>
    ({ rule }: KernelRule): string =>
      `goto ${prefix}-${rule.name}`;
  const others = otherProtocolsRule(rules);
  return [
    ...fragments,
    ...errorRules(group),
    ...portRules(group, 'tcp', { key: 'tcp dport', verdict: to('t') }),
    ...portRules(group, 'udp', { key: 'udp dport', verdict: to('u') }),
    ...(others === undefined ? [] : [`${WITHOUT_PORTS} ${to('o')(others)}`]),
    'fib daddr type local accept',
    'goto refuse',
  ];
}

function ruleChains(program: KernelProgram, group: FrontendGroup, rule: KernelRule): string[] {
  const { name } = rule.rule;
  const others = otherProtocolsRule(group.rules) === rule;
  const pinned = program.options.flowState === 'pinned';
  const stateless = (place: string): string[] => ['meta mark set 0', `jump ${place}-${name}`, 'goto send'];
  const has = (protocol: 'tcp' | 'udp'): boolean => rule.rule.protocols.includes(protocol);
  return [
    ...chainText(`n-${name}`, undefined, newFlow(program, rule, 'with-ports')),
    ...(others ? chainText(`no-${name}`, undefined, newFlow(program, rule, 'others')) : []),
    ...(!has('tcp')
      ? []
      : pinned
        ? tcpChains(group, rule)
        : chainText(`t-${name}`, undefined, stateless('n'))),
    ...(!has('udp')
      ? []
      : chainText(`u-${name}`, undefined, pinned ? datagram(group, rule, 'udp') : stateless('n'))),
    ...(!others
      ? []
      : chainText(`o-${name}`, undefined, pinned ? datagram(group, rule, 'others') : stateless('no'))),
  ];
}

/** Gives a packet the mark of a backend, or ends it. */
function newFlow(program: KernelProgram, rule: KernelRule, protocols: 'with-ports' | 'others'): string[] {
  const denied = protocols === 'others' ? 'drop' : 'goto denied';
  const packet = packetFields(rule.rule.frontend.address.family);
  const placed = placeRules({ program, rule, word: 'meta mark', protocols, packet });
  return [
    ...accessRules(rule, denied),
    ...(protocols === 'others' ? placed.filter((text) => !text.startsWith('meta l4proto {')) : placed),
    // Everybody it was hashed to is out: the client tries again, and by then the table is another.
    `meta mark @${outSet(rule.table)} drop`,
    `meta mark 0 ${rule.rule.allDown === 'drop' ? 'drop' : 'goto refuse'}`,
  ];
}

function tcpChains(group: FrontendGroup, rule: KernelRule): string[] {
  const { name } = rule.rule;
  const flows = new FlowStatements(group);
  const key = flowKey(packetFields(group.address.family));
  const idle = idleSeconds(rule, 'tcp');
  const out = outSet(rule.table);
  const forget = `${flows.unlist()} ${flows.unpin(key)}`;
  return [
    ...chainText(`ta-${name}`, undefined, [
      `meta mark @${actionSet('tcp', 'reset', rule)} ${forget} goto refuse`,
      `meta mark @${actionSet('tcp', 'drop', rule)} drop`,
      `meta mark @${actionSet('tcp', 'rebalance', rule)} ${forget} meta mark set 0 goto tm-${name}`,
    ]),
    ...chainText(`tm-${name}`, undefined, [
      `jump n-${name}`,
      flows.list(idle),
      flows.pin(key, idle, 'goto send'),
      whenFull(),
      'goto send',
    ]),
    ...chainText(`ts-${name}`, undefined, [
      // The port is used again while the old flow is pinned, to a backend that takes no new ones.
      `meta mark @${out} ${forget} meta mark set 0`,
      `meta mark 0 jump n-${name}`,
      // Not listed: an element keeps the timeout that it began with, and only its time left is refreshed.
      flows.pin(key, OPENING.seconds, 'goto send'),
      whenFull(),
      'goto send',
    ]),
    ...chainText(`te-${name}`, undefined, [forget, flows.closing(key, 'goto send'), whenFull(), 'goto send']),
    ...chainText(`tx-${name}`, undefined, [
      flows.recall(key, 'ends'),
      `meta mark != 0 ${flows.closing(key, 'goto send')}`,
      ...strayRules(rule),
      `goto tm-${name}`,
    ]),
    ...chainText(`t-${name}`, undefined, [
      'meta mark set 0',
      flows.recall(key),
      `meta mark @${ACTED} jump ta-${name}`,
      `tcp flags & (fin | syn | rst | ack) == syn goto ts-${name}`,
      `meta mark 0 goto tx-${name}`,
      `tcp flags & (fin | rst) != 0 goto te-${name}`,
      flows.list(idle),
      flows.pin(key, idle, 'goto send'),
      'goto send',
    ]),
  ];
}

/** Packets in the middle of a connection that is not pinned: it was idle for too long, or ended by a policy. */
function strayRules({ rule }: KernelRule): string[] {
  const action = rule.flowPolicy.idle.tcp;
  if (action === 'persist') return [];
  const verdict = action === 'drop' || !rule.tcpReset ? 'drop' : 'goto refuse';
  return [`meta l4proto != @${SETTLING} ${verdict}`];
}

/** UDP, and what has no ports. */
function datagram(group: FrontendGroup, rule: KernelRule, lane: Exclude<Lane, 'tcp'>): string[] {
  const { name } = rule.rule;
  const flows = new FlowStatements(group);
  const packet = packetFields(group.address.family);
  const key = lane === 'udp' ? flowKey(packet) : pairKey(packet);
  const idle = idleSeconds(rule, 'udp');
  const listed = lane === 'udp';
  return [
    'meta mark set 0',
    flows.recall(key),
    `meta mark @${actionSet('udp', 'drop', rule)} drop`,
    `meta mark @${actionSet('udp', 'rebalance', rule)} ${listed ? `${flows.unlist()} ` : ''}${flows.unpin(key)} meta mark set 0`,
    `meta mark 0 jump ${listed ? 'n' : 'no'}-${name}`,
    ...(listed ? [flows.list(idle)] : []),
    flows.pin(key, idle, 'goto send'),
    'goto send',
  ];
}

/** Packets and bytes to backends, by mark: answers do not come this way. Packets fill it. */
export const FLOATING_TRAFFIC = 'traffic';

/** Backends by mark, of either family. */
const ADDRESSES = { 4: 'addr4', 6: 'addr6' } as const;

const COUNTED = `update @${FLOATING_TRAFFIC} { meta mark counter }`;

/** What the kernel needs for the modes `floating-l2` and `floating-routed`. Throws TypeError on floating-l2 without an interface: that is a bug. */
export function floatingSetup(program: KernelProgram): KernelSetup {
  const { mode, interface: device } = program.options;
  if (mode === 'floating-routed') return routedSetup(program);
  if (device === undefined) throw new TypeError('Mode floating-l2 must have an interface');
  return neighbourSetup(program, device);
}

/** Packets are turned round where they come in, to the MAC address of a backend. */
function neighbourSetup(program: KernelProgram, device: string): KernelSetup {
  const table = tableOf(program.instance);
  const addresses = addressPart(program);
  const parts = mergeParts(placementPart(program), addresses, actionPart(program, 'moves'));
  const structure = tableText(
    table,
    [
      ...declarations(program),
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
      ...floatingChains(program, fragmentRules),
      ...chainText('parts4', undefined, partRules(4)),
      ...chainText('parts6', undefined, partRules(6)),
      ...chainText('arrive', `type filter hook ingress device "${device}" priority 0; policy accept;`, [
        ...toFrontends(program),
      ]),
    ],
    'netdev',
  );
  const family = 'netdev' as const;
  const tag = instanceTag(program.instance);
  return {
    ...{ table, family, tag, structure, sets: parts.elements, routing: [] },
    carried: carriedSets(program),
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
function routedSetup(program: KernelProgram): KernelSetup {
  const table = tableOf(program.instance);
  const parts = mergeParts(placementPart(program), actionPart(program, 'moves'));
  const arriving = program.options.interface === undefined ? '' : `iifname "${program.options.interface}" `;
  const structure = tableText(table, [
    ...declarations(program),
    ...parts.declarations,
    ...chainText('send', undefined, [COUNTED, 'accept']),
    ...floatingChains(program, () => []),
    // Conntrack sees but one direction. It has fragments put together all the same, since there is a `ct` here.
    ...chainText('untrack', 'type filter hook prerouting priority raw; policy accept;', [
      ...toFrontends(program, 'daddr', 'notrack'),
      ...toFrontends(program, 'saddr', 'notrack'),
    ]),
    ...chainText('arrive', 'type filter hook prerouting priority mangle; policy accept;', [
      ...toFrontends(program).map((rule) => `${arriving}ct state untracked ${rule}`),
    ]),
  ]);
  const tag = instanceTag(program.instance);
  return {
    ...{
      table,
      tag,
      structure,
      sets: parts.elements,
      routing: program.backends.flatMap(({ mark, address }) => routingTo(address, mark, tag)),
    },
    carried: carriedSets(program),
  };
}

function declarations(program: KernelProgram): string[] {
  const traffic = `  set ${FLOATING_TRAFFIC} { type mark; size 65536; flags dynamic; }`;
  const denied = chainText('denied', undefined, ['meta l4proto tcp reject with tcp reset', 'drop']);
  return [...flowDeclarations(program), traffic, ...denied];
}

function toFrontends(program: KernelProgram, end: 'daddr' | 'saddr' = 'daddr', verdict?: string): string[] {
  const groups = frontendGroups(program);
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

function addressPart({ backends }: KernelProgram): TablePart {
  const elements = new Map<string, Elements>();
  const sets = ([4, 6] as const).map((family) => {
    const own = backends.filter(({ address }) => address.family === family);
    elements.set(
      ADDRESSES[family],
      new Map(own.map(({ mark, address }) => [hex32(mark), addressText(address)])),
    );
    return `  map ${ADDRESSES[family]} { type mark : ${addressType(family)}; }`;
  });
  return { declarations: sets, elements };
}

/*
 * ICMP errors about packets of backends, `fragmentation needed` among them, come to the frontend's address, for backends
 * answer from it. They go to the backend of the flow they are about, which is read from the packet inside, backwards. One
 * with IP options or extension headers inside is dropped.
 */

/** Neighbours ask for the address itself once they know who has it. */
const NEIGHBOURS =
  'icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } accept';

/** Sends errors to their chain. */
export function errorRules({ name, address: { family } }: FrontendGroup): string[] {
  return [...(family === 6 ? [NEIGHBOURS] : []), `${ICMP_ERRORS[family]} goto e-${name}`];
}

export function errorChain(program: KernelProgram, group: FrontendGroup): string[] {
  const { family } = group.address;
  // Of the packet that a backend has sent, as its flow's client would have.
  const packet = reversed(embeddedFields(family));
  return chainText(`e-${group.name}`, undefined, [
    // An IPv4 header of 20 bytes: otherwise its ports are elsewhere.
    ...(family === 4 ? ['@th,64,8 != 0x45 drop'] : []),
    'meta mark set 0',
    ...(program.options.flowState === 'pinned' ? recallRules(group, packet) : []),
    ...group.rules.flatMap((rule) => placeError(program, group, rule, packet)),
    'meta mark 0 drop',
    'goto send',
  ]);
}

function recallRules(group: FrontendGroup, packet: PacketFields): string[] {
  const flows = new FlowStatements(group);
  const key = flowKey(packet);
  return [
    `${packet.withPorts} ${flows.recall(key)}`,
    `${packet.withPorts} meta mark 0 ${flows.recall(key, 'ends')}`,
    `${packet.withoutPorts} ${flows.recall(pairKey(packet))}`,
    'meta mark != 0 goto send',
  ];
}

/** Of a flow that is not pinned: where its packets are placed. Rules come in order of precedence. */
function placeError(
  program: KernelProgram,
  group: FrontendGroup,
  one: KernelRule,
  packet: PacketFields,
): string[] {
  const { rule, table } = one;
  const set = (ports: boolean): string => {
    const { tableSize: size, seed } = program;
    const slot = hashText(packet, { distribution: rule.distribution, ports, size, seed });
    return `meta mark set ${slot} map @${slotMap(table)}`;
  };
  const lanes = rule.protocols.flatMap((name) => {
    const ports = portTexts(rule.ports);
    if (ports.length === 0) return [];
    const match = `${packet.protocol} ${PROTOCOL_NUMBER[name]} ${packet.destinationPort} { ${ports.join(', ')} }`;
    return [`${match} meta mark 0 ${set(true)}`];
  });
  const others =
    otherProtocolsRule(group.rules) === one ? [`${packet.withoutPorts} meta mark 0 ${set(false)}`] : [];
  return [...lanes, ...others, `meta mark @${outSet(table)} drop`];
}
