import type { IpAddress } from '../model/address.js';
import type { Protocol } from '../model/five-tuple.js';
import { intersectPorts, parsePortSet, portSetSize, unionPorts, type PortSet } from '../model/port-set.js';
import type { BoundRule } from './bind-rules.js';
import { isFloating } from './check-kernel.js';
import { reaches } from './check-loops.js';
import type { Draft } from './draft.js';
import { error, warning, type Issue, type Path } from './finding.js';

/** Linux's default net.ipv4.ip_local_port_range: what the kernel chooses from. */
const EPHEMERAL_PORTS: PortSet = parsePortSet('32768-60999') ?? [];

const REASON = 'A port that haports listens on cannot be the source of a connection to a backend';

/** Local addresses of upstream connections and probes whose ports the listeners have taken. */
export function sourceIssues(
  draft: Draft,
  rules: readonly BoundRule[],
  ownAddresses: readonly IpAddress[],
): readonly Issue[] {
  const { plane } = draft;
  // What is not floating, the kernel tells from answers to this machine by conntrack.
  if (plane.kind === 'kernel' && (plane.options === undefined || !isFloating(plane.options))) return [];
  const taken = (address: IpAddress, protocols: readonly Protocol[]): PortSet =>
    rules
      .filter((rule) => rule.protocols.some((protocol) => protocols.includes(protocol)))
      .filter((rule) => reaches(rule.frontend.value.address, address, ownAddresses))
      .reduce<PortSet>((ports, rule) => unionPorts(ports, rule.ports), []);

  const check = (
    path: Path,
    address: IpAddress,
    wanted: PortSet,
    protocols: readonly Protocol[],
  ): Issue[] => {
    const lost = portSetSize(intersectPorts(wanted, taken(address, protocols)));
    if (lost === 0) return [];
    const found = `"${address.text}"`;
    if (lost < portSetSize(wanted)) {
      const message = `Listeners take ${lost} of the source ports of ${address.text}`;
      return [warning('LB_SOURCE_PORTS', path, message, { found, reason: REASON })];
    }
    const message = `Listeners take every source port of ${address.text}`;
    const expected = 'a local address that no rule listens on with all ports';
    return [error('LB_SOURCE_PORTS', path, message, { found, expected, reason: REASON })];
  };

  return [
    ...draft.pools.flatMap(({ path, value: pool }) =>
      pool.sourceAddresses.flatMap((address, index) =>
        check([...path, 'sourceAddresses', index], address, pool.sourcePorts, protocolsOf(pool.name, rules)),
      ),
    ),
    ...draft.probes.flatMap(({ path, value: { sourceAddress } }) =>
      sourceAddress === undefined
        ? []
        : check([...path, 'sourceAddress'], sourceAddress, EPHEMERAL_PORTS, ['tcp']),
    ),
    ...sourceNeeded(draft, rules),
  ];
}

function protocolsOf(pool: string, rules: readonly BoundRule[]): readonly Protocol[] {
  return rules.filter((rule) => rule.pool.value.name === pool).flatMap((rule) => rule.protocols);
}

/** Bound on one address, all ports are gone for sockets without a local address of their own (measured, Linux 6). Captured ports are not bound, nor are those of the kernel data plane. */
function sourceNeeded(draft: Draft, rules: readonly BoundRule[]): Issue[] {
  if (draft.plane.kind === 'kernel' || draft.root.dataPlane.capture?.fallback === 'none') return [];
  const hog = rules.find(
    (rule) =>
      rule.protocols.includes('tcp') &&
      portSetSize(intersectPorts(EPHEMERAL_PORTS, rule.ports)) === portSetSize(EPHEMERAL_PORTS),
  );
  if (hog === undefined) return [];
  const missing: (readonly [Path, string])[] = [
    ...draft.pools
      .filter(({ value: pool }) => pool.sourceAddresses.length === 0)
      .map(({ path, value: pool }) => [path, `Pool "${pool.name}" has no sourceAddresses`] as const),
    ...draft.probes
      .filter(({ value: probe }) => probe.sourceAddress === undefined)
      .map(({ path, value: probe }) => [path, `Probe "${probe.name}" has no sourceAddress`] as const),
  ];
  return missing.map(([path, what]) =>
    warning('LB_SOURCE_NEEDED', path, `${what}, and rule "${hog.input.name}" listens on every port`, {
      expected: 'a local address that no rule listens on',
      reason:
        'With all ports bound the kernel finds none for a connection that has no address of its own (EADDRNOTAVAIL)',
    }),
  );
}
