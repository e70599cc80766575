import { isWildcard, type IpAddress } from '../../model/address.js';
import type { Configuration, Frontend } from '../../model/configuration.js';
import type { Protocol } from '../../model/five-tuple.js';
import { portsOf } from '../../model/port-set.js';
import type { Rule } from '../../model/rule.js';
import type { ListenerBinding } from './listener.js';

/** Bindings by protocol and address (`udp 127.0.0.1`), then port. */
export type ListenerPlan = ReadonlyMap<string, ReadonlyMap<number, ListenerBinding>>;

export function socketGroup(protocol: Protocol, address: IpAddress): string {
  return `${protocol} ${address.text}`;
}

/**
 * Every socket that a configuration wants. A rule that names a port beats an HA-ports rule on the same frontend. A
 * wildcard frontend becomes one UDP socket for each of the machine's own addresses, since a wildcard UDP socket would
 * answer from whatever address the route back suggests.
 */
export function planListeners(
  configuration: Configuration,
  ownAddresses: (family: 4 | 6) => readonly IpAddress[],
): ListenerPlan {
  const plan = new Map<string, Map<number, ListenerBinding>>();
  const frontends = new Map(configuration.frontends.map((frontend) => [frontend.name, frontend]));
  const ranked = configuration.rules
    .map((rule, ruleIndex) => ({ rule, ruleIndex }))
    .sort((a, b) => Number(a.rule.haPorts) - Number(b.rule.haPorts));
  for (const { rule, ruleIndex } of ranked) {
    const frontend = frontends.get(rule.frontend);
    if (frontend === undefined) continue;
    for (const protocol of rule.protocols) {
      for (const address of addressesFor(frontend, protocol, ownAddresses)) {
        addRule(plan, { protocol, address, rule, ruleIndex, frontend });
      }
    }
  }
  return plan;
}

function addressesFor(
  frontend: Frontend,
  protocol: Protocol,
  ownAddresses: (family: 4 | 6) => readonly IpAddress[],
): readonly IpAddress[] {
  const { address } = frontend;
  return protocol === 'udp' && isWildcard(address) ? ownAddresses(address.family) : [address];
}

function addRule(
  plan: Map<string, Map<number, ListenerBinding>>,
  entry: {
    readonly protocol: Protocol;
    readonly address: IpAddress;
    readonly rule: Rule;
    readonly ruleIndex: number;
    readonly frontend: Frontend;
  },
): void {
  const key = socketGroup(entry.protocol, entry.address);
  const group = plan.get(key) ?? new Map<number, ListenerBinding>();
  plan.set(key, group);
  for (const port of portsOf(entry.rule.ports)) {
    if (!group.has(port)) group.set(port, { ...entry, port });
  }
}
