import { PROTOCOLS, type Protocol } from '../../../model/address.js';
import { timeoutText, type Elements } from '../../netfilter/setup.js';
import type { KernelProgram, KernelRule } from '../program.js';
import { markElements, type TablePart } from './placement.js';

/**
 * What the ruleset does to packets of flows on a backend that may not keep them. `rebalance`: the flow is placed anew.
 * UDP's `reset` is that too: the flow ends, and its next datagram starts a new one.
 */
export type SetAction = 'reset' | 'drop' | 'rebalance';

/** `resets`: a TCP flow cannot be moved, since its backend is its end. `moves`: the backend is on its way. */
export type TcpRebalance = 'resets' | 'moves';

/** The marks with a rule whose flows of a protocol meet an action; UDP stands for all protocols but TCP. */
export function actionSet(protocol: Protocol, action: SetAction, rule: KernelRule): string {
  return `${protocol}-${action}-${rule.rule.name}`;
}

/** The marks in any action set: most packets meet only this one. */
export const ACTED = 'acted';

/** Without `moves`, flows are placed anew by deleting them from conntrack. */
const RESETS = [
  ['tcp', 'reset'],
  ['tcp', 'drop'],
  ['udp', 'drop'],
] as const;
const MOVES = [...RESETS, ['tcp', 'rebalance'], ['udp', 'rebalance']] as const;

/** The sets, which are empty while all backends may keep their flows. */
export function actionPart({ rules }: Pick<KernelProgram, 'rules'>, rebalance: TcpRebalance): TablePart {
  const elements = new Map<string, Elements>();
  const acted: number[] = [];
  for (const rule of rules) {
    for (const [protocol, action] of rebalance === 'moves' ? MOVES : RESETS) {
      const marks = marksOf(rule, protocol, action, rebalance);
      elements.set(actionSet(protocol, action, rule), markElements(marks));
      acted.push(...marks);
    }
  }
  elements.set(ACTED, markElements(acted));
  return {
    declarations: Array.from(elements.keys(), (name) => `  set ${name} { type mark; }`),
    elements,
  };
}

function marksOf(
  { actions }: KernelRule,
  protocol: Protocol,
  action: SetAction,
  rebalance: TcpRebalance,
): readonly number[] {
  const of = actions[protocol];
  if (protocol === 'udp') return action === 'rebalance' ? [...of.rebalance, ...of.reset] : of[action];
  return action === 'reset' && rebalance === 'resets' ? [...of.reset, ...of.rebalance] : of[action];
}

/*
 * How long conntrack keeps a flow without packets. States that are not named keep the machine's own times.
 *
 * An unanswered SYN keeps its flow on the same backend, and clients try again after 1, 3, 7, 15 and 31 s: with
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
  const seconds = idleSeconds(rule, protocol);
  // Of a flow that one end has closed the other may send for as long as it likes.
  const times: Readonly<Record<string, number>> =
    protocol === 'tcp'
      ? { ...TCP_SECONDS, established: seconds, close_wait: seconds }
      : { unreplied: seconds, replied: seconds };
  return timeoutText(objectOf(rule, protocol), protocol, rule.rule.frontend.address.family, times);
}

function objectOf(rule: KernelRule, protocol: Protocol): string {
  return `${protocol}${rule.rule.frontend.address.family}-${idleSeconds(rule, protocol)}`;
}

export function idleSeconds({ rule }: KernelRule, protocol: Protocol): number {
  return Math.max(1, Math.ceil(rule.idleTimeoutMs[protocol].value / 1000));
}
