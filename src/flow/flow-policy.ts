import type { PoolView } from '../model/forwarding-state.js';
import type { Protocol } from '../model/five-tuple.js';
import type { FlowAction, FlowTrigger, Rule } from '../model/rule.js';

/**
 * What happens to a flow whose backend met the trigger. A spliced TCP stream cannot be moved, so `rebalance` resets
 * it. Under `allDown: fail-open` a UDP flow that would move stays while there is nowhere better to go.
 */
export function policyVerdict(
  rule: Rule,
  protocol: Protocol,
  trigger: FlowTrigger,
  view: PoolView,
): FlowAction {
  const configured = rule.flowPolicy[trigger][protocol];
  if (configured !== 'rebalance') return configured;
  if (protocol === 'tcp') return 'reset';
  const nowhereBetter = view.table.length === 0 && rule.allDown === 'fail-open' && trigger === 'probe-down';
  return nowhereBetter ? 'persist' : 'rebalance';
}
