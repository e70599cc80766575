import { ipAddress, parseCidr, type Cidr } from '../../../src/model/address.js';
import type { Backend, Configuration, FlowPolicy, Rule } from '../../../src/model/configuration.js';
import type { FlowRecord } from '../../../src/model/flow.js';
import type { BackendState, ForwardingState } from '../../../src/model/forwarding.js';
import { relinked, testRule } from '../../support/forwarding-state.js';

const persist = { tcp: 'persist', udp: 'persist' } as const;
const flowPolicy: FlowPolicy = {
  'probe-down': { tcp: 'persist', udp: 'rebalance' },
  'admin-down': persist,
  removed: persist,
  'drain-deadline': persist,
  idle: persist,
};

/** A backend of pool `nvas`. */
export function sampleBackend(name: string, address: string): Backend {
  return {
    id: `nvas/${address}`,
    name,
    address: ipAddress(address),
    weight: 1,
    priority: 0,
    adminState: 'none',
    floatingAddresses: { hub6: ipAddress('fd00::99') },
  };
}

export function sampleRule(name: string, frontend: string): Rule {
  return {
    ...testRule({ frontend, probe: 'alive' }),
    name,
    protocols: ['tcp', 'udp'],
    haPorts: true,
    ports: [{ first: 8000, last: 8099 }],
    portOffset: 0,
    floatingIp: false,
    distribution: 'five-tuple',
    symmetric: true,
    idleTimeoutMs: { tcp: { value: 240_000, origin: 'default' }, udp: { value: 30_000, origin: 'rule' } },
    tcpReset: true,
    flowPolicy,
    allDown: 'reset',
    tcp: { noDelay: true },
    udp: { perPacket: false },
  };
}

export function sampleConfiguration(digest = 'd1'): Configuration {
  return relinked({
    digest,
    compat: 'none',
    seed: 0,
    tableSize: 251,
    workers: 1,
    instance: 'haports',
    frontends: [
      {
        name: 'hub',
        address: ipAddress('127.0.0.1'),
        proxyProtocol: { accept: 'any', trustedSources: [block('10.0.0.0/8')], headerTimeoutMs: 3000 },
        allow: [block('127.0.0.0/8')],
        deny: [block('fd00::/16'), block('10.1.2.3')],
      },
      { name: 'hub6', address: ipAddress('::1'), allow: [], deny: [] },
    ],
    probes: [
      {
        name: 'alive',
        protocol: 'http',
        port: 9000,
        path: '/healthz',
        intervalMs: 5000,
        timeoutMs: 5000,
        upThreshold: 2,
        downThreshold: 2,
        sourceAddress: ipAddress('127.0.0.5'),
        sendProxy: 'none',
        expectStatus: [{ first: 200, last: 200 }],
        skipVerify: false,
        explicitAnswerFlips: true,
      },
    ],
    backendPools: [
      {
        name: 'nvas',
        backends: [sampleBackend('nva-1', '127.0.0.11'), sampleBackend('nva-2', '127.0.0.12')],
        minimumHealthy: 1,
        sourceAddresses: [ipAddress('127.0.0.2')],
        sourcePorts: [{ first: 32_768, last: 60_999 }],
        proxyProtocol: 'none',
        connectTimeoutMs: 5000,
        connectAttempts: 3,
      },
    ],
    rules: [sampleRule('ha-ports', 'hub'), sampleRule('ha-ports6', 'hub6')],
    limits: { tcpFlows: 100, udpFlows: 100, embryonicFlows: 10, embryonicTimeoutMs: 30_000 },
    logging: { level: 'info', format: 'json' },
    metrics: { address: ipAddress('127.0.0.1'), port: 9902 },
    shutdownDeadlineMs: 30_000,
  });
}

export function sampleMember(backend: Backend, isUp: boolean): BackendState {
  const weights = { wantedWeight: backend.weight, weightOrigin: 'configured', rampPercent: 100 } as const;
  const base = { backend, adminState: 'none', ...weights, effectiveWeight: backend.weight } as const;
  return isUp
    ? { ...base, health: 'up', eligible: true, valid: true, serving: true }
    : {
        ...base,
        health: 'down',
        eligible: false,
        valid: false,
        invalidBecause: 'probe-down',
        serving: false,
        exclusion: 'probe-down',
      };
}

/** nva-1 up, nva-2 down. */
export function sampleState(revision: number, configuration = sampleConfiguration()): ForwardingState {
  const backends = configuration.backendPools[0]?.backends ?? [];
  return {
    revision,
    configuration,
    views: [
      {
        key: 'nvas|alive',
        pool: configuration.backendPools[0]!,
        probe: configuration.probes[0]!,
        backends: backends.map((backend, index) => sampleMember(backend, index === 0)),
        table: new Uint16Array(251),
        servingPriority: 0,
      },
    ],
    viewOfRule: configuration.rules.map(() => 0),
  };
}

export function sampleFlow(id: number, epoch = 1): FlowRecord {
  return {
    id,
    tuple: {
      protocol: 'tcp',
      source: ipAddress('192.0.2.7'),
      sourcePort: 40_000,
      destination: ipAddress('127.0.0.1'),
      destinationPort: 8000,
    },
    rule: 'ha-ports',
    backendId: 'nvas/127.0.0.11',
    backendEndpoint: '127.0.0.11:8000',
    reason: 'retry',
    state: 'established',
    epoch,
    excluded: ['nvas/127.0.0.12'],
    openedAtMs: 1000,
    idleMs: 0,
    bytesToBackend: 5,
    packetsToBackend: 1,
    bytesToClient: 12,
    packetsToClient: 2,
  };
}

function block(text: string): Cidr {
  const parsed = parseCidr(text);
  if (parsed === undefined) throw new TypeError(text);
  return parsed;
}
