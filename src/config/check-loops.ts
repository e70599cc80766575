import {
  compareAddresses,
  formatEndpoint,
  isLoopback,
  isWildcard,
  type IpAddress,
} from '../model/address.js';
import { PROTOCOLS, type Protocol } from '../model/five-tuple.js';
import { formatPortSet, intersectPorts, portSetOf, portSetsMeet, type PortSet } from '../model/port-set.js';
import { shiftPorts, type BoundRule } from './bind-rules.js';
import type { Draft } from './draft.js';
import { error, type Issue, type Path } from './finding.js';
import { ownListens } from './own-listeners.js';

/** A place where haports itself takes connections or datagrams. */
interface OwnListener {
  readonly what: string;
  readonly address: IpAddress;
  readonly protocols: readonly Protocol[];
  readonly ports: PortSet;
}

/** An address that a rule dials, and the index of the backend in its pool. */
interface DialTarget {
  readonly index: number;
  readonly address: IpAddress;
}

/**
 * Backends and probe targets that lead straight back into haports. A wildcard listener takes all of `ownAddresses`
 * and loopback; `::` takes both families. IPv4-mapped addresses have become IPv4 when they were parsed.
 */
export function loopIssues(
  draft: Draft,
  rules: readonly BoundRule[],
  ownAddresses: readonly IpAddress[],
): readonly Issue[] {
  const listeners = ownListeners(draft, rules);
  const known = new Map<string, readonly OwnListener[]>();
  const reached = (address: IpAddress) => {
    const before = known.get(address.text);
    if (before !== undefined) return before;
    const found = listeners.filter((listener) => reaches(listener.address, address, ownAddresses));
    known.set(address.text, found);
    return found;
  };
  // In the kernel packets go to the backend itself, whatever address is on them.
  const ownAddress = draft.plane.kind === 'kernel';
  return rules.flatMap((rule) => [
    ...dialLoops(ownAddress ? { ...rule, input: { ...rule.input, floatingIp: false } } : rule, reached),
    ...probeLoops(rule, reached),
  ]);
}

/** The addresses that a rule dials: the backends' own, or what they terminate the frontend on. */
export function dialTargets({ input, pool }: BoundRule): readonly DialTarget[] {
  return pool.value.backends.flatMap((backend, index): DialTarget | DialTarget[] => {
    if (!input.floatingIp) return { index, address: backend.address };
    const address = backend.floatingAddresses[input.frontend];
    return address === undefined ? [] : { index, address };
  });
}

function dialPath({ input, pool }: BoundRule, index: number): Path {
  const key = input.floatingIp ? ['floatingAddresses', input.frontend] : ['address'];
  return [...pool.path, 'backends', index, ...key];
}

/** Whether a socket listening on `listener` gets what is sent to `target`. */
export function reaches(listener: IpAddress, target: IpAddress, ownAddresses: readonly IpAddress[]): boolean {
  if (compareAddresses(listener, target) === 0) return true;
  if (!isWildcard(listener) || (listener.family === 4 && target.family === 6)) return false;
  return isLoopback(target) || ownAddresses.some((own) => compareAddresses(own, target) === 0);
}

function ownListeners(draft: Draft, rules: readonly BoundRule[]): OwnListener[] {
  const flows = rules.map((rule): OwnListener => ({
    what: `the listener of rule "${rule.input.name}"`,
    address: rule.frontend.value.address,
    protocols: rule.protocols,
    ports: rule.ports,
  }));
  const own = ownListens(draft).map(({ what, address, port }): OwnListener => ({
    what,
    address,
    protocols: ['tcp'],
    ports: portSetOf(port),
  }));
  return [...flows, ...own];
}

function dialLoops(rule: BoundRule, reached: (address: IpAddress) => readonly OwnListener[]): Issue[] {
  const dialled = shiftPorts(rule.ports, rule.portOffset);
  return dialTargets(rule).flatMap(({ index, address }) => {
    const hit = firstHit(reached(address), rule.protocols, dialled);
    if (hit === undefined) return [];
    const message = `Rule "${rule.input.name}" would send ${hit.place} of ${address.text} into ${hit.what}`;
    return [
      error('LB_LOOP', dialPath(rule, index), message, {
        found: `"${address.text}"`,
        expected: 'an address and port where haports itself does not listen',
        reason: 'A flow that comes back to its own listener runs in circles until everything is used up',
      }),
    ];
  });
}

function probeLoops(rule: BoundRule, reached: (address: IpAddress) => readonly OwnListener[]): Issue[] {
  const probe = rule.probe?.value;
  if (probe === undefined) return [];
  return rule.pool.value.backends.flatMap(({ address }, index) => {
    const hit = firstHit(reached(address), ['tcp'], portSetOf(probe.port));
    if (hit === undefined) return [];
    const target = formatEndpoint(address, probe.port);
    const message = `Probe "${probe.name}" would reach ${hit.what} at ${target}, not the backend`;
    return [
      error('LB_LOOP', [...rule.pool.path, 'backends', index, 'address'], message, {
        found: target,
        expected: 'an address and port where haports itself does not listen',
        reason: 'haports would judge the backend by its own answer',
      }),
    ];
  });
}

function firstHit(
  listeners: readonly OwnListener[],
  protocols: readonly Protocol[],
  ports: PortSet,
): { readonly place: string; readonly what: string } | undefined {
  for (const listener of listeners) {
    if (!portSetsMeet(ports, listener.ports)) continue;
    const shared = PROTOCOLS.filter((each) => protocols.includes(each) && listener.protocols.includes(each));
    if (shared.length === 0) continue;
    const common = formatPortSet(intersectPorts(ports, listener.ports));
    return { place: `${shared.join(' and ')} port ${common}`, what: listener.what };
  }
  return undefined;
}
