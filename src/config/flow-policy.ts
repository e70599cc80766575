import { FLOW_POLICY_PRESETS, type FlowPolicyPreset } from '../model/flow-policy-presets.js';
import type { FlowPolicy } from '../model/rule.js';
import type { BoundRule } from './bind-rules.js';
import type { FlowPolicyInput } from './schema-rule.js';

/**
 * The preset, and over it what the rule says. Preset `azure` in a pool of one: when that one is down, established TCP
 * ends too (Azure Load Balancer health probes, "Probe down behavior": it goes on only with more than one member).
 */
export function flowPolicyOf({ input: { flowPolicy }, pool }: Pick<BoundRule, 'input' | 'pool'>): FlowPolicy {
  const preset = presetFor(flowPolicy.preset, pool.value.backends.length);
  const said: FlowPolicyInput = flowPolicy;
  return {
    'probe-down': { ...preset['probe-down'], ...said.probeDown },
    'admin-down': { ...preset['admin-down'], ...said.adminDown },
    removed: { ...preset.removed, ...said.removed },
    'drain-deadline': { ...preset['drain-deadline'], ...said.drainDeadline },
    idle: { ...preset.idle, ...said.idle },
  };
}

function presetFor(name: FlowPolicyPreset, poolSize: number): FlowPolicy {
  const preset = FLOW_POLICY_PRESETS[name];
  if (name !== 'azure' || poolSize !== 1) return preset;
  return { ...preset, 'probe-down': { ...preset['probe-down'], tcp: 'reset' } };
}
