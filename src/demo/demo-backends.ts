import type { IpAddress } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import { unionPorts, type PortSet } from '../model/port-set.js';

/** One sample NVA that a configuration calls for. */
export interface DemoBackend {
  readonly backendId: string;
  readonly name: string;
  readonly address: IpAddress;
  /** Every port that a rule sends to it. */
  readonly ports: PortSet;
  /** Port of the probe; 0 where no rule has one. */
  readonly healthPort: number;
}

/** The backends that rules lead to, in order of the configuration, one for each address. */
export function demoBackends(configuration: Configuration): readonly DemoBackend[] {
  const backends = new Map<string, DemoBackend>();
  for (const rule of configuration.rules) {
    const pool = configuration.backendPools.find(({ name }) => name === rule.backendPool);
    const probe = configuration.probes.find(({ name }) => name === rule.probe);
    const ports = rule.ports.map(({ first, last }) => ({
      first: first + rule.portOffset,
      last: last + rule.portOffset,
    }));
    for (const { id, name, address } of pool?.backends ?? []) {
      const before = backends.get(address.text);
      backends.set(address.text, {
        backendId: before?.backendId ?? id,
        name: before?.name ?? name,
        address,
        ports: unionPorts(before?.ports ?? [], ports),
        healthPort: before?.healthPort || (probe?.port ?? 0),
      });
    }
  }
  return [...backends.values()];
}
