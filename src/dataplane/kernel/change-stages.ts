import type { KernelSetup } from '../../nft/kernel-setup.js';
import type { KernelInput } from './kernel-input.js';
import { ACTED, actionSet } from './setup/action-sets.js';
import { slotMap } from './setup/placement.js';

/**
 * What of a change is to be in force first: who is out, and what becomes of his flows. A few elements, where the slots of
 * a table are thousands. TCP flows that are being reset go on being reset until the last stage. Of setups of the same
 * structure; `input` is that of `to`.
 */
export function urgentStage(from: KernelSetup, to: KernelSetup, input: KernelInput): KernelSetup {
  const late = new Set(input.tables.map(slotMap));
  const kept = new Set([ACTED, ...input.rules.map((rule) => actionSet('tcp', 'reset', rule))]);
  const sets = new Map(
    Array.from(to.sets, ([name, elements]) => {
      const before = from.sets.get(name);
      if (before === undefined) return [name, elements];
      if (late.has(name)) return [name, before];
      return [name, kept.has(name) ? new Map([...before, ...elements]) : elements];
    }),
  );
  return { ...to, sets };
}
