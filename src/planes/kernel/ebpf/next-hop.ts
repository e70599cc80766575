import type { Cidr } from '../../../model/address.js';
import type { KernelOptions } from '../../../model/configuration.js';
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
  coveredPorts,
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
  mergeParts,
  outSet,
  packetFields,
  placeRules,
  placementPart,
  reversed,
  trafficDeclaration,
  trafficRule,
  type PacketFields,
  type TablePart,
} from '../nat/placement.js';
import { ACTED, actionPart, actionSet, ageingObjects, ageingRules } from '../nat/policies.js';
import { INSTANCE_MASK, markTag, type KernelProgram, type KernelRule } from '../program.js';

/*
 * Chains of the table, in the order in which a packet meets them:
 *
 *   learn    answers of backends to probes tell their MAC addresses
 *   cross    every packet that is routed: `known` where its flow has a backend; else by `new4` and the spokes to `there4`
 *            or `back4`, which find the rule, and to `r-<rule>` or `b-<rule>`, which place it. The mark of the backend is
 *            put on the packet, and the policy rules of the machine's routing do the rest
 *   strict   what has a mark leaves to its backend or not at all: without its route it would pass by the firewall
 *
 * `r-` hashes the tuple as it is, `b-` the other way round. With flow state both happen for the first packet of a flow
 * only; without, packets are not tracked, and each is placed by itself.
 */

/** After conntrack (-200), before destinations are translated. */
const PINNED_PRIORITY = -150;
/** Before conntrack, after fragments were put together (-400). */
const STATELESS_PRIORITY = -300;

/** Names of the sets of next-hop alone. */
export const NEXT_HOP_SETS = {
  /** MAC addresses of backends. */
  near: 'near',
  backends: { 4: 'nva4', 6: 'nva6' },
  ways: { 4: 'ways4', 6: 'ways6' },
} as const;

export function nextHopChains(program: KernelProgram): string[] {
  const isPinned = program.options.flowState === 'pinned';
  // Frontends are wildcards: there is one group of a family at most.
  const groups = frontendGroups(program).filter(({ wildcard }) => wildcard);
  return [
    ...chainText('refuse', undefined, ['meta l4proto tcp reject with tcp reset', 'reject']),
    ...chainText('denied', undefined, ['meta l4proto tcp reject with tcp reset', 'drop']),
    ...(isPinned ? chainText('pass', undefined, ['meta mark set ct mark', trafficRule(), 'accept']) : []),
    ...program.rules.flatMap((rule) => [
      ...chainText(`r-${rule.rule.name}`, undefined, place(program, rule, packetFields(familyOf(rule)))),
      ...chainText(
        `b-${rule.rule.name}`,
        undefined,
        place(program, rule, reversed(packetFields(familyOf(rule)))),
      ),
    ]),
    ...groups.flatMap((group) => {
      const { rules } = group;
      const { family } = group.address;
      return [
        ...chainText(`invalid${family}`, undefined, uncertain(group)),
        ...(['there', 'back'] as const).flatMap((way) => {
          const prefix = way === 'there' ? 'r' : 'b';
          const dispatch = isPinned
            ? [`ct state invalid,untracked goto invalid${family}`, ...toPinnedRule(group, prefix)]
            : toStatelessRule(rules, prefix);
          return chainText(`${way}${family}`, undefined, dispatch);
        }),
        ...spokeChains(family, program.options),
        ...(isPinned ? policyChains(group) : errorChains(family, rules, program)),
      ];
    }),
    ...(isPinned ? knownChains(groups) : []),
    ...hooks(program, groups),
  ];
}

function familyOf({ rule }: KernelRule): 4 | 6 {
  return rule.frontend.address.family;
}

