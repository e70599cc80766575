import type { Elements } from '../../../nft/kernel-setup.js';
import type { Protocol } from '../../../model/five-tuple.js';
import type { KernelInput, KernelRule } from '../kernel-input.js';
import { markElements, type TablePart } from './table-text.js';

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

/** What there is of action sets: without `moves`, flows are placed anew by deleting them from conntrack. */
export function actionKinds(rebalance: TcpRebalance): readonly (readonly [Protocol, SetAction])[] {
  const always = [
    ['tcp', 'reset'],
    ['tcp', 'drop'],
    ['udp', 'drop'],
  ] as const;
  return rebalance === 'resets' ? always : [...always, ['tcp', 'rebalance'], ['udp', 'rebalance']];
}

/** The sets, which are empty while everybody may keep what he has. */
export function actionPart({ rules }: Pick<KernelInput, 'rules'>, rebalance: TcpRebalance): TablePart {
  const elements = new Map<string, Elements>();
  const acted: number[] = [];
  for (const rule of rules) {
    for (const [protocol, action] of actionKinds(rebalance)) {
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
