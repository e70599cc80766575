import { SKETCH_REGISTERS } from '../../../src/flows/traffic.js';
import type { MetricsFacts } from '../../../src/observe/metric-table.js';
import type { MetricsSource } from '../../../src/observe/metrics.js';
import type { PlaneCounters, TrafficCounters } from '../../../src/planes/contract.js';
import { sampleState } from './sample-state.js';

const NVA1 = 'nvas/127.0.0.11';

export function sampleTraffic(backendId: string, changes: Partial<TrafficCounters> = {}): TrafficCounters {
  return {
    ...{ rule: 'ha-ports', backendId, protocol: 'tcp', flowsOpened: 10, flowsActive: 3 },
    flowsEnded: { closed: 5, idle: 2 },
    ...{ bytesToBackend: 1000, packetsToBackend: 20, bytesToClient: 5000, packetsToClient: 40 },
    ...{ connectRetries: 1, connectFailures: 2, resets: 4, lastFlowAtMs: 1_700_000_000_500 },
    ...changes,
  };
}

/** What clients of these numbers would leave behind. */
function sketch(...filled: readonly number[]): Uint8Array {
  return Uint8Array.from({ length: SKETCH_REGISTERS }, (_, index) => (filled.includes(index) ? 1 : 0));
}

/** Something of everything, so that every metric has a series. */
export const COUNTERS: PlaneCounters = {
  traffic: [
    sampleTraffic(NVA1),
    sampleTraffic(NVA1, {
      ...{ protocol: 'udp', flowsOpened: 7, connectFailures: 0, lastFlowAtMs: 1_700_000_002_000 },
    }),
  ],
  arrivals: [
    {
      ...{ rule: 'ha-ports', protocol: 'tcp', arrivals: 12, drops: { 'no-backend': 2 } },
      sourceSketch: sketch(1, 2, 3),
    },
    { rule: 'ha-ports', protocol: 'udp', arrivals: 3, drops: {}, sourceSketch: sketch(3, 4) },
    { rule: 'ha-ports6', protocol: 'udp', arrivals: 1, drops: {} },
  ],
  table: { tcp: { used: 3, limit: 100 }, udp: { used: 0, limit: 100 }, embryonic: { used: 1, limit: 10 } },
  descriptors: { used: 6, limit: 900 },
  connectSeconds: {
    [NVA1]: { boundsSeconds: [0.001, 0.01, 0.1], counts: [4, 8, 9], count: 10, sumSeconds: 0.75 },
  },
  sourcePorts: [{ backendId: NVA1, protocol: 'udp', sourceAddress: '127.0.0.2', used: 7, available: 28_232 }],
  eventLoopDelaySeconds: [0.012, 0.5],
  listeners: { hub: { open: 150, wanted: 200 }, hub6: { open: 0, wanted: 0 } },
  workersLost: 1,
  kernelFlows: {
    conntrack: { used: 7, limit: 10 },
    otherFlows: [
      { backendId: NVA1, protocol: 1, opened: 5, active: 2 },
      { backendId: 'nvas/127.0.0.12', protocol: 253, opened: 3, active: 0 },
    ],
    ...{ unlisted: 4, gaps: 1 },
  },
};

/** nva-1 is being drained, nva-2 is down. */
const FACTS: MetricsFacts = {
  state: sampleState(7, undefined, true),
  probes: [
    {
      ...{ pool: 'nvas', backendId: NVA1, probe: 'alive', health: 'up', transitions: { up: 2, down: 1 } },
      ...{ results: { success: 90, failure: 4 }, inconclusive: { ports: 3 }, lastDurationMs: 15 },
    },
    {
      ...{ pool: 'nvas', backendId: 'nvas/127.0.0.12', probe: 'alive', health: 'down' },
      transitions: { up: 0, down: 1 },
    },
  ],
  flowLog: { linesWritten: 11, linesLost: 2, writeErrors: 1 },
  healthEvents: [
    { name: 'NoHealthyBackends', subject: 'nvas' },
    { name: 'ProbeUpTrafficFailing', subject: NVA1 },
  ],
  reloads: { succeeded: 4, failed: 1, lastAtMs: 1_700_000_001_000, lastSucceeded: false },
  kernel: {
    ...{ table: 'inet haports', mode: 'capture, udp redirect', why: '', state: 'in-place' },
    ...{ sinceMs: 0, repairs: 3, failures: 2, tool: 'nftables v1.0.6' },
  },
};

export function sampleSource(
  facts: Partial<MetricsFacts> = {},
  counters: Partial<PlaneCounters> = {},
): MetricsSource {
  return {
    counters: () => Promise.resolve({ ...COUNTERS, ...counters }),
    facts: () => ({ ...FACTS, ...facts }),
  };
}
