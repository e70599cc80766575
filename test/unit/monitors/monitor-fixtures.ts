import type { MonitorReading, MonitorSample } from '../../../src/monitors/alerts.js';
import type { PlaneCounters, TrafficCounters } from '../../../src/planes/contract.js';
import type { HealthState, Probe } from '../../../src/model/configuration.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { testState, type RuleParts } from '../../support/forwarding-state.js';
import { aRow } from '../status/counters-fixtures.js';

/** Needs 2 x 5 s + 5 s to notice. */
export const ALIVE: Probe = {
  name: 'alive',
  protocol: 'tcp',
  port: 9000,
  intervalMs: 5000,
  timeoutMs: 5000,
  upThreshold: 2,
  downThreshold: 2,
  sendProxy: 'none',
};

export interface MemberSketch {
  readonly address: string;
  readonly health?: HealthState;
  readonly admin?: 'none' | 'up' | 'down';
  readonly weight?: number;
}

/** Rule `ha-ports` on frontend `hub` over pool `nvas`, probed by `alive`; a backend's id is `nvas/` and its address. */
export function probedState(members: readonly MemberSketch[], rule: RuleParts = {}): ForwardingState {
  return testState({
    probes: [ALIVE],
    rule: { probe: 'alive', ...rule },
    backends: members.map(({ address, health = 'up', admin = 'none', weight = 1 }) => ({
      address,
      health,
      adminState: admin,
      effectiveWeight: weight,
      eligible: health === 'up' && admin !== 'down',
      ...(health === 'up' && admin !== 'down'
        ? {}
        : ({
            exclusion:
              admin === 'down' ? 'admin-down' : health === 'unknown' ? 'probe-unknown' : 'probe-down',
          } as const)),
    })),
  });
}

export function row(address: string, changes: Partial<TrafficCounters> = {}): TrafficCounters {
  return aRow({ backendId: `nvas/${address}`, ...changes });
}

export function counters(changes: Partial<PlaneCounters> = {}): PlaneCounters {
  const use = { used: 0, limit: 100 };
  return {
    traffic: [],
    arrivals: [],
    table: { tcp: use, udp: use, embryonic: use },
    connectSeconds: {},
    sourcePorts: [],
    eventLoopDelaySeconds: [],
    listeners: {},
    workersLost: 0,
    ...changes,
  };
}

export function sample(atMs: number, changes: Partial<PlaneCounters> = {}): MonitorSample {
  return { atMs, counters: counters(changes) };
}

/** `status` of the one finding of this name and subject. */
export function statusOf(
  findings: readonly MonitorReading[] | undefined,
  name: MonitorReading['name'],
  subject: string,
): MonitorReading['status'] | undefined {
  const found = (findings ?? []).filter((finding) => finding.name === name && finding.subject === subject);
  if (found.length > 1) throw new Error(`${found.length} findings ${name} of ${subject}`);
  return found[0]?.status;
}
