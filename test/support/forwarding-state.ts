import { ipAddress } from '../../src/model/address.js';
import {
  FLOW_POLICY_PRESETS,
  type Backend,
  type BackendPool,
  type Configuration,
  type Frontend,
  type Limits,
  type NamedRule,
  type Probe,
  type Rule,
} from '../../src/model/configuration.js';
import { viewKey, type BackendState, type ForwardingState } from '../../src/model/forwarding.js';
import { configurationOf } from './state-factory.js';

/** A backend by address, and what is unusual about it. Its name and id follow from the address. */
export interface TestBackend extends Partial<Omit<BackendState, 'backend'>> {
  readonly address: string;
  readonly backend?: Partial<Backend>;
}

export interface TestStateParts {
  /** Only eligible ones get slots, the first of them slot 0, the next slot 1, and so on in turn. */
  readonly backends: readonly (string | TestBackend)[];
  readonly rule?: RuleParts;
  readonly probes?: readonly Probe[];
  readonly frontend?: Partial<Frontend>;
  readonly pool?: Partial<BackendPool>;
  readonly limits?: Partial<Limits>;
  readonly revision?: number;
  /** Another digest is another configuration: every flow is judged anew. */
  readonly digest?: string;
  /** Whether a table for `allDown: fail-open` exists; it holds all backends. */
  readonly failOpen?: boolean;
}

/** What the program makes of the least that an operator can write, where nothing else is said. */
const BASE = configurationOf({
  tableSize: 251,
  logging: { format: 'json' },
  frontends: [{ name: 'hub', address: '127.0.0.1' }],
  probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
  backendPools: [{ name: 'nvas', backends: [{ address: '127.0.0.2' }] }],
  rules: [{ name: 'ha-ports', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true }],
});
const [BASE_RULE, BASE_PROBE] = [BASE.rules[0]!, BASE.probes[0]!];

/** The preset `azure`, but that what is removed or at the end of its time ends for certain. */
export const AZURE_POLICY: Rule['flowPolicy'] = {
  ...FLOW_POLICY_PRESETS.azure,
  removed: { tcp: 'reset', udp: 'rebalance' },
  'drain-deadline': { tcp: 'reset', udp: 'reset' },
  idle: { tcp: 'reset', udp: 'drop' },
};

/** Slots a backend gets. */
const ROUNDS = 7;

/** One frontend (127.0.0.1), one HA-ports rule, one pool: a state as the control process would make it, by hand. */
export function testState(parts: TestStateParts): ForwardingState {
  const backends = parts.backends.map((one) => testBackend(typeof one === 'string' ? { address: one } : one));
  const eligible = backends.flatMap((member, index) => (member.eligible ? [index] : []));
  const everybody = backends.map((_, index) => index);
  const table = tableOf(eligible);
  const pool = testPool({
    name: parts.rule?.backendPool ?? 'nvas',
    backends: backends.map(({ backend }) => backend),
    ...parts.pool,
  });
  const configuration = testConfiguration({
    digest: parts.digest ?? 'a'.repeat(64),
    tableSize: table.length,
    frontends: [testFrontend(parts.frontend)],
    probes: parts.probes ?? [],
    backendPools: [pool],
    rules: [testRule(parts.rule)],
    limits: {
      tcpFlows: 10_000,
      udpFlows: 10_000,
      embryonicFlows: 1000,
      embryonicTimeoutMs: 10_000,
      ...parts.limits,
    },
  });
  const rule = configuration.rules[0]!;
  const view = {
    key: viewKey(rule),
    pool,
    probe: rule.probe,
    backends,
    table,
    servingPriority: 0,
    ...(parts.failOpen === true && eligible.length === 0 ? { failOpenTable: tableOf(everybody) } : {}),
  };
  return { revision: parts.revision ?? 1, configuration, views: [view], viewOfRule: [0] };
}

/** One HA-ports rule over an empty pool, where nothing else is said; a small table and low limits. */
export function testConfiguration(overrides: Partial<Configuration> = {}): Configuration {
  return relinked({
    ...BASE,
    digest: 'd'.repeat(64),
    tableSize: 7,
    workers: 0,
    probes: [],
    backendPools: [testPool()],
    rules: [testRule()],
    limits: { tcpFlows: 100, udpFlows: 100, embryonicFlows: 100, embryonicTimeoutMs: 10_000 },
    ...overrides,
  });
}

/** The same, each rule linked to what the configuration has by the name of what it was linked to. Rules that are stay. */
export function relinked(configuration: Configuration): Configuration {
  const { frontends, backendPools, probes } = configuration;
  return {
    ...configuration,
    rules: configuration.rules.map((rule) => {
      const frontend = frontends.find(({ name }) => name === rule.frontend.name) ?? rule.frontend;
      const pool = backendPools.find(({ name }) => name === rule.pool.name) ?? rule.pool;
      const probe = probes.find(({ name }) => name === rule.probe?.name) ?? rule.probe;
      const isLinked = frontend === rule.frontend && pool === rule.pool && probe === rule.probe;
      return isLinked ? rule : { ...rule, frontend, pool, ...(probe && { probe }) };
    }),
  };
}

export function testPool(overrides: Partial<BackendPool> = {}): BackendPool {
  return { ...BASE_RULE.pool, backends: [], ...overrides };
}

export function testFrontend(overrides: Partial<Frontend> = {}): Frontend {
  return { ...BASE_RULE.frontend, ...overrides };
}

/** What a rule is linked to is given by name; `relinked` puts in what a configuration has of these names. */
export type RuleParts = Partial<NamedRule>;

export function testRule(parts: RuleParts = {}): Rule {
  const { frontend, backendPool, probe, ...overrides } = parts;
  const { probe: _, ...base } = BASE_RULE;
  return {
    ...base,
    frontend: testFrontend(frontend === undefined ? {} : { name: frontend }),
    pool: testPool(backendPool === undefined ? {} : { name: backendPool }),
    ...(probe === undefined ? {} : { probe: { ...BASE_PROBE, name: probe } }),
    flowPolicy: AZURE_POLICY,
    ...overrides,
  };
}

/** Of pool "nvas". */
export function aBackend(name: string, address: string, overrides: Partial<Backend> = {}): Backend {
  return {
    ...BASE_RULE.pool.backends[0]!,
    id: `nvas/${address}`,
    name,
    address: ipAddress(address),
    ...overrides,
  };
}

/** Up and serving, where nothing else is said. */
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

function testBackend({ address, backend, ...state }: TestBackend): BackendState {
  const eligible = state.eligible ?? state.valid ?? true;
  const down = { health: 'down', eligible, serving: false, exclusion: 'probe-down' } as const;
  return {
    ...aBackendState(aBackend(`nva-${address}`, address, backend), eligible ? {} : down),
    ...(state.valid === false ? { invalidBecause: 'probe-down' } : {}),
    ...state,
  };
}

function tableOf(members: readonly number[]): Uint16Array {
  return Uint16Array.from(Array.from({ length: ROUNDS }, () => members).flat());
}
