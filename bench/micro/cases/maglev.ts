import { createHasher } from '../../../src/selection/flow-hash.js';
import { buildMaglevTable } from '../../../src/selection/maglev.js';
import { TABLE_SIZE } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

export const MAGLEV: readonly MicroBench[] = [build(3), build(1000)];

function build(count: number): MicroBench {
  return {
    name: `Maglev build: ${TABLE_SIZE} slots, ${count} backends`,
    async prepare() {
      const hash = await createHasher();
      const members = Array.from({ length: count }, (_, n) => ({
        id: `nvas/10.9.${n}`,
        weight: 1 + (n % 3),
      }));
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) sum += buildMaglevTable(members, TABLE_SIZE, hash)[i] ?? 0;
          return sum;
        },
      };
    },
  };
}
