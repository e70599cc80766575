import type { PoolView } from '../model/forwarding-state.js';
import type { Protocol } from '../model/five-tuple.js';
import type { FlowAction, FlowTrigger, Rule } from '../model/rule.js';

/**
 * What happens to a flow whose backend met the trigger. A spliced TCP stream cannot be moved, so `rebalance` resets
 * it. Under `allDown: fail-open` a UDP flow that would move stays while there is nowhere better to go. In a pool of one,
 * probe-down ends established TCP that would stay (Azure, "Probe down behavior"), unless the rule fails open.
 */
export function policyVerdict(
  rule: Rule,
  protocol: Protocol,
  trigger: FlowTrigger,
  view: PoolView,
): FlowAction {
  const configured = rule.flowPolicy[trigger][protocol];
  if (configured === 'persist')
    return losesItsOnlyBackend(rule, protocol, trigger, view) ? 'reset' : 'persist';
  if (configured !== 'rebalance') return configured;
  if (protocol === 'tcp') return 'reset';
  const nowhereBetter = view.table.length === 0 && rule.allDown === 'fail-open' && trigger === 'probe-down';
  return nowhereBetter ? 'persist' : 'rebalance';
}

function losesItsOnlyBackend(rule: Rule, protocol: Protocol, trigger: FlowTrigger, view: PoolView): boolean {
  const isOnly = view.backends.length === 1 && rule.allDown !== 'fail-open';
  return protocol === 'tcp' && trigger === 'probe-down' && isOnly;
}
