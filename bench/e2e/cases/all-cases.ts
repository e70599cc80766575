import type { BenchCase } from '../bench.js';
import { bulkCase } from './bulk.js';
import { captureCase } from './capture.js';
import { connectionsCase } from './connections.js';
import { growthCase } from './growth.js';
import { kernelCase } from './kernel.js';
import { latencyCase } from './latency.js';
import { memoryCase } from './memory.js';
import { requestsCase } from './requests.js';
import { startCase } from './start.js';
import { udpCase } from './udp.js';

/** In the order they run. */
export const ALL_CASES: readonly BenchCase[] = [
  requestsCase,
  connectionsCase,
  bulkCase,
  latencyCase,
  udpCase,
  memoryCase,
  startCase,
  growthCase,
  captureCase,
  kernelCase,
];
