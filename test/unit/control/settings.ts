import type { BackendPool, Configuration, Probe } from '../../../src/model/configuration.js';
import { tcpProbe } from '../health/probe-fixtures.js';
import { aBackend, aConfiguration, aRule } from '../selection/fixtures.js';

/** Backends are `nvas/10.0.0.1` and so on, unless the pool has another name. */
export function aPool(count: number, overrides: Partial<BackendPool> = {}): BackendPool {
  const name = overrides.name ?? 'nvas';
  const [empty] = aConfiguration().backendPools;
  const backends = Array.from({ length: count }, (_, index) => {
    const address = `10.0.0.${index + 1}`;
    return aBackend(`nva-${index + 1}`, address, { id: `${name}/${address}` });
  });
  return { ...empty!, name, backends, ...overrides };
}

/** One pool of three behind one probed rule, and a table of 251 slots. */
export function settings(overrides: Partial<Configuration> = {}): Configuration {
  const probe: Probe = tcpProbe({ name: 'alive', port: 9000 });
  return aConfiguration({
    tableSize: 251,
    probes: [probe],
    backendPools: [aPool(3)],
    rules: [aRule({ probe: 'alive' })],
    ...overrides,
  });
}
