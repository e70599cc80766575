import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker, NONE_EXCLUDED } from '../../../src/selection/picker.js';
import { clientTuples, maglevState, nth } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

export const PICK: readonly MicroBench[] = [
  pickForRule(3, 1),
  pickForRule(1000, 1),
  pickForRule(3, 100),
  pickForRule(1000, 100),
  withExcluded(3, 1),
  withExcluded(1000, 100),
  fromScratch(100),
];

function pickForRule(backends: number, rules: number): MicroBench {
  return {
    name: `pickForRule: ${condition(backends, rules)}`,
    async prepare() {
      const picker = new Picker(await createHasher());
      const state = await maglevState(backends, rules);
      const tuples = clientTuples(4);
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) {
            const pick = picker.pickForRule(state, i % rules, nth(tuples, i), NONE_EXCLUDED);
            sum += pick.kind === 'picked' ? pick.slot : 1;
          }
          return sum;
        },
      };
    },
  };
}

/** As for a flow whose backends are partly at their cap. */
function withExcluded(backends: number, excludedCount: number): MicroBench {
  return {
    name: `pickForRule: ${condition(backends, 1)}, ${excludedCount} excluded`,
    async prepare() {
      const picker = new Picker(await createHasher());
      const state = await maglevState(backends, 1);
      const members = state.views[0]?.backends ?? [];
      const excluded = new Set(members.slice(0, excludedCount).map(({ backend }) => backend.id));
      const tuples = clientTuples(4);
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) {
            const pick = picker.pickForRule(state, 0, nth(tuples, i), excluded);
            sum += pick.kind === 'picked' ? pick.slot : 1;
          }
          return sum;
        },
      };
    },
  };
}

function fromScratch(rules: number): MicroBench {
  return {
    name: `pick, rule and all: ${condition(3, rules)}`,
    async prepare() {
      const picker = new Picker(await createHasher());
      const state = await maglevState(3, rules);
      const { address } = state.configuration.frontends[0]!;
      const tuples = clientTuples(4).map((tuple, n) => ({
        ...tuple,
        destination: address,
        destinationPort: 1 + (n % rules),
      }));
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) {
            const pick = picker.pick(state, nth(tuples, i), NONE_EXCLUDED);
            sum += pick.kind === 'picked' ? pick.slot : 1;
          }
          return sum;
        },
      };
    },
  };
}

function condition(backends: number, rules: number): string {
  return `${backends} backends, ${rules} ${rules === 1 ? 'rule' : 'rules'}`;
}
