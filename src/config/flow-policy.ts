import { FLOW_POLICY_PRESETS } from '../model/flow-policy-presets.js';
import type { FlowPolicy } from '../model/rule.js';
import type { FlowPolicyInput, RuleInput } from './schema-rule.js';

/** The preset, and over it what the rule says. */
export function flowPolicyOf({ flowPolicy }: RuleInput): FlowPolicy {
  const preset = FLOW_POLICY_PRESETS[flowPolicy.preset];
  const said: FlowPolicyInput = flowPolicy;
  return {
    'probe-down': { ...preset['probe-down'], ...said.probeDown },
    'admin-down': { ...preset['admin-down'], ...said.adminDown },
    removed: { ...preset.removed, ...said.removed },
    'drain-deadline': { ...preset['drain-deadline'], ...said.drainDeadline },
    idle: { ...preset.idle, ...said.idle },
  };
}
