import {
  ipAddress,
  parseEndpoint,
  type FiveTuple,
  type IpAddress,
  type Protocol,
} from '../../../src/model/address.js';
import type { Configuration, Frontend, Rule } from '../../../src/model/configuration.js';
import type { ForwardingState, PoolView } from '../../../src/model/forwarding.js';
import {
  AZURE_POLICY,
  aBackend,
  aBackendState,
  testConfiguration,
  testFrontend,
  testPool,
  testRule,
  type RuleParts,
} from '../../support/forwarding-state.js';

export { aBackend, aBackendState };

/** Removal resets flows of both protocols; the idle timeout of UDP is the rule's own. */
export function aRule(overrides: RuleParts = {}): Rule {
  const removed = { tcp: 'reset', udp: 'reset' } as const;
  const rule = testRule({ flowPolicy: { ...AZURE_POLICY, removed }, ...overrides });
  const { frontend, pool } = rule;
  return {
    ...rule,
    frontend: frontend.name === HUB.name ? HUB : aFrontend({ name: frontend.name }),
    pool: pool.name === NVAS.name ? NVAS : pool,
    idleTimeoutMs: {
      ...rule.idleTimeoutMs,
      udp: { value: 30_000, origin: 'rule' },
      ...overrides.idleTimeoutMs,
    },
  };
}

/** What rules and configurations have where nothing else is said: one object, so that they are linked. */
const HUB = aFrontend();
const NVAS = testPool();

export function aFrontend(overrides: Partial<Frontend> = {}): Frontend {
  return testFrontend({ address: ipAddress('198.51.100.1'), ...overrides });
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
  return testConfiguration({ frontends: [HUB], backendPools: [NVAS], rules: [aRule()], ...overrides });
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
