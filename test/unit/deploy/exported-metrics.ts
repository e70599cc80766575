import type { PlaneCounters } from '../../../src/planes/contract.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { SKETCH_REGISTERS } from '../../../src/flows/traffic.js';
import { Metrics, type MetricsSource } from '../../../src/observe/metrics.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { parseScrape } from '../../support/prometheus-text.js';
import { sampleMember, sampleState } from '../observe/sample-state.js';

/** A metric as Prometheus knows it. */
export interface ExportedMetric {
  /** `counter` and `histogram` series may be asked for rates. */
  readonly type: string;
  readonly labels: ReadonlySet<string>;
}

/** Labels that Prometheus adds to every series of a target. */
const TARGET_LABELS = ['job', 'instance'];

const BACKEND = 'nvas/127.0.0.11';

/** Something of everything, so that every metric has a series. */
const COUNTERS: PlaneCounters = {
  traffic: (['tcp', 'udp'] as const).map((protocol) => ({
    rule: 'ha-ports',
    backendId: BACKEND,
    protocol,
    flowsOpened: 10,
    flowsActive: 3,
    flowsEnded: { closed: 5 },
    bytesToBackend: 1,
    packetsToBackend: 1,
    bytesToClient: 1,
    packetsToClient: 1,
    connectRetries: 1,
    connectFailures: 1,
    resets: 1,
    lastFlowAtMs: 1_700_000_000_000,
  })),
  arrivals: [
    {
      rule: 'ha-ports',
      protocol: 'tcp',
      arrivals: 1,
      drops: { 'no-backend': 1 },
      sourceSketch: new Uint8Array(SKETCH_REGISTERS),
    },
  ],
  table: { tcp: { used: 1, limit: 9 }, udp: { used: 1, limit: 9 }, embryonic: { used: 1, limit: 9 } },
  connectSeconds: { [BACKEND]: { boundsSeconds: [0.1], counts: [1], count: 1, sumSeconds: 0.05 } },
  sourcePorts: [{ backendId: BACKEND, protocol: 'udp', sourceAddress: '127.0.0.2', used: 1, available: 9 }],
  eventLoopDelaySeconds: [0.01],
  listeners: { hub: { open: 1, wanted: 2 } },
  workersLost: 1,
  kernelFlows: {
    conntrack: { used: 1, limit: 9 },
    otherFlows: [{ backendId: BACKEND, protocol: 1, opened: 2, active: 1 }],
    ...{ unlisted: 1, gaps: 1 },
  },
};

/** Its only view has a backend that is being drained. */
function drainingState(): ForwardingState {
  const state = sampleState(7);
  return {
    ...state,
    views: state.views.map((view) => ({
      ...view,
      backends: view.backends.map(({ backend }) => ({
        ...sampleMember(backend, true),
        eligible: false,
        serving: false,
        exclusion: 'draining',
      })),
    })),
  };
}

const SOURCE: MetricsSource = {
  counters: () => Promise.resolve(COUNTERS),
  state: drainingState,
  probes: () => [
    {
      pool: 'nvas',
      backendId: BACKEND,
      probe: 'alive',
      health: 'up',
      transitions: { up: 2, down: 1 },
      results: { success: 9, failure: 1 },
      lastDurationMs: 15,
    },
  ],
  flowLog: () => ({ linesWritten: 1, linesLost: 1, writeErrors: 1 }),
  healthEvents: () => [{ name: 'NoHealthyBackends', subject: 'nvas' }],
  kernel: () => ({
    ...{ table: 'inet haports', mode: 'nat', why: '', state: 'in-place', sinceMs: 0 },
    ...{ repairs: 1, failures: 1, tool: 'nftables v1.0.6' },
  }),
  reloads: () => ({ succeeded: 1, failed: 1, lastAtMs: 1_700_000_000_000, lastSucceeded: true }),
};

/** Every metric that a process exports, by name, `_bucket`, `_sum` and `_count` of histograms too. */
export async function exportedMetrics(): Promise<ReadonlyMap<string, ExportedMetric>> {
  const metrics = new Metrics({ source: SOURCE, clock: systemClock }, { version: '0.1.0' });
  const { types, series } = parseScrape((await metrics.render()).body);
  const exported = new Map<string, ExportedMetric>([
    ['up', { type: 'gauge', labels: new Set(TARGET_LABELS) }],
  ]);
  for (const { name, labels } of series) {
    const family = types.has(name) ? name : name.replace(/_(bucket|sum|count)$/, '');
    const before = exported.get(name)?.labels ?? TARGET_LABELS;
    exported.set(name, {
      type: types.get(family) ?? '',
      labels: new Set([...before, ...Object.keys(labels)]),
    });
  }
  return exported;
}
