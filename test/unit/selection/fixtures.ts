import {
  ipAddress,
  parseEndpoint,
  type FiveTuple,
  type IpAddress,
  type Protocol,
} from '../../../src/model/address.js';
import type { Backend, Configuration, FlowAction, Frontend, Rule } from '../../../src/model/configuration.js';
import type { BackendState, ForwardingState, PoolView } from '../../../src/model/forwarding.js';
import { relinked, testPool, testRule, type RuleParts } from '../../support/forwarding-state.js';

const same = (action: FlowAction) => ({ tcp: action, udp: action });

export function aRule(overrides: RuleParts = {}): Rule {
  const rule = testRule({
    idleTimeoutMs: {
      tcp: { value: 240_000, origin: 'default' },
      udp: { value: 30_000, origin: 'rule' },
    },
    flowPolicy: {
      'probe-down': { tcp: 'persist', udp: 'rebalance' },
      'admin-down': { tcp: 'persist', udp: 'rebalance' },
      removed: same('reset'),
      'drain-deadline': same('reset'),
      idle: { tcp: 'reset', udp: 'drop' },
    },
    ...overrides,
  });
  const { frontend, pool } = rule;
  return {
    ...rule,
    frontend: frontend.name === HUB.name ? HUB : aFrontend({ name: frontend.name }),
    pool: pool.name === NVAS.name ? NVAS : pool,
  };
}

/** What rules and configurations have where nothing else is said: one object, so that they are linked. */
const HUB = aFrontend();
const NVAS = testPool();

export function aFrontend(overrides: Partial<Frontend> = {}): Frontend {
  return { name: 'hub', address: ipAddress('198.51.100.1'), allow: [], deny: [], ...overrides };
}

export function aBackend(name: string, address: string, overrides: Partial<Backend> = {}): Backend {
  return {
    id: `nvas/${address}`,
    name,
    address: ipAddress(address),
    weight: 1,
    priority: 0,
    adminState: 'none',
    floatingAddresses: {},
    ...overrides,
  };
}

export function aBackendState(backend: Backend, overrides: Partial<BackendState> = {}): BackendState {
  return {
    backend,
    health: 'up',
    adminState: backend.adminState,
    ...{ wantedWeight: backend.weight, weightOrigin: 'configured', rampPercent: 100 },
    effectiveWeight: backend.weight,
    eligible: true,
    valid: true,
    serving: true,
    ...overrides,
  };
}

/** Three backends up, ids `nvas/10.0.0.1` to `.3`, and a table of seven slots: 0 1 2 0 1 2 0. */
export function aView(overrides: Partial<PoolView> = {}): PoolView {
  return {
    key: 'nvas|',
    pool: NVAS,
    backends: [1, 2, 3].map((n) => aBackendState(aBackend(`nva-${n}`, `10.0.0.${n}`))),
    table: Uint16Array.of(0, 1, 2, 0, 1, 2, 0),
    servingPriority: 0,
    ...overrides,
  };
}

export function aConfiguration(overrides: Partial<Configuration> = {}): Configuration {
  return relinked({
    digest: 'd'.repeat(64),
    compat: 'none',
    seed: 0,
    tableSize: 7,
    workers: 0,
    instance: 'haports',
    frontends: [HUB],
    probes: [],
    backendPools: [NVAS],
    rules: [aRule()],
    limits: { tcpFlows: 100, udpFlows: 100, embryonicFlows: 100, embryonicTimeoutMs: 10_000 },
    logging: { level: 'info', format: 'json' },
    shutdownDeadlineMs: 30_000,
    ...overrides,
  });
}

/** One view for all rules. */
export function aState(
  parts: { readonly configuration?: Partial<Configuration>; readonly view?: Partial<PoolView> } = {},
): ForwardingState {
  const configuration = aConfiguration(parts.configuration);
  return {
    revision: 5,
    configuration,
    views: [aView({ pool: configuration.backendPools[0]!, ...parts.view })],
    viewOfRule: configuration.rules.map(() => 0),
  };
}

export function aTuple(source: string, destination: string, protocol: Protocol = 'tcp'): FiveTuple {
  const [from, to] = [endpoint(source), endpoint(destination)];
  return {
    protocol,
    source: from.address,
    sourcePort: from.port,
    destination: to.address,
    destinationPort: to.port,
  };
}

export function reversed(tuple: FiveTuple): FiveTuple {
  return {
    protocol: tuple.protocol,
    source: tuple.destination,
    sourcePort: tuple.destinationPort,
    destination: tuple.source,
    destinationPort: tuple.sourcePort,
  };
}

function endpoint(text: string): { readonly address: IpAddress; readonly port: number } {
  const parsed = parseEndpoint(text);
  if (parsed === undefined) throw new Error(`Not an endpoint: ${text}`);
  return parsed;
}
