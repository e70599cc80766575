import type { KernelInput, KernelRule } from '../kernel-input.js';
import { ACTED, actionSet } from './action-sets.js';
import { errorChain, errorRules } from './floating-errors.js';
import { FlowStatements, idleSeconds, OPENING, SETTLING, whenFull } from './floating-flows.js';
import { flowKey, pairKey } from './floating-keys.js';
import {
  accessRules,
  frontendGroups,
  otherProtocolsRule,
  portRules,
  type FrontendGroup,
} from './frontend-dispatch.js';
import { WITHOUT_PORTS } from './flow-hash-text.js';
import { outSet, placeRules } from './placement.js';
import { chainText } from './table-text.js';

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
  input: KernelInput,
  fragments: (group: FrontendGroup) => readonly string[],
): string[] {
  const groups = frontendGroups(input);
  return [
    ...chainText('refuse', undefined, ['meta l4proto tcp reject with tcp reset', 'reject']),
    ...groups.flatMap((group) => group.rules.flatMap((rule) => ruleChains(input, group, rule))),
    ...groups.flatMap((group) => errorChain(input, group)),
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
    ...portRules(rules, 'tcp', { key: 'tcp dport', verdict: to('t') }),
    ...portRules(rules, 'udp', { key: 'udp dport', verdict: to('u') }),
    ...(others === undefined ? [] : [`${WITHOUT_PORTS} ${to('o')(others)}`]),
    'fib daddr type local accept',
    'goto refuse',
  ];
}

function ruleChains(input: KernelInput, group: FrontendGroup, rule: KernelRule): string[] {
  const { name } = rule.rule;
  const others = otherProtocolsRule(group.rules) === rule;
  const pinned = input.options.flowState === 'pinned';
  const stateless = (place: string): string[] => ['meta mark set 0', `jump ${place}-${name}`, 'goto send'];
  const has = (protocol: 'tcp' | 'udp'): boolean => rule.rule.protocols.includes(protocol);
  return [
    ...chainText(`n-${name}`, undefined, newFlow(input, rule, 'with-ports')),
    ...(others ? chainText(`no-${name}`, undefined, newFlow(input, rule, 'others')) : []),
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
function newFlow(input: KernelInput, rule: KernelRule, protocols: 'with-ports' | 'others'): string[] {
  const denied = protocols === 'others' ? 'drop' : 'goto denied';
  const placed = placeRules({ input, rule, word: 'meta mark', protocols });
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
  const key = flowKey(group.address.family);
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
  const { family } = group.address;
  const key = lane === 'udp' ? flowKey(family) : pairKey(family);
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
