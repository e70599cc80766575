import type {
  BackendPoolView,
  BackendView,
  DrainStatus,
  FeedEvent,
  FlowList,
  FlowView,
  FrontendView,
  LiveExplanation,
  PlanReport,
  ReloadOutcome,
  RuleView,
  SimulationReport,
  StatusView,
  TrafficView,
  UpgradeOutcome,
} from '../../src/api/views.js';

/** The moment that all fixtures are seen at. */
export const NOW_MS = 1_700_000_000_000;

export function aTraffic(more: Partial<TrafficView> = {}): TrafficView {
  return {
    flowsActive: 42,
    flowsOpened: 12_345,
    newFlowsPerSecond: 7.25,
    bytesToBackend: 1_500_000,
    bytesToClient: 98_765_432,
    bitsToBackendPerSecond: 1_200_000,
    bitsToClientPerSecond: 345_600_000,
    connectFailures: 3,
    resets: 4,
    ...more,
  };
}

/** Nothing comes any more. */
export const NO_TRAFFIC = aTraffic({
  newFlowsPerSecond: 0,
  bitsToBackendPerSecond: 0,
  bitsToClientPerSecond: 0,
});

export function aStatus(more: Partial<StatusView> = {}): StatusView {
  return {
    version: '0.1.0',
    pid: 4711,
    startedAtMs: NOW_MS - 11_100_000,
    workers: 2,
    workersLost: 0,
    configuration: {
      source: 'config.json',
      digest: 'abcdef0123456789abcdef',
      loadedAtMs: NOW_MS - 720_000,
      lastReload: { atMs: NOW_MS - 720_000, ok: true, message: 'revision 17' },
    },
    revision: 17,
    problems: [],
    listeners: { tcp: 100, udp: 100 },
    table: {
      tcp: { used: 30, limit: 65_536 },
      udp: { used: 12, limit: 65_536 },
      embryonic: { used: 0, limit: 4096 },
    },
    traffic: aTraffic(),
    backends: { total: 3, serving: 2 },
    drains: [],
    ...more,
  };
}

export function aBackendView(name: string, address: string, more: Partial<BackendView> = {}): BackendView {
  return {
    id: `nvas/${address}`,
    name,
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
        consecutiveSuccesses: 12,
        consecutiveFailures: 0,
        transitions: 1,
        last: { verdict: 'success', evidence: 'HTTP 200', durationMs: 2 },
        history: [],
      },
    ],
    hashShare: 0.5,
    realShare: 0.487,
    lastNewFlowAtMs: NOW_MS - 1500,
    traffic: aTraffic(),
    ...more,
  };
}

export function aPool(more: Partial<BackendPoolView> = {}): BackendPoolView {
  return {
    name: 'nvas',
    minimumHealthy: 1,
    servingPriority: 0,
    serving: 2,
    rules: ['ha-ports'],
    backends: [
      aBackendView('nva-1', '127.0.0.11'),
      aBackendView('nva-2', '127.0.0.12', { weight: 5, weightOrigin: 'operator' }),
      aBackendView('nva-3', '127.0.0.13', {
        serving: false,
        exclusion: 'probe-down',
        health: 'down',
        hashShare: 0,
        probes: [
          {
            probe: 'alive',
            state: 'down',
            consecutiveSuccesses: 0,
            consecutiveFailures: 9,
            transitions: 2,
            last: { verdict: 'failure', evidence: 'HTTP 503', durationMs: 1 },
            history: [],
          },
        ],
      }),
    ],
    ...more,
  };
}

export function aFlow(id: number, more: Partial<FlowView> = {}): FlowView {
  return {
    id,
    tuple: {
      protocol: 'tcp',
      source: '192.0.2.7',
      sourcePort: 40_000 + id,
      destination: '127.0.0.1',
      destinationPort: 8080,
    },
    rule: 'ha-ports',
    backendId: 'nvas/127.0.0.11',
    backendEndpoint: '127.0.0.11:8080',
    reason: 'hash',
    state: 'established',
    epoch: 3,
    excluded: [],
    openedAtMs: NOW_MS - 192_000 - id,
    idleMs: 1200,
    bytesToBackend: 1000 + id,
    packetsToBackend: 10,
    bytesToClient: 2_000_000,
    packetsToClient: 1400,
    ...more,
  };
}

export function aFlowList(flows: readonly FlowView[], matched = flows.length): FlowList {
  return { flows, matched };
}

export function aDrain(more: Partial<DrainStatus> = {}): DrainStatus {
  return {
    deadlineMs: 600_000,
    then: 'reset',
    spreadMs: 10_000,
    pool: 'nvas',
    backendId: 'nvas/127.0.0.11',
    backendName: 'nva-1',
    phase: 'draining',
    startedAtMs: NOW_MS - 60_000,
    deadlineAtMs: NOW_MS + 540_000,
    flowsAtStart: 300,
    flows: { tcp: 10, udp: 2 },
    predictedFinishAtMs: NOW_MS + 192_000,
    lastNewFlowAtMs: NOW_MS - 61_000,
    longest: [aFlow(1)],
    ...more,
  };
}

