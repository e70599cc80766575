import { createHasher, flowHashOf } from '../../../src/selection/flow-hash.js';
import { clientTuples, nth } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

export const HASH: readonly MicroBench[] = [bench(4), bench(6)];

function bench(family: 4 | 6): MicroBench {
  const bytes = family === 4 ? 14 : 38;
  return {
    name: `xxh32: ${bytes} bytes (IPv${family})`,
    async prepare() {
      const hash = await createHasher();
      const writer = flowHashOf({}, hash);
      const keys = clientTuples(family).map((tuple) =>
        writer.write(tuple, { distribution: 'five-tuple', symmetric: false }).slice(),
      );
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) sum += hash(nth(keys, i), 0);
          return sum;
        },
      };
    },
  };
}
