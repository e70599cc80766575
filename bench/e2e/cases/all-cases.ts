import type { BenchCase } from '../bench.js';
import { bulkCase } from './bulk.js';
import { connectionsCase } from './connections.js';
import { latencyCase } from './latency.js';
import { memoryCase } from './memory.js';
import { requestsCase } from './requests.js';

/** In the order they run. */
export const ALL_CASES: readonly BenchCase[] = [
  requestsCase,
  connectionsCase,
  bulkCase,
  latencyCase,
  memoryCase,
];
