import type {
  BackendPoolView,
  BackendView,
  DrainStatus,
  FeedEvent,
  FlowView,
  FrontendView,
  LiveExplanation,
  RuleView,
  StatusView,
  TrafficView,
} from '../../../../src/api/views.js';

/** A name that would be a script if anything put it into the page as HTML. */
export const HOSTILE = '<img src=x onerror="document.title=1">';

const NOW_MS = Date.now();

export function traffic(changes: Partial<TrafficView> = {}): TrafficView {
  return {
    flowsActive: 120,
    flowsOpened: 48_211,
    newFlowsPerSecond: 12.4,
    bytesToBackend: 9_400_000_000,
    bytesToClient: 41_000_000_000,
    bitsToBackendPerSecond: 48_200_000,
    bitsToClientPerSecond: 312_700_000,
    connectFailures: 3,
    resets: 41,
    ...changes,
  };
}

export function backend(number: number, changes: Partial<BackendView> = {}): BackendView {
  const address = `127.0.0.${10 + number}`;
  return {
    id: `nvas/${address}`,
    name: `nva-${number}`,
    pool: 'nvas',
    address,
    priority: 0,
    adminState: 'none',
    adminStateOrigin: 'configured',
    configuredWeight: 1,
    weight: 1,
    weightOrigin: 'configured',
    serving: true,
    valid: true,
    health: 'up',
    probes: [
      {
        probe: 'alive',
        state: 'up',
        consecutiveSuccesses: 412,
        consecutiveFailures: 0,
        transitions: 3,
        last: { verdict: 'success', evidence: 'HTTP 200', durationMs: 1.7 },
        history: [
          { atMs: NOW_MS - 7_200_000, from: 'unknown', to: 'up', evidence: 'HTTP 200' },
          { atMs: NOW_MS - 900_000, from: 'up', to: 'down', evidence: 'HTTP 503' },
          { atMs: NOW_MS - 840_000, from: 'down', to: 'up', evidence: 'HTTP 200' },
        ],
      },
    ],
    hashShare: 1 / 3,
    realShare: 0.31 + number / 100,
    lastNewFlowAtMs: NOW_MS - 300,
    traffic: traffic({ flowsActive: 40, bitsToBackendPerSecond: 16_000_000 * number }),
    ...changes,
  };
}

export const DOWN: Partial<BackendView> = {
  serving: false,
  valid: false,
  exclusion: 'probe-down',
  health: 'down',
  hashShare: 0,
  realShare: 0.08,
  traffic: traffic({
    flowsActive: 7,
    newFlowsPerSecond: 0,
    bitsToBackendPerSecond: 0,
    bitsToClientPerSecond: 0,
  }),
  probes: [
    {
      probe: 'alive',
      state: 'down',
      consecutiveSuccesses: 0,
      consecutiveFailures: 88,
      transitions: 2,
      last: { verdict: 'failure', evidence: 'ECONNREFUSED', durationMs: 0.4 },
      history: [{ atMs: NOW_MS - 440_000, from: 'up', to: 'down', evidence: 'ECONNREFUSED' }],
    },
  ],
};

export function pool(backends: readonly BackendView[]): BackendPoolView {
  return {
    name: 'nvas',
    minimumHealthy: 1,
    servingPriority: 0,
    serving: backends.filter((one) => one.serving).length,
    rules: ['ha-ports'],
    backends,
  };
}

export const FRONTENDS: readonly FrontendView[] = [
  {
    name: 'hub',
    address: '127.0.0.1',
    rules: ['ha-ports', 'dns'],
    listeners: { open: 200, wanted: 200 },
    traffic: traffic(),
  },
  {
    name: 'hub-v6',
    address: '::1',
    rules: [],
    listeners: { open: 0, wanted: 0 },
    traffic: traffic({ bitsToBackendPerSecond: 0, bitsToClientPerSecond: 0, newFlowsPerSecond: 0 }),
  },
];

export const RULES: readonly RuleView[] = [
  {
    name: 'ha-ports',
    frontend: 'hub',
    backendPool: 'nvas',
    probe: 'alive',
    protocols: ['tcp', 'udp'],
    haPorts: true,
    ports: '8000-8099',
    distribution: 'five-tuple',
    symmetric: true,
    floatingIp: false,
    allDown: 'reset',
    serving: 3,
    arrivals: 48_300,
    drops: {},
    distinctSources: 911,
    traffic: traffic(),
  },
  {
    name: 'dns',
    frontend: 'hub',
    backendPool: 'nvas',
    protocols: ['udp'],
    haPorts: false,
    ports: '53',
    distribution: 'source-ip',
    symmetric: false,
    floatingIp: false,
    allDown: 'drop',
    serving: 3,
    arrivals: 10,
    drops: {},
    distinctSources: 4,
    traffic: traffic({ bitsToBackendPerSecond: 800, bitsToClientPerSecond: 2400, newFlowsPerSecond: 0.2 }),
  },
];

export function status(drains: readonly DrainStatus[] = []): StatusView {
  return {
    version: '0.1.0',
    pid: 4711,
    startedAtMs: NOW_MS - 93_600_000,
    workers: 2,
    workersLost: 0,
    configuration: {
      source: '/etc/haports/config.json',
      digest: 'a3f1c8e9d2b45566778899aabbccddee',
      loadedAtMs: NOW_MS - 7_200_000,
    },
    revision: 17,
    problems: [],
    listeners: { tcp: 100, udp: 100 },
    table: {
      tcp: { used: 81, limit: 65_536 },
      udp: { used: 39, limit: 65_536 },
      embryonic: { used: 2, limit: 4096 },
    },
    traffic: traffic(),
    backends: { total: 4, serving: 3 },
    drains,
  };
}

