import type { ForwardingState } from '../../../model/forwarding-state.js';
import type { Picked } from '../../../selection/pick-result.js';
import type { UdpFlowState } from '../../hand-over.js';
import type { ListenerBinding } from '../listener.js';
import { ruleIndexIn } from './client-flow.js';

/**
 * The backend that a flow of another process was on, as a pick of the present state. Undefined where the rule there is
 * another one now, or the backend may not keep flows: a new flow finds its place then.
 */
export function pickOfRecord(
  { rule, backendId }: UdpFlowState,
  state: ForwardingState,
  binding: Pick<ListenerBinding, 'rule' | 'ruleIndex'>,
): Picked | undefined {
  if (rule !== binding.rule.name || binding.rule.udp.perPacket) return undefined;
  const ruleIndex = ruleIndexIn(state, rule, binding.ruleIndex);
  const viewIndex = state.viewOfRule[ruleIndex] ?? -1;
  const backends = state.views[viewIndex]?.backends ?? [];
  const backendIndex = backends.findIndex(({ backend }) => backend.id === backendId);
  if (backends[backendIndex]?.valid !== true) return undefined;
  return {
    kind: 'picked',
    ruleIndex,
    viewIndex,
    backendIndex,
    backendId,
    hash: 0,
    slot: 0,
    reason: 'hash',
    skipped: 0,
  };
}
