import type { KernelRule } from '../kernel-input.js';
import { coveredPorts, otherProtocolsRule, portRules, portTexts } from './frontend-dispatch.js';
import { WITHOUT_PORTS } from './flow-hash-text.js';

/** Sends a packet to the chain of the rule that its flow has: by the port to which the flow was opened. */
export function toPinnedRule(rules: readonly KernelRule[], prefix: string): string[] {
  const verdict = ({ rule }: KernelRule): string => `goto ${prefix}-${rule.name}`;
  const others = otherProtocolsRule(rules);
  return [
    ...(['tcp', 'udp'] as const).flatMap((protocol) =>
      portRules(rules, protocol, { key: `meta l4proto ${protocol} ct original proto-dst`, verdict }),
    ),
    ...(others === undefined ? [] : [`${WITHOUT_PORTS} ${verdict(others)}`]),
  ];
}

/**
 * The same for a packet of which nobody knows whether it goes or comes back: the first rule that has either port, so that
 * both directions find the same.
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
 * Packets that conntrack cannot place, out of a connection's window, say. Nobody knows which backend they belong to, and past
 * all of them they must not go.
 */
export function uncertain(rules: readonly KernelRule[]): string[] {
  if (otherProtocolsRule(rules) !== undefined) return ['drop'];
  return (['tcp', 'udp'] as const).flatMap((protocol) => {
    const ports = portTexts(coveredPorts(rules, protocol)).join(', ');
    return ports === '' ? [] : ['dport', 'sport'].map((side) => `${protocol} ${side} { ${ports} } drop`);
  });
}

function eitherPort({ rule }: KernelRule, protocol: 'tcp' | 'udp'): string[] {
  const ports = portTexts(rule.ports).join(', ');
  return ports === '' ? [] : ['dport', 'sport'].map((side) => `${protocol} ${side} { ${ports} }`);
}
