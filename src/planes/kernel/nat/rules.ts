import { PROTOCOLS, cidrContains, type Cidr, type Protocol } from '../../../model/address.js';
import { portSetSize, portsOf } from '../../../model/ports.js';
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
import { instanceTag, tableOf } from '../../netfilter/routing.js';
import { INSTANCE_MASK, markTag, type KernelProgram, type KernelRule } from '../program.js';
import {
  accessRules,
  addressRules,
  blockTexts,
  coveredPorts,
  frontendGroups,
  otherProtocolsRule,
  portRules,
  portTexts,
  type FrontendGroup,
} from './dispatch.js';
import {
  WITHOUT_PORTS,
  mergeParts,
  outSet,
  packetFields,
  placeRules,
  placementPart,
  trafficDeclaration,
  trafficRule,
  type TablePart,
} from './placement.js';
import { ACTED, actionPart, actionSet, ageingObjects, ageingRules } from './policies.js';

/*
 * Chains of the table, in the order in which a packet meets them:
 *
 *   steer     nat: the first packet of a flow. `f-<frontend>` finds the rule by the port; `r-<rule>` gives the flow the
 *             mark of a backend and translates its destination. Conntrack does the rest, and undoes it in replies
 *   watch     filter: every packet of a flow of ours, after its destination was translated: policies act on it, and it is
 *             counted. And what came for a frontend and is no flow: it is refused, so that it is never routed in a loop
 *   leave     nat: the source of what would not come back through this machine
 *   clamp     filter: TCP's segment size fits the route to the backend and back
 *
 * A flow with the tag of the instance and no backend's number is one that is to be refused: nat chains cannot reject.
 * `g-<frontend>` is about packets of no flow, `p-<frontend>` and `a-<rule>` are about policies.
 */

/** Before the usual `dstnat` (-100), so that an address of ours is ours. */
const STEER_PRIORITY = -105;
/** After destinations were translated, wherever in `dstnat` a chain stands. */
const WATCH_PRIORITY = -90;

/** Names of the maps and sets of nat alone. */
const NAT_SETS = {
  address: { 4: 'addr4', 6: 'addr6' },
  own: { 4: 'hairpin4', 6: 'hairpin6' },
} as const;

/** `networks`: those with backends. */
function natChains(program: KernelProgram, networks: readonly Cidr[]): string[] {
  // Wildcards have no meaning here: what a machine offers itself would be taken from it.
  const groups = frontendGroups(program).filter(({ wildcard }) => !wildcard);
  const marks = marksOf(program);
  return [
    ...chainText('refuse', undefined, ['meta l4proto tcp reject with tcp reset', 'reject']),
    ...chainText('denied', undefined, ['meta l4proto tcp accept', 'drop']),
    ...program.rules.flatMap((rule) => chainText(`r-${rule.rule.name}`, undefined, newFlow(program, rule))),
    ...groups.flatMap((group) => chainText(`f-${group.name}`, undefined, toRule(group, 'r'))),
    ...chainText('steer', undefined, named(groups, 'daddr', 'goto f-')),
    ...program.rules.flatMap((rule) => chainText(`a-${rule.rule.name}`, undefined, acted(rule))),
    ...groups.flatMap((group) => chainText(`p-${group.name}`, undefined, toRule(group, 'a', 'ct original'))),
    ...chainText('policies', undefined, named(groups, 'ct', 'goto p-')),
    ...chainText('ours', undefined, [
      `ct mark ${marks.noBackend} goto refuse`,
      `ct mark @${ACTED} jump policies`,
      trafficRule(),
    ]),
    ...groups.flatMap((group) => chainText(`g-${group.name}`, undefined, noFlow(group))),
    ...hooks(program, groups),
    ...leaveChain(program, networks),
  ];
}

function hooks(program: KernelProgram, groups: readonly FrontendGroup[]): string[] {
  const { ours } = marksOf(program);
  const nat = (hook: string): string => `type nat hook ${hook} priority ${STEER_PRIORITY}; policy accept;`;
  return [
    ...chainText('steer-prerouting', nat('prerouting'), ['jump steer']),
    ...chainText('steer-output', nat('output'), ['jump steer']),
    ...chainText('watch-prerouting', filterHook('prerouting', WATCH_PRIORITY), [
      // What refuses a packet of a flow is related to the flow, and must not be refused itself.
      `${ours} ct state new,established goto ours`,
      ...named(groups, 'daddr', 'goto g-'),
    ]),
    ...chainText('watch-output', filterHook('output', WATCH_PRIORITY), [
      `${ours} ct state new,established goto ours`,
    ]),
    ...chainText('clamp', filterHook('forward', -150), [
      `tcp flags & (syn | rst) == syn ${ours} tcp option maxseg size set rt mtu`,
    ]),
  ];
}

function filterHook(hook: string, priority: number): string {
  return `type filter hook ${hook} priority ${priority}; policy accept;`;
}

/** A new flow of a rule. */
function newFlow(program: KernelProgram, one: KernelRule): string[] {
  const { rule, table } = one;
  const { noBackend } = marksOf(program);
  const others = otherProtocolsRule([one]) !== undefined;
  return [
    `ct mark set ${noBackend}`,
    ...accessRules(one, 'goto denied'),
    strayRule(one),
    ...ageingRules(one),
    ...placeRules({
      ...{ program, rule: one, word: 'ct mark', packet: packetFields(rule.frontend.address.family) },
      protocols: others ? 'others' : 'with-ports',
    }),
    // Every backend it was hashed to is out: the client retries, and by then the table has changed.
    `ct mark @${outSet(table)} drop`,
    `ct mark ${noBackend} ${rule.allDown === 'drop' ? 'drop' : 'accept'}`,
    ...translateRules(one, others),
    // The backend has no address of this family.
    `ct mark set ${noBackend} accept`,
  ];
}

