import { FLOW_POLICY_PRESETS } from '../model/flow-policy-presets.js';
import type { FlowPolicy } from '../model/rule.js';
import type { BoundRule } from './bind-rules.js';
import type { FlowPolicyInput } from './schema-rule.js';

/** The preset, and over it what the rule says. */
export function flowPolicyOf(rule: Pick<BoundRule, 'input' | 'pool'>): FlowPolicy {
  const preset = presetFor(rule);
  const said: FlowPolicyInput = rule.input.flowPolicy;
  return {
    'probe-down': { ...preset['probe-down'], ...said.probeDown },
    'admin-down': { ...preset['admin-down'], ...said.adminDown },
    removed: { ...preset.removed, ...said.removed },
    'drain-deadline': { ...preset['drain-deadline'], ...said.drainDeadline },
    idle: { ...preset.idle, ...said.idle },
  };
}

/**
 * In Azure, established TCP outlives its backend's probe only in a pool of more than one ("Probe down behavior"). A
 * rule that fails open goes on using its only backend, so there the flows stay too.
 */
function presetFor({ input, pool }: Pick<BoundRule, 'input' | 'pool'>): FlowPolicy {
  const name = input.flowPolicy.preset;
  const preset = FLOW_POLICY_PRESETS[name];
  const isOnly = pool.value.backends.length === 1 && input.allDown !== 'fail-open';
  if (name !== 'azure' || !isOnly) return preset;
  return { ...preset, 'probe-down': { ...preset['probe-down'], tcp: 'reset' } };
}
