import { ClientKeys } from '../../../src/planes/userspace/udp/client-map.js';
import { clientTuples, nth } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

export const CLIENT_KEYS: readonly MicroBench[] = [find(4), find(6)];

function find(family: 4 | 6): MicroBench {
  return {
    name: `client key: IPv${family}`,
    prepare() {
      const keys = new ClientKeys(family);
      const tuples = clientTuples(family);
      for (const { source, sourcePort } of tuples) keys.hold(source.text, sourcePort);
      const texts = tuples.map(({ source }) => source.text);
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) sum += keys.find(nth(texts, i), i & 0xffff) & 0xff;
          return sum;
        },
      };
    },
  };
}