/** Gives a packet the mark of its backend, and with flow state the flow. */
function place(program: KernelProgram, one: KernelRule, packet: PacketFields): string[] {
  const isPinned = program.options.flowState === 'pinned';
  const { rule, table } = one;
  const protocols = otherProtocolsRule([one]) === undefined ? 'with-ports' : 'others';
  const access = accessRules(one, 'goto denied');
  return [
    // Without flow state it is not known which end began: packets from a source that is not admitted are dropped.
    ...(isPinned ? access.map((text) => `ct direction original ${text}`) : access),
    ...(isPinned ? [...strayRules(one), ...ageingRules(one)] : []),
    'meta mark set 0',
    ...placeRules({ program, rule: one, word: 'meta mark', protocols, packet }),
    `meta mark 0 ${rule.allDown === 'drop' ? 'drop' : 'goto refuse'}`,
    // Every backend it was hashed to is out: the sender retries, and by then the table has changed.
    `meta mark @${outSet(table)} drop`,
    ...(isPinned ? ['ct mark set meta mark', 'goto pass'] : ['notrack', 'accept']),
  ];
}

/** Packets in the middle of a connection that conntrack does not know: it was idle for too long, say. */
function strayRules({ rule }: KernelRule): string[] {
  const action = rule.flowPolicy.idle.tcp;
  // The hash leads to the backend that it had.
  if (action === 'persist' || action === 'rebalance') return [];
  const verdict = action === 'drop' || !rule.tcpReset ? 'drop' : 'goto refuse';
  return [`ct state new tcp flags & (fin | syn | rst | ack) != syn ${verdict}`];
}

/** What is done to packets of flows whose backend may not keep them. */
function policyChains(group: FrontendGroup): string[] {
  const { family } = group.address;
  return [
    ...group.rules.flatMap((rule) =>
      chainText(`a-${rule.rule.name}`, undefined, [
        `meta l4proto tcp ct mark @${actionSet('tcp', 'reset', rule)} goto refuse`,
        `meta l4proto tcp ct mark @${actionSet('tcp', 'drop', rule)} drop`,
        `meta l4proto tcp ct mark @${actionSet('tcp', 'rebalance', rule)} goto new${family}`,
        `meta l4proto != tcp ct mark @${actionSet('udp', 'drop', rule)} drop`,
        `meta l4proto != tcp ct mark @${actionSet('udp', 'rebalance', rule)} goto new${family}`,
      ]),
    ),
    ...chainText(`policies${family}`, undefined, toPinnedRule(group, 'a')),
  ];
}

function knownChains(groups: readonly FrontendGroup[]): string[] {
  return chainText('known', undefined, [
    // ICMP errors are related to a flow, and go where it goes.
    ...groups.map(
      ({ address: { family } }) =>
        `meta nfproto ipv${family} ct mark @${ACTED} ct state new,established jump policies${family}`,
    ),
    'goto pass',
  ]);
}

function hooks(program: KernelProgram, groups: readonly FrontendGroup[]): string[] {
  const { interface: device, flowState } = program.options;
  const ours = hex32(markTag(program.instance));
  const mask = hex32(INSTANCE_MASK);
  const hook = (name: string, priority: number): string =>
    `type filter hook ${name} priority ${priority}; policy accept;`;
  const isPinned = flowState === 'pinned';
  return [
    ...chainText('learn', hook('prerouting', PINNED_PRIORITY - 1), ([4, 6] as const).map(learnRule)),
    ...chainText('cross', hook('prerouting', isPinned ? PINNED_PRIORITY : STATELESS_PRIORITY), [
      'iifname "lo" accept',
      ...(device === undefined ? [] : [`iifname != "${device}" accept`]),
      // This machine's own, broadcasts, multicasts.
      'fib daddr type != unicast accept',
      ...([4, 6] as const).map(
        (family) => `${ipWord(family)} daddr @${NEXT_HOP_SETS.backends[family]} accept`,
      ),
      // It has crossed a backend already, or is that one's own.
      `ether saddr @${NEXT_HOP_SETS.near} accept`,
      ...(isPinned
        ? [`ct mark & ${mask} == ${ours} goto known`]
        : groups.flatMap(({ address, rules }) => errorRule(address.family, rules))),
      ...groups.map(({ address: { family } }) => `meta nfproto ipv${family} goto new${family}`),
    ]),
    ...chainText('strict', hook('forward', PINNED_PRIORITY), [
      ...([4, 6] as const).map(
        (family) =>
          `meta mark & ${mask} == ${ours} meta nfproto ipv${family} ` +
          `meta mark . rt ${ipWord(family)} nexthop != @${NEXT_HOP_SETS.ways[family]} drop`,
      ),
    ]),
  ];
}