export function aPlan(more: Partial<PlanReport> = {}): PlanReport {
  return {
    fromDigest: 'aaaa',
    toDigest: 'bbbb',
    revision: 17,
    rules: [
      {
        name: 'ha-ports',
        change: 'changed',
        changes: ['distribution'],
        movedShare: 0.015,
        flows: {
          tcp: { stay: 40, move: 0, reset: 2, drop: 0 },
          udp: { stay: 5, move: 1, reset: 0, drop: 0 },
        },
      },
    ],
    movedShare: 0.015,
    flows: { stay: 45, move: 1, reset: 2, drop: 0 },
    backends: {
      added: [{ pool: 'nvas', backendId: 'nvas/127.0.0.14', name: 'nva-4' }],
      removed: [],
      changed: [],
    },
    probeStateLost: [],
    listeners: { kept: 200, opened: 0, closed: 0 },
    restartNeeded: [],
    steps: ['add nvas/nva-4'],
    ...more,
  };
}

export function aReload(): ReloadOutcome {
  return {
    findings: [],
    report: {
      revision: 18,
      digest: 'bbbbbbbbbbbbbbbbbbbb',
      plan: aPlan(),
      kept: { flows: 46, probeTargets: 3, adminStates: 1, drains: 0, listeners: 200 },
      lost: { flows: 2, probeTargets: 0, overrides: [], listeners: 0 },
      durationMs: 12.5,
    },
  };
}

export function anEvent(id: number, more: Partial<FeedEvent> = {}): FeedEvent {
  return {
    id,
    atMs: NOW_MS + id,
    level: 'warn',
    type: 'health-changed',
    message: `nva-${id} is down: HTTP 503`,
    fields: {},
    ...more,
  };
}

export function aFrontend(more: Partial<FrontendView> = {}): FrontendView {
  return {
    name: 'hub',
    address: '127.0.0.1',
    rules: ['ha-ports'],
    listeners: { open: 200, wanted: 200 },
    traffic: aTraffic(),
    ...more,
  };
}

export function aRuleView(more: Partial<RuleView> = {}): RuleView {
  return {
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
    serving: 2,
    arrivals: 12_400,
    drops: { 'no-backend': 1 },
    distinctSources: 911,
    traffic: aTraffic(),
    ...more,
  };
}

export function anExplanation(more: Partial<LiveExplanation> = {}): LiveExplanation {
  return {
    revision: 17,
    configDigest: 'abcdef0123456789',
    tuple: 'tcp 192.0.2.7:40001 -> 127.0.0.1:8080',
    protocol: 'tcp',
    excluded: [],
    result: { kind: 'no-rule' },
    otherRules: [],
    candidates: [],
    timeouts: [],
    flow: aFlow(1, { reason: 'pinned', excluded: ['nvas/127.0.0.12'] }),
    verdict: 'The live flow is elsewhere, since it was there before',
    ...more,
  };
}

/** Of a tuple that goes to nva-2 of four. */
export function aPickedExplanation(more: Partial<LiveExplanation> = {}): LiveExplanation {
  return {
    verdict: 'No such flow is live; a new one would go to nvas/nva-2 at 127.0.0.12:8080',
    revision: 17,
    configDigest: 'a3f1c8e9d2b4',
    tuple: 'tcp 192.0.2.7:40000 -> 127.0.0.1:8080',
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
        { name: 'destination port', hex: '1f90', value: '8080' },
      ],
      hex: '04067f000001c00002071f909c40',
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
    endpoint: {
      address: '127.0.0.12',
      port: 8080,
      text: '127.0.0.12:8080',
      floatingIp: false,
      portOffset: 0,
    },
    timeouts: [{ name: 'idle', valueMs: 240_000, origin: 'default' }],
    ...more,
  };
}

export function anUpgrade(more: Partial<UpgradeOutcome> = {}): UpgradeOutcome {
  return {
    pid: 4712,
    version: '0.2.0',
    sockets: 4,
    udpFlows: 1,
    durationMs: 900.5,
    udpPauseMs: 20.5,
    ...more,
  };
}

export function aSimulation(more: Partial<SimulationReport> = {}): SimulationReport {
  const none = { stay: 0, move: 0, reset: 0, drop: 0 };
  return {
    revision: 17,
    configDigest: 'abcdef0123456789',
    rules: [
      {
        name: 'ha-ports',
        followed: 10,
        flows: { tcp: { ...none, stay: 10 }, udp: none },
        unplacedBefore: 0,
        unplacedAfter: 0,
        backends: [{ backendId: 'nvas/127.0.0.11', name: 'nva-1', shareBefore: 0.5, shareAfter: 1 }],
      },
    ],
    ...more,
  };
}
