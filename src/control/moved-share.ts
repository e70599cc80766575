import { isDeepStrictEqual } from 'node:util';
import type { ForwardingState, PoolView } from '../model/forwarding-state.js';
import type { Rule } from '../model/rule.js';
import { NONE_EXCLUDED, ruleAndView, tableInUse, type Picker } from '../selection/picker.js';
import { generatedTuples } from './population.js';

/** Flows drawn where slots cannot be compared: a share is then right within 0.01, 99 times of 100. */
const SAMPLE = { flows: 16_384, sources: 16_384, seed: 1 };

/** How much of a rule's hash space is another backend's in another state. */
export class MovedShares {
  readonly #before: ForwardingState;
  readonly #after: ForwardingState;
  readonly #picker: Picker;
  /** Rules that share both views share the answer. */
  readonly #bySlots = new Map<string, number>();

  constructor(before: ForwardingState, after: ForwardingState, picker: Picker) {
    this.#before = before;
    this.#after = after;
    this.#picker = picker;
  }

  /**
   * 0 to 1, for a rule by its index in each state. Exact, slot by slot, where both hash alike into tables of one size;
   * else estimated from random flows. Slots without a backend in both states are the same.
   */
  of(beforeIndex: number, afterIndex: number): number {
    const before = ruleAndView(this.#before, beforeIndex);
    const after = ruleAndView(this.#after, afterIndex);
    const tableBefore = tableInUse(before.rule, before.view)?.table;
    const tableAfter = tableInUse(after.rule, after.view)?.table;
    if (tableBefore === undefined && tableAfter === undefined) return 0;
    if (tableBefore === undefined || tableAfter === undefined) return 1;
    if (!this.#hashAlike(before.rule, after.rule) || tableBefore.length !== tableAfter.length) {
      return this.#estimate(beforeIndex, afterIndex);
    }
    const key = `${before.viewIndex} ${after.viewIndex}`;
    const known = this.#bySlots.get(key);
    if (known !== undefined) return known;
    const share = shareOfSlots(tableBefore, before.view, tableAfter, after.view);
    this.#bySlots.set(key, share);
    return share;
  }

  #hashAlike(before: Rule, after: Rule): boolean {
    const { seed, kernel } = this.#before.configuration;
    const other = this.#after.configuration;
    return (
      seed === other.seed &&
      kernel?.mode === other.kernel?.mode &&
      isDeepStrictEqual(kernel?.spokes, other.kernel?.spokes) &&
      before.distribution === after.distribution &&
      before.symmetric === after.symmetric
    );
  }

  #estimate(beforeIndex: number, afterIndex: number): number {
    let drawn = 0;
    let moved = 0;
    for (const tuple of generatedTuples(this.#after.configuration, afterIndex, SAMPLE)) {
      const from = this.#picker.pickForRule(this.#before, beforeIndex, tuple, NONE_EXCLUDED);
      const to = this.#picker.pickForRule(this.#after, afterIndex, tuple, NONE_EXCLUDED);
      drawn++;
      if (from.kind !== 'picked' || to.kind !== 'picked' || from.backendId !== to.backendId) moved++;
    }
    return drawn === 0 ? 0 : moved / drawn;
  }
}

function shareOfSlots(
  before: Uint16Array,
  viewBefore: PoolView,
  after: Uint16Array,
  viewAfter: PoolView,
): number {
  const indexAfter = new Map(viewAfter.backends.map(({ backend }, index) => [backend.id, index]));
  const heir = viewBefore.backends.map(({ backend }) => indexAfter.get(backend.id));
  let moved = 0;
  for (const [slot, index] of before.entries()) if (heir[index] !== after[slot]) moved++;
  return moved / before.length;
}
