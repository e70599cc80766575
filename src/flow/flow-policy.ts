import type { Protocol } from '../model/five-tuple.js';
import type { PoolView } from '../model/forwarding-state.js';
import type { KernelOptions } from '../model/kernel-options.js';
import type { FlowAction, FlowTrigger, Rule } from '../model/rule.js';

/** Whether a TCP flow can go on with another backend: where packets only pass through it, as they are. */
export type TcpRebalance = 'resets' | 'moves';

export function tcpRebalance(kernel: Pick<KernelOptions, 'mode'> | undefined): TcpRebalance {
  return kernel === undefined || kernel.mode === 'nat' ? 'resets' : 'moves';
}

/**
 * What happens to a flow whose backend met the trigger. A TCP stream that its backend ends cannot be moved, so
 * `rebalance` resets it. Under `allDown: fail-open` a UDP flow that would move stays while there is nowhere better to go.
 */
export function policyVerdict(
  rule: Rule,
  protocol: Protocol,
  trigger: FlowTrigger,
  view: PoolView,
  tcp: TcpRebalance = 'resets',
): FlowAction {
  const configured = rule.flowPolicy[trigger][protocol];
  if (configured !== 'rebalance') return configured;
  if (protocol === 'tcp' && tcp === 'resets') return 'reset';
  const nowhereBetter = view.table.length === 0 && rule.allDown === 'fail-open' && trigger === 'probe-down';
  return nowhereBetter ? 'persist' : 'rebalance';
}