/**
 * The sender of an answer to a connection that this machine has opened to a backend. On the way through a router its TTL
 * would be one less than what systems start with, and the MAC address the router's.
 */
function learnRule(family: 4 | 6): string {
  const ip = ipWord(family);
  const ttl = family === 4 ? 'ip ttl' : 'ip6 hoplimit';
  return (
    `${ip} saddr @${NEXT_HOP_SETS.backends[family]} ct direction reply ct state established ` +
    `tcp flags & (fin | syn | rst | ack) == (syn | ack) ${ttl} { 64, 128, 255 } ` +
    `fib daddr type local update @${NEXT_HOP_SETS.near} { ether saddr }`
  );
}

/** What the kernel needs for mode `next-hop`: one table, and a policy rule and a routing table for each backend. */
export function nextHopSetup(program: KernelProgram): KernelSetup {
  const table = tableOf(program.instance);
  const tag = instanceTag(program.instance);
  const isPinned = program.options.flowState === 'pinned';
  // Without flow state a packet of a flow is like any other: there is nothing to act on.
  const actions: TablePart = isPinned
    ? actionPart(program, 'moves')
    : { declarations: [], elements: new Map() };
  const parts = mergeParts(placementPart(program), neighbourPart(program), actions);
  const structure = tableText(table, [
    ...(isPinned ? [...ageingObjects(program.rules), trafficDeclaration()] : []),
    ...parts.declarations,
    ...nextHopChains(program),
  ]);
  const routing = program.backends.flatMap(({ address, mark }) => routingTo(address, mark, tag));
  return { table, tag, structure, sets: parts.elements, routing, carried: [NEXT_HOP_SETS.near] };
}

