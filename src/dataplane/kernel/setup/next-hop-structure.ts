import { INSTANCE_MASK, markTag } from '../backend-marks.js';
import type { KernelInput, KernelRule } from '../kernel-input.js';
import { ACTED, actionSet } from './action-sets.js';
import { ageingRules } from './flow-ageing.js';
import { accessRules, frontendGroups, otherProtocolsRule, type FrontendGroup } from './frontend-dispatch.js';
import { toPinnedRule, toStatelessRule, uncertain } from './next-hop-dispatch.js';
import { errorChains, errorRule } from './next-hop-errors.js';
import { spokeChains } from './next-hop-spokes.js';
import { outSet, placeRules } from './placement.js';
import { chainText, hex32, ipWord, nfprotoWord } from './table-text.js';
import { trafficRule } from './traffic-counters.js';

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

export function nextHopChains(input: KernelInput): string[] {
  const isPinned = input.options.flowState === 'pinned';
  // Frontends are wildcards: there is one group of a family at most.
  const groups = frontendGroups(input).filter(({ wildcard }) => wildcard);
  return [
    ...chainText('refuse', undefined, ['meta l4proto tcp reject with tcp reset', 'reject']),
    ...chainText('denied', undefined, ['meta l4proto tcp reject with tcp reset', 'drop']),
    ...(isPinned ? chainText('pass', undefined, ['meta mark set ct mark', trafficRule(), 'accept']) : []),
    ...input.rules.flatMap((rule) => [
      ...chainText(`r-${rule.rule.name}`, undefined, place(input, rule, false)),
      ...chainText(`b-${rule.rule.name}`, undefined, place(input, rule, true)),
    ]),
    ...groups.flatMap(({ address: { family }, rules }) => [
      ...chainText(`invalid${family}`, undefined, uncertain(rules)),
      ...(['there', 'back'] as const).flatMap((way) => {
        const prefix = way === 'there' ? 'r' : 'b';
        const dispatch = isPinned
          ? [`ct state invalid,untracked goto invalid${family}`, ...toPinnedRule(rules, prefix)]
          : toStatelessRule(rules, prefix);
        return chainText(`${way}${family}`, undefined, dispatch);
      }),
      ...spokeChains(family, input.options),
      ...(isPinned ? policyChains(family, rules) : errorChains(family, rules, input)),
    ]),
    ...(isPinned ? knownChains(groups) : []),
    ...hooks(input, groups),
  ];
}

/** Gives a packet the mark of its backend, and with flow state the flow. */
function place(input: KernelInput, one: KernelRule, reversed: boolean): string[] {
  const isPinned = input.options.flowState === 'pinned';
  const { rule, table } = one;
  const protocols = otherProtocolsRule([one]) === undefined ? 'with-ports' : 'others';
  const access = accessRules(one, 'goto denied');
  return [
    // Without flow state nobody knows who began: what comes from who is not admitted goes nowhere.
    ...(isPinned ? access.map((text) => `ct direction original ${text}`) : access),
    ...(isPinned ? [...strayRules(one), ...ageingRules(one)] : []),
    'meta mark set 0',
    ...placeRules({ input, rule: one, word: 'meta mark', protocols, reversed }),
    `meta mark 0 ${rule.allDown === 'drop' ? 'drop' : 'goto refuse'}`,
    // Everybody it was hashed to is out: its sender tries again, and by then the table is another.
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
function policyChains(family: 4 | 6, rules: readonly KernelRule[]): string[] {
  return [
    ...rules.flatMap((rule) =>
      chainText(`a-${rule.rule.name}`, undefined, [
        `meta l4proto tcp ct mark @${actionSet('tcp', 'reset', rule)} goto refuse`,
        `meta l4proto tcp ct mark @${actionSet('tcp', 'drop', rule)} drop`,
        `meta l4proto tcp ct mark @${actionSet('tcp', 'rebalance', rule)} goto new${family}`,
        `meta l4proto != tcp ct mark @${actionSet('udp', 'drop', rule)} drop`,
        `meta l4proto != tcp ct mark @${actionSet('udp', 'rebalance', rule)} goto new${family}`,
      ]),
    ),
    ...chainText(`policies${family}`, undefined, toPinnedRule(rules, 'a')),
  ];
}

function knownChains(groups: readonly FrontendGroup[]): string[] {
  return chainText('known', undefined, [
    // ICMP errors are related to a flow, and go where it goes.
    ...groups.map(
      ({ address: { family } }) =>
        `meta nfproto ${nfprotoWord(family)} ct mark @${ACTED} ct state new,established jump policies${family}`,
    ),
    'goto pass',
  ]);
}

function hooks(input: KernelInput, groups: readonly FrontendGroup[]): string[] {
  const { interface: device, flowState } = input.options;
  const ours = hex32(markTag(input.instance));
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
      ...groups.map(({ address: { family } }) => `meta nfproto ${nfprotoWord(family)} goto new${family}`),
    ]),
    ...chainText('strict', hook('forward', PINNED_PRIORITY), [
      ...([4, 6] as const).map(
        (family) =>
          `meta mark & ${mask} == ${ours} meta nfproto ${nfprotoWord(family)} ` +
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
