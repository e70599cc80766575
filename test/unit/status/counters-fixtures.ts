import type { ArrivalCounters, PlaneCounters, TrafficCounters } from '../../../src/planes/contract.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import { aTuple } from '../selection/fixtures.js';

/** As the admin API sends it. */
export function sent<T>(view: T): T {
  return JSON.parse(JSON.stringify(view)) as T;
}

/** Of rule "ha-ports", backend 10.0.0.1 and TCP, with nothing counted yet. */
export function aRow(overrides: Partial<TrafficCounters> = {}): TrafficCounters {
  return {
    rule: 'ha-ports',
    backendId: 'nvas/10.0.0.1',
    protocol: 'tcp',
    flowsOpened: 0,
    flowsActive: 0,
    flowsEnded: {},
    bytesToBackend: 0,
    packetsToBackend: 0,
    bytesToClient: 0,
    packetsToClient: 0,
    connectRetries: 0,
    connectFailures: 0,
    resets: 0,
    ...overrides,
  };
}

export function anArrival(overrides: Partial<ArrivalCounters> = {}): ArrivalCounters {
  return { rule: 'ha-ports', protocol: 'tcp', arrivals: 0, drops: {}, ...overrides };
}

/** A plane with one worker, no flows and nothing listening. */
export function aReading(overrides: Partial<PlaneCounters> = {}): PlaneCounters {
  return {
    traffic: [],
    arrivals: [],
    table: { tcp: { used: 0, limit: 100 }, udp: { used: 0, limit: 100 }, embryonic: { used: 0, limit: 10 } },
    connectSeconds: {},
    sourcePorts: [],
    eventLoopDelaySeconds: [0.01],
    listeners: {},
    workersLost: 0,
    ...overrides,
  };
}

/** Established over TCP from 192.0.2.7:40000 to 198.51.100.1:443, on 10.0.0.1 by its hash. */
export function aFlowRecord(id: number, overrides: Partial<FlowRecord> = {}): FlowRecord {
  return {
    id,
    tuple: aTuple('192.0.2.7:40000', '198.51.100.1:443'),
    rule: 'ha-ports',
    backendId: 'nvas/10.0.0.1',
    backendEndpoint: '10.0.0.1:443',
    reason: 'hash',
    state: 'established',
    epoch: 1,
    excluded: [],
    openedAtMs: 1_700_000_000_000,
    idleMs: 0,
    bytesToBackend: 0,
    packetsToBackend: 0,
    bytesToClient: 0,
    packetsToClient: 0,
    ...overrides,
  };
}
