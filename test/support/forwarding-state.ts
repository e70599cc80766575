import { ipAddress } from '../../src/model/address.js';
import type {
  Backend,
  BackendPool,
  FlowAction,
  Frontend,
  Limits,
  Rule,
} from '../../src/model/configuration.js';
import type { BackendState, ForwardingState } from '../../src/model/forwarding.js';
import { ALL_PORTS } from '../../src/model/ports.js';

/** A backend by address, and what is unusual about it. Its name and id follow from the address. */
export interface TestBackend extends Partial<Omit<BackendState, 'backend'>> {
  readonly address: string;
  readonly backend?: Partial<Backend>;
}

export interface TestStateParts {
  /** Only eligible ones get slots, the first of them slot 0, the next slot 1, and so on in turn. */
  readonly backends: readonly (string | TestBackend)[];
  readonly rule?: Partial<Rule>;
  readonly frontend?: Partial<Frontend>;
  readonly pool?: Partial<BackendPool>;
  readonly limits?: Partial<Limits>;
  readonly revision?: number;
  /** Another digest is another configuration: every flow is judged anew. */
  readonly digest?: string;
  /** Whether a table for `allDown: fail-open` exists; it holds all backends. */
  readonly failOpen?: boolean;
}

const both = (action: FlowAction) => ({ tcp: action, udp: action });

/** The preset `azure`. */
export const AZURE_POLICY: Rule['flowPolicy'] = {
  'probe-down': { tcp: 'persist', udp: 'rebalance' },
  'admin-down': { tcp: 'persist', udp: 'rebalance' },
  removed: { tcp: 'reset', udp: 'rebalance' },
  'drain-deadline': both('reset'),
  idle: { tcp: 'reset', udp: 'drop' },
};

/** Slots a backend gets. */
const ROUNDS = 7;

/** One frontend (127.0.0.1), one HA-ports rule, one pool: a state as the control process would make it, by hand. */
export function testState(parts: TestStateParts): ForwardingState {
  const backends = parts.backends.map((one) => testBackend(typeof one === 'string' ? { address: one } : one));
  const eligible = backends.flatMap((member, index) => (member.eligible ? [index] : []));
  const everybody = backends.map((_, index) => index);
  const rule = testRule(parts.rule);
  const view = {
    key: `${rule.backendPool}|`,
    pool: rule.backendPool,
    backends,
    table: tableOf(eligible),
    servingPriority: 0,
    ...(parts.failOpen === true && eligible.length === 0 ? { failOpenTable: tableOf(everybody) } : {}),
  };
  const pool: BackendPool = {
    name: rule.backendPool,
    backends: backends.map(({ backend }) => backend),
    minimumHealthy: 1,
    sourceAddresses: [],
    sourcePorts: [{ first: 32768, last: 60999 }],
    proxyProtocol: 'none',
    connectTimeoutMs: 5000,
    connectAttempts: 3,
    ...parts.pool,
  };
  return {
    revision: parts.revision ?? 1,
    configuration: {
      digest: parts.digest ?? 'a'.repeat(64),
      compat: 'none',
      seed: 0,
      tableSize: view.table.length,
      workers: 0,
      instance: 'haports',
      frontends: [testFrontend(parts.frontend)],
      probes: [],
      backendPools: [pool],
      rules: [rule],
      limits: {
        tcpFlows: 10_000,
        udpFlows: 10_000,
        embryonicFlows: 1000,
        embryonicTimeoutMs: 10_000,
        ...parts.limits,
      },
      logging: { level: 'info', format: 'json' },
      shutdownDeadlineMs: 30_000,
    },
    views: [view],
    viewOfRule: [0],
  };
}

export function testFrontend(overrides: Partial<Frontend> = {}): Frontend {
  return { name: 'hub', address: ipAddress('127.0.0.1'), allow: [], deny: [], ...overrides };
}

export function testRule(overrides: Partial<Rule> = {}): Rule {
  return {
    name: 'ha-ports',
    frontend: 'hub',
    backendPool: 'nvas',
    protocols: ['tcp', 'udp'],
    haPorts: true,
    ports: ALL_PORTS,
    portOffset: 0,
    floatingIp: false,
    distribution: 'five-tuple',
    symmetric: false,
    idleTimeoutMs: {
      tcp: { value: 240_000, origin: 'default' },
      udp: { value: 30_000, origin: 'default' },
    },
    tcpReset: true,
    flowPolicy: AZURE_POLICY,
    allDown: 'reset',
    tcp: { noDelay: true },
    udp: { perPacket: false },
    ...overrides,
  };
}

function testBackend({ address, backend, ...state }: TestBackend): BackendState {
  const eligible = state.eligible ?? state.valid ?? true;
  return {
    backend: {
      id: `nvas/${address}`,
      name: `nva-${address}`,
      address: ipAddress(address),
      weight: 1,
      priority: 0,
      adminState: 'none',
      floatingAddresses: {},
      ...backend,
    },
    health: eligible ? 'up' : 'down',
    adminState: 'none',
    effectiveWeight: 1,
    eligible,
    valid: true,
    serving: eligible,
    ...(eligible ? {} : { exclusion: 'probe-down' }),
    ...(state.valid === false ? { invalidBecause: 'probe-down' } : {}),
    ...state,
  };
}

function tableOf(members: readonly number[]): Uint16Array {
  return Uint16Array.from(Array.from({ length: ROUNDS }, () => members).flat());
}
