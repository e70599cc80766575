import { formatFiveTuple, type FiveTuple } from '../model/five-tuple.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { ExplainedWayBack } from './explanation.js';
import { NONE_EXCLUDED, type Picker } from './picker.js';
import { NO_RULE } from './rule-matcher.js';

/**
 * Where packets of the other direction go, for the mode in which they meet the same rules: `next-hop`. Undefined with
 * others: there answers belong to their flow. Pure.
 */
export function explainWayBack(
  picker: Picker,
  state: ForwardingState,
  tuple: FiveTuple,
): ExplainedWayBack | undefined {
  const { kernel } = state.configuration;
  const there = picker.matchRule(state, tuple);
  if (kernel?.mode !== 'next-hop' || there === NO_RULE) return undefined;
  const back: FiveTuple = {
    protocol: tuple.protocol,
    source: tuple.destination,
    sourcePort: tuple.destinationPort,
    destination: tuple.source,
    destinationPort: tuple.sourcePort,
  };
  const rule = picker.matchRule(state, back);
  const result = rule === NO_RULE ? undefined : picker.pick(state, back, NONE_EXCLUDED);
  // The same bytes: two hashes can be the same backend's by chance.
  const isSame =
    rule === there &&
    Buffer.compare(picker.hashOf(state, there, tuple).bytes, picker.hashOf(state, rule, back).bytes) === 0;
  return {
    tuple: formatFiveTuple(back),
    sameBy: isSame ? 'hash' : kernel.flowState === 'pinned' ? 'flow' : 'nothing',
    ...(result?.kind === 'picked' ? { hashedTo: result.backendId } : {}),
  };
}
