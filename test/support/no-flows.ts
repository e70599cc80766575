import type { KernelPlaneDeps } from '../../src/planes/kernel/plane.js';

const NONE = { used: 0, limit: 0 };

/** The flows of a kernel that has none. */
export const NO_FLOWS: KernelPlaneDeps['flows'] = {
  update: () => undefined,
  start: () => Promise.resolve(),
  stop: () => Promise.resolve(),
  page: () => Promise.resolve({ flows: [] }),
  freshen: () => Promise.resolve(),
  counters: () =>
    Promise.resolve({ traffic: [], arrivals: [], table: { tcp: NONE, udp: NONE, embryonic: NONE } }),
  count: () => 0,
  countOf: () => Promise.resolve(0),
  shortcomings: () => Promise.resolve([]),
  subscribe: () => () => undefined,
  ending: () => undefined,
};
