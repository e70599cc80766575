import { flowHashOf, type KeyLayout } from '../../../src/selection/flow-hash.js';
import { clientTuples, nth } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

const FIVE_TUPLE = { distribution: 'five-tuple', symmetric: false } as const;

export const TUPLE_KEY: readonly MicroBench[] = [
  bench('IPv4', 4, FIVE_TUPLE),
  bench('IPv4, symmetric', 4, { ...FIVE_TUPLE, symmetric: true }),
  bench('IPv6, symmetric', 6, { ...FIVE_TUPLE, symmetric: true }),
];

function bench(condition: string, family: 4 | 6, layout: KeyLayout): MicroBench {
  return {
    name: `tuple key: ${condition}`,
    prepare() {
      const writer = flowHashOf({}, () => 0);
      const tuples = clientTuples(family);
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) sum += writer.write(nth(tuples, i), layout)[5] ?? 0;
          return sum;
        },
      };
    },
  };
}