/** Who the backends are, and by which gateway a mark must leave. */
function neighbourPart({ backends }: KernelProgram): TablePart {
  const elements = new Map<string, Elements>();
  const declarations = [
    // Filled by packets. A backend whose probe answers is in it.
    `  set ${NEXT_HOP_SETS.near} { type ether_addr; size 4096; flags dynamic,timeout; timeout 10m; }`,
  ];
  for (const family of [4, 6] as const) {
    const type = addressType(family);
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

/** Sends a packet to the chain of the rule that its flow has: by the port to which the flow was opened. */
export function toPinnedRule(group: FrontendGroup, prefix: string): string[] {
  const verdict = ({ rule }: KernelRule): string => `goto ${prefix}-${rule.name}`;
  const others = otherProtocolsRule(group.rules);
  return [
    ...(['tcp', 'udp'] as const).flatMap((protocol) =>
      portRules(group, protocol, { key: `meta l4proto ${protocol} ct original proto-dst`, verdict }),
    ),
    ...(others === undefined ? [] : [`${WITHOUT_PORTS} ${verdict(others)}`]),
  ];
}

/**
 * The same for a packet whose direction is not known: the first rule that has either port, so that both directions find
 * the same rule.
 */
export function toStatelessRule(rules: readonly KernelRule[], prefix: string): string[] {
  const texts = rules.flatMap((one) =>
    one.rule.protocols.flatMap((protocol) =>
      eitherPort(one, protocol).map((match) => `${match} goto ${prefix}-${one.rule.name}`),
    ),
  );
  const others = otherProtocolsRule(rules);
  return [...texts, ...(others === undefined ? [] : [`${WITHOUT_PORTS} goto ${prefix}-${others.rule.name}`])];
}

/**
 * Packets that conntrack cannot place, out of a connection's window, say. Their backend is not known, and they must not
 * pass around all of them.
 */
export function uncertain(group: FrontendGroup): string[] {
  if (otherProtocolsRule(group.rules) !== undefined) return ['drop'];
  return (['tcp', 'udp'] as const).flatMap((protocol) => {
    const ports = portTexts(coveredPorts(group, protocol)).join(', ');
    return ports === '' ? [] : ['dport', 'sport'].map((side) => `${protocol} ${side} { ${ports} } drop`);
  });
}

function eitherPort({ rule }: KernelRule, protocol: 'tcp' | 'udp'): string[] {
  const ports = portTexts(rule.ports).join(', ');
  return ports === '' ? [] : ['dport', 'sport'].map((side) => `${protocol} ${side} { ${ports} }`);
}

/*
 * ICMP errors without flow state: they belong to the flow whose packet they hold, and are placed by the tuple of that
 * packet. With flow state conntrack knows.
 */

/** Sends errors to `error4`. Empty where no rule takes other protocols than TCP and UDP. */
export function errorRule(family: 4 | 6, rules: readonly KernelRule[]): string[] {
  return otherProtocolsRule(rules) === undefined ? [] : [`${ICMP_ERRORS[family]} goto error${family}`];
}

export function errorChains(family: 4 | 6, rules: readonly KernelRule[], program: KernelProgram): string[] {
  const rule = otherProtocolsRule(rules);
  if (rule === undefined) return [];
  const spokes = program.options.spokes.filter(({ address }) => address.family === family);
  const packet = embeddedFields(family);
  const { source, destination } = packet;
  return [
    ...chainText(`error-there${family}`, undefined, placeError(rule, program, packet)),
    ...chainText(`error-back${family}`, undefined, placeError(rule, program, reversed(packet))),
    ...spokes.flatMap((_, from) =>
      chainText(
        `error${family}-${from}`,
        undefined,
        spokes.flatMap((spoke, to) =>
          to === from
            ? []
            : [`${isIn(destination, spoke)} goto error-${to > from ? 'there' : 'back'}${family}`],
        ),
      ),
    ),
    ...chainText(
      `error${family}`,
      undefined,
      spokes.map((spoke, from) => `${isIn(source, spoke)} goto error${family}-${from}`),
    ),
  ];
}

function placeError(rule: KernelRule, program: KernelProgram, packet: PacketFields): string[] {
  return [
    'meta mark set 0',
    ...placeRules({ program, rule, word: 'meta mark', protocols: 'others', packet }),
    'meta mark 0 drop',
    `meta mark @${outSet(rule.table)} drop`,
    'notrack',
    'accept',
  ];
}

/** `@th,160,32 & 0xffff0000 == 0x0a0a0000`. */
function isIn(field: string, { address, prefixLength }: Cidr): string {
  const hex = (bytes: readonly number[]): string => `0x${Buffer.from(bytes).toString('hex')}`;
  const mask = address.bytes.map((_, index) => {
    const bits = Math.min(8, Math.max(0, prefixLength - 8 * index));
    return (0xff << (8 - bits)) & 0xff;
  });
  return `${field} & ${hex(mask)} == ${hex(address.bytes)}`;
}

/**
 * `new4`: sends a packet to `there4` or `back4`. With spokes, what goes from an earlier spoke to a later one is hashed as it
 * is and the other direction the other way round, as in selection/flow-hash.ts, and the rest is not balanced. Without, the
 * direction is that of the flow.
 */
export function spokeChains(
  family: 4 | 6,
  { spokes, flowState }: Pick<KernelOptions, 'spokes' | 'flowState'>,
): string[] {
  const entry = `new${family}`;
  if (spokes.length === 0) {
    // Without flow state and without spokes both directions cannot be told apart.
    const rules =
      flowState === 'pinned'
        ? [`ct direction reply goto back${family}`, `goto there${family}`]
        : [`goto there${family}`];
    return chainText(entry, undefined, rules);
  }
  const own = spokes.filter(({ address }) => address.family === family).map(({ text }) => text);
  if (own.length < 2) return chainText(entry, undefined, []);
  const ip = ipWord(family);
  const chains = own.flatMap((_, from) => {
    const ways = own.flatMap((text, to) =>
      to === from ? [] : [`${text} : goto ${to > from ? 'there' : 'back'}${family}`],
    );
    return chainText(`from${family}-${from}`, undefined, [`${ip} daddr vmap { ${ways.join(', ')} }`]);
  });
  const sources = own.map((text, from) => `${text} : goto from${family}-${from}`);
  return [...chains, ...chainText(entry, undefined, [`${ip} saddr vmap { ${sources.join(', ')} }`])];
}
