import { CLIENT_KEYS } from './cases/client-keys.js';
import { EVENT_QUEUE } from './cases/event-queue.js';
import { FLOW_TABLE } from './cases/flow-table.js';
import { HASH } from './cases/hash.js';
import { IDLE_WHEEL } from './cases/idle-wheel.js';
import { MAGLEV } from './cases/maglev.js';
import { PICK } from './cases/pick.js';
import { PROXY_PROTOCOL } from './cases/proxy-protocol.js';
import { TUPLE_KEY } from './cases/tuple-key.js';
import { UDP_FLOWS } from './cases/udp-flows.js';
import type { MicroBench } from './micro-bench.js';

/** Every hot function, in the order in which a packet meets them. */
export const CATALOGUE: readonly MicroBench[] = [
  ...CLIENT_KEYS,
  ...UDP_FLOWS,
  ...TUPLE_KEY,
  ...HASH,
  ...PICK,
  ...FLOW_TABLE,
  ...IDLE_WHEEL,
  ...EVENT_QUEUE,
  ...PROXY_PROTOCOL,
  ...MAGLEV,
];