export function flow(id: number, changes: Partial<FlowView> = {}): FlowView {
  return {
    id,
    tuple: {
      protocol: id % 3 === 0 ? 'udp' : 'tcp',
      source: '192.0.2.7',
      sourcePort: 40_000 + id,
      destination: '127.0.0.1',
      destinationPort: 8000 + (id % 100),
    },
    rule: 'ha-ports',
    backendId: `nvas/127.0.0.${11 + (id % 3)}`,
    backendEndpoint: `127.0.0.${11 + (id % 3)}:${8000 + (id % 100)}`,
    reason: id % 7 === 0 ? 'pinned' : 'hash',
    state: 'established',
    epoch: 17,
    excluded: [],
    openedAtMs: NOW_MS - id * 1700,
    idleMs: (id * 37) % 900,
    bytesToBackend: id * 12_345,
    packetsToBackend: id * 20,
    bytesToClient: id * 345_678,
    packetsToClient: id * 31,
    bitsPerSecond: id * 1000,
    ...changes,
  };
}

export const EXPLANATION: LiveExplanation = {
  verdict: 'No such flow is live; a new one would go to nvas/nva-2 at 127.0.0.12:8000',
  revision: 17,
  configDigest: 'a3f1c8e9d2b4',
  tuple: 'tcp 192.0.2.7:40000 -> 127.0.0.1:8000',
  protocol: 'tcp',
  excluded: [],
  result: {
    kind: 'picked',
    ruleIndex: 0,
    viewIndex: 0,
    backendIndex: 1,
    backendId: 'nvas/127.0.0.12',
    hash: 3_735_928_559,
    slot: 31_337,
    reason: 'hash',
    skipped: 0,
  },
  rule: {
    name: 'ha-ports',
    haPorts: true,
    ports: '8000-8099',
    frontend: 'hub',
    frontendAddress: '127.0.0.1',
    backendPool: 'nvas',
    probe: 'alive',
  },
  otherRules: [{ name: 'dns', why: 'other-protocol' }],
  access: { admitted: true, because: 'no-lists' },
  key: {
    distribution: 'five-tuple',
    symmetric: true,
    destinationFirst: true,
    algorithm: 'xxh32',
    fields: [
      { name: 'family', hex: '04', value: 'IPv4' },
      { name: 'protocol', hex: '06', value: 'tcp' },
      { name: 'source address', hex: 'c0000207', value: '192.0.2.7' },
      { name: 'destination address', hex: '7f000001', value: '127.0.0.1' },
      { name: 'source port', hex: '9c40', value: '40000' },
      { name: 'destination port', hex: '1f40', value: '8000' },
    ],
    hex: '04067f000001c00002071f409c40',
    seed: 0,
    hash: 3_735_928_559,
  },
  table: {
    size: 65_537,
    failOpen: false,
    slot: 31_337,
    owner: 'nvas/127.0.0.12',
    servingPriority: 0,
    perPacket: false,
  },
  candidates: [1, 2, 3, 4].map((number) => ({
    id: `nvas/127.0.0.${10 + number}`,
    name: `nva-${number}`,
    address: `127.0.0.${10 + number}`,
    health: number === 4 ? ('down' as const) : ('up' as const),
    adminState: 'none' as const,
    configuredWeight: 1,
    effectiveWeight: 1,
    priority: 0,
    valid: number !== 4,
    slots: number === 4 ? 0 : 21_845,
    share: number === 4 ? 0 : 1 / 3,
    chosen: number === 2,
    ...(number === 4 ? { skipped: 'probe-down' as const } : {}),
  })),
  endpoint: { address: '127.0.0.12', port: 8000, text: '127.0.0.12:8000', floatingIp: false, portOffset: 0 },
  timeouts: [{ name: 'idle', valueMs: 240_000, origin: 'default' }],
};

export function drain(flowsLeft: number, changes: Partial<DrainStatus> = {}): DrainStatus {
  return {
    deadlineMs: 600_000,
    then: 'reset',
    spreadMs: 10_000,
    pool: 'nvas',
    backendId: 'nvas/127.0.0.12',
    backendName: 'nva-2',
    phase: flowsLeft === 0 ? 'done' : 'draining',
    startedAtMs: Date.now(),
    deadlineAtMs: Date.now() + 600_000,
    flowsAtStart: 40,
    flows: { tcp: flowsLeft, udp: 0 },
    predictedFinishAtMs: Date.now() + 75_000,
    lastNewFlowAtMs: Date.now() - 400,
    longest: [],
    ...changes,
  };
}

export function feedEvent(id: number, changes: Partial<FeedEvent> = {}): FeedEvent {
  return {
    id,
    atMs: Date.now(),
    level: id % 4 === 0 ? 'warn' : 'info',
    type: id % 4 === 0 ? 'health-changed' : 'applied',
    message: id % 4 === 0 ? `Backend nva-${id % 5} is down: HTTP 503` : `Revision ${id} is served`,
    fields: {},
    ...changes,
  };
}
