import { parseProxyHeader, writeProxyHeader } from '../../../src/planes/userspace/tcp/proxy-protocol.js';
import { clientTuples, nth } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

export const PROXY_PROTOCOL: readonly MicroBench[] = [
  write('v1', 4),
  write('v2', 4),
  write('v2', 6),
  parse('v1', 4),
  parse('v2', 4),
  parse('v2', 6),
];

function write(version: 'v1' | 'v2', family: 4 | 6): MicroBench {
  return {
    name: `PROXY header: write ${version}, IPv${family}`,
    prepare() {
      const tuples = clientTuples(family);
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) sum += writeProxyHeader(version, nth(tuples, i)).length;
          return sum;
        },
      };
    },
  };
}

function parse(version: 'v1' | 'v2', family: 4 | 6): MicroBench {
  return {
    name: `PROXY header: parse ${version}, IPv${family}`,
    prepare() {
      const headers = clientTuples(family).map((tuple) => writeProxyHeader(version, tuple));
      return {
        run(iterations) {
          let sum = 0;
          for (let i = 0; i < iterations; i++) {
            const header = parseProxyHeader(nth(headers, i), 'any');
            sum += header.kind === 'complete' ? header.length : 0;
          }
          return sum;
        },
      };
    },
  };
}