/**
 * A packet in the middle of a connection that conntrack does not know: it was idle for too long, or ended by a policy.
 * Machines that want to hear of that keep `nf_conntrack_tcp_loose` at 1: with 0 there is no telling it from a packet out of
 * the window.
 */
function strayRule({ rule }: KernelRule): string {
  const reset = rule.tcpReset && rule.flowPolicy.idle.tcp !== 'drop';
  return `meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn ${reset ? 'accept' : 'drop'}`;
}

function translateRules({ rule }: KernelRule, others: boolean): string[] {
  const version = rule.frontend.address.family;
  const target = `dnat ${ipWord(version)} to ct mark map @${NAT_SETS.address[version]}`;
  const { portOffset, ports } = rule;
  if (portOffset === 0) return others ? [target] : [`meta l4proto { tcp, udp } ${target}`];
  const [only] = ports;
  const mapped =
    portSetSize(ports) === 1 && only !== undefined
      ? String(only.first + portOffset)
      : `th dport map { ${Array.from(portsOf(ports), (port) => `${port} : ${port + portOffset}`).join(', ')} }`;
  return [`meta l4proto { tcp, udp } ${target} : ${mapped}`];
}

/** Sends a packet to the chain of the rule whose port it has. */
function toRule(group: FrontendGroup, prefix: string, original = ''): string[] {
  const verdict = ({ rule }: KernelRule): string => `goto ${prefix}-${rule.name}`;
  const key = (protocol: Protocol): string =>
    original === '' ? `${protocol} dport` : `meta l4proto ${protocol} ${original} proto-dst`;
  const others = otherProtocolsRule(group.rules);
  return [
    ...PROTOCOLS.flatMap((protocol) => portRules(group, protocol, { key: key(protocol), verdict })),
    ...(others === undefined ? [] : [`${WITHOUT_PORTS} ${verdict(others)}`]),
  ];
}

/** What is done to packets of established flows of a rule, in both directions. */
function acted(rule: KernelRule): string[] {
  return [
    `meta l4proto tcp ct mark @${actionSet('tcp', 'reset', rule)} goto refuse`,
    `meta l4proto tcp ct mark @${actionSet('tcp', 'drop', rule)} drop`,
    `meta l4proto != tcp ct mark @${actionSet('udp', 'drop', rule)} drop`,
  ];
}

/** A packet for a frontend that no flow has. */
function noFlow(group: FrontendGroup): string[] {
  const invalid = PROTOCOLS.flatMap((protocol) => {
    const ports = portTexts(coveredPorts(group, protocol));
    // Out of the window, say: a reset would end a flow that can go on.
    return ports.length === 0 ? [] : [`${protocol} dport { ${ports.join(', ')} } ct state invalid drop`];
  });
  const others =
    otherProtocolsRule(group.rules) === undefined ? [] : [`${WITHOUT_PORTS} ct state invalid drop`];
  return [...invalid, ...others, 'fib daddr type local accept', 'goto refuse'];
}

function leaveChain(program: KernelProgram, networks: readonly Cidr[]): string[] {
  const { ours } = marksOf(program);
  const hook = 'type nat hook postrouting priority srcnat; policy accept;';
  if (program.options.returnPath === 'masquerade') return chainText('leave', hook, [`${ours} masquerade`]);
  const rules = ([4, 6] as const).flatMap((version) => {
    const ip = ipWord(version);
    const linked = blockTexts(networks, version);
    return [
      `${ours} ${ip} saddr @${NAT_SETS.own[version]} masquerade`,
      ...(linked.length === 0 ? [] : [`${ours} ${ip} saddr { ${linked.join(', ')} } masquerade`]),
    ];
  });
  return chainText('leave', hook, rules);
}

function named(groups: readonly FrontendGroup[], key: 'daddr' | 'ct', verdict: string): string[] {
  return addressRules(groups, {
    key: (ip) => (key === 'ct' ? `ct original ${ip} daddr` : `${ip} daddr`),
    verdict: (group) => `${verdict}${group.name}`,
  });
}

function marksOf({ instance }: KernelProgram): { readonly ours: string; readonly noBackend: string } {
  const noBackend = hex32(markTag(instance));
  return { noBackend, ours: `ct mark & ${hex32(INSTANCE_MASK)} == ${noBackend}` };
}

/**
 * What the kernel needs for mode `nat`: one table, and nothing of the machine's routing.
 *
 * @param networks - of this machine's own links. With `returnPath: route`, clients on one that has backends too look like
 *   this machine to them, since answers would reach those clients past it
 */
export function natSetup(program: KernelProgram, networks: readonly Cidr[] = []): KernelSetup {
  const table = tableOf(program.instance);
  const parts = mergeParts(placementPart(program), addressPart(program), actionPart(program, 'resets'));
  const structure = tableText(table, [
    ...ageingObjects(program.rules),
    trafficDeclaration(),
    ...parts.declarations,
    ...natChains(program, withBackends(networks, program)),
  ]);
  return { table, tag: instanceTag(program.instance), structure, sets: parts.elements, routing: [] };
}

function withBackends(networks: readonly Cidr[], { backends }: KernelProgram): Cidr[] {
  return networks.filter((network) => backends.some(({ address }) => cidrContains(network, address)));
}

/** Addresses of backends, by mark; and alone, for backends that are clients. */
function addressPart({ backends, options }: KernelProgram): TablePart {
  const declarations: string[] = [];
  const elements = new Map<string, Elements>();
  for (const family of [4, 6] as const) {
    const type = addressType(family);
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
