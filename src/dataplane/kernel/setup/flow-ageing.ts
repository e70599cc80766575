import { PROTOCOLS, type Protocol } from '../../../model/five-tuple.js';
import type { KernelRule } from '../kernel-input.js';
import { ipWord } from './table-text.js';

/*
 * How long conntrack keeps a flow without packets. States that are not named keep the machine's own times.
 *
 * A SYN that nobody answers keeps its flow on the same backend, and clients try again after 1, 3, 7, 15 and 31 s: with
 * 10 s the try at 31 s is placed anew. A flow that was closed stays only for segments that were sent twice.
 */
const TCP_SECONDS = { syn_sent: 10, syn_recv: 30, time_wait: 5, close: 5 };

/** Objects that rules of the table assign to new flows: one for each idle timeout, protocol and family. */
export function ageingObjects(rules: readonly KernelRule[]): string[] {
  const objects = new Map<string, string[]>();
  for (const rule of rules) {
    for (const protocol of PROTOCOLS) objects.set(objectOf(rule, protocol), ageingObject(rule, protocol));
  }
  return [...objects.values()].flat();
}

/** Gives a new flow its times. Only before conntrack has confirmed it. */
export function ageingRules(rule: KernelRule): string[] {
  return PROTOCOLS.map((protocol) => `meta l4proto ${protocol} ct timeout set "${objectOf(rule, protocol)}"`);
}

function ageingObject(rule: KernelRule, protocol: Protocol): string[] {
  const seconds = secondsOf(rule, protocol);
  // Of a flow that one end has closed the other may send for as long as it likes.
  const times =
    protocol === 'tcp'
      ? { ...TCP_SECONDS, established: seconds, close_wait: seconds }
      : { unreplied: seconds, replied: seconds };
  const policy = Object.entries(times).map(([state, time]) => `${state} : ${time}`);
  return [
    `  ct timeout ${objectOf(rule, protocol)} {`,
    `    protocol ${protocol}`,
    `    l3proto ${ipWord(rule.frontend.address.family)}`,
    `    policy = { ${policy.join(', ')} }`,
    '  }',
  ];
}

function objectOf(rule: KernelRule, protocol: Protocol): string {
  return `${protocol}${rule.frontend.address.family}-${secondsOf(rule, protocol)}`;
}

function secondsOf({ rule }: KernelRule, protocol: Protocol): number {
  return Math.max(1, Math.ceil(rule.idleTimeoutMs[protocol].value / 1000));
}
