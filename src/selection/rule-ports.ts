import {
  cidrContains,
  isWildcard,
  type Cidr,
  type FiveTuple,
  type IpAddress,
  type Protocol,
} from '../model/address.js';
import type { Configuration, KernelOptions } from '../model/configuration.js';
import type { PortSet } from '../model/ports.js';

/** Result of a match that found nothing. */
export const NO_RULE = -1;

/** Finds rules in one configuration. Immutable; build one per configuration. */
export interface RuleMatcher {
  /** Index into `configuration.rules`, or NO_RULE. */
  match(protocol: Protocol, destination: IpAddress, port: number): number;
}

/** Which rule owns which ports: `rules[i]` owns `starts[i]` up to `starts[i + 1] - 1`. */
interface PortMap {
  readonly starts: readonly number[];
  readonly rules: readonly number[];
}

interface PortClaim {
  readonly ports: PortSet;
  readonly ruleIndex: number;
  readonly haPorts: boolean;
}

interface FrontendEntry {
  /** Where set, only addresses of this zone, or without one, are meant. */
  readonly zone: string | undefined;
  readonly ports: PortMap;
}

/**
 * Precedence: a frontend with exactly the destination address before a wildcard one of the same family (as sockets
 * have it), within that a rule that names the port before an HA-ports rule, within that the earlier rule.
 */
export function createRuleMatcher(configuration: Pick<Configuration, 'rules'>): RuleMatcher {
  const claims = new Map<string, { zone: string | undefined; claims: PortClaim[] }>();
  for (const [ruleIndex, rule] of configuration.rules.entries()) {
    const { address } = rule.frontend;
    for (const protocol of rule.protocols) {
      const wildcard = isWildcard(address);
      const key = `${protocol} ${wildcard ? wildcardKey(address) : address.text}`;
      const entry = claims.get(key) ?? { zone: wildcard ? undefined : address.zone, claims: [] };
      claims.set(key, entry);
      entry.claims.push({ ports: rule.ports, ruleIndex, haPorts: rule.haPorts });
    }
  }

  const index = new Map<string, FrontendEntry[]>();
  for (const [key, { zone, claims: claimed }] of claims) {
    const unzoned = zone === undefined ? key : key.slice(0, -(zone.length + 1));
    const entries = index.get(unzoned) ?? [];
    index.set(unzoned, entries);
    entries.push({ zone, ports: buildPortMap(claimed) });
  }
  return {
    match(protocol, destination, port) {
      const exact = lookUp(index.get(`${protocol} ${unzonedText(destination)}`), destination.zone, port);
      if (exact !== NO_RULE) return exact;
      return lookUp(index.get(`${protocol} ${wildcardKey(destination)}`), undefined, port);
    },
  };
}

/** As RuleMatcher.match, for a single question. */
export function matchRule(
  configuration: Pick<Configuration, 'rules'>,
  protocol: Protocol,
  destination: IpAddress,
  port: number,
): number {
  return createRuleMatcher(configuration).match(protocol, destination, port);
}

/** Whether a frontend's address takes in a destination: the same address, or the wildcard of its family. */
export function frontendCovers(frontend: IpAddress, destination: IpAddress): boolean {
  if (frontend.family !== destination.family) return false;
  if (isWildcard(frontend)) return true;
  return unzonedText(frontend) === unzonedText(destination) && zonesAgree(frontend.zone, destination.zone);
}

function lookUp(
  entries: readonly FrontendEntry[] | undefined,
  zone: string | undefined,
  port: number,
): number {
  if (entries === undefined) return NO_RULE;
  for (const entry of entries) {
    if (!zonesAgree(entry.zone, zone)) continue;
    const rule = ownerOf(entry.ports, port);
    if (rule !== NO_RULE) return rule;
  }
  return NO_RULE;
}

/** Addresses read off the wire or typed by people often lack the zone: none agrees with any. */
function zonesAgree(a: string | undefined, b: string | undefined): boolean {
  return a === undefined || b === undefined || a === b;
}

function wildcardKey(address: IpAddress): string {
  return address.family === 4 ? '*4' : '*6';
}

function unzonedText(address: IpAddress): string {
  return address.zone === undefined ? address.text : address.text.slice(0, -(address.zone.length + 1));
}

function ownerOf(map: PortMap, port: number): number {
  let low = 0;
  let high = map.starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    // `middle` lies within low..high, which lie within the array.
    if (map.starts[middle]! <= port) low = middle;
    else high = middle - 1;
  }
  return map.rules[low] ?? NO_RULE;
}

/** Paints the ports, weakest claim first, then keeps only where the owner changes. */
function buildPortMap(claims: readonly PortClaim[]): PortMap {
  const owner = new Int32Array(65536).fill(NO_RULE);
  const weakestFirst = [...claims].sort(
    (a, b) => Number(b.haPorts) - Number(a.haPorts) || b.ruleIndex - a.ruleIndex,
  );
  for (const { ports, ruleIndex } of weakestFirst) {
    for (const { first, last } of ports) owner.fill(ruleIndex, first, last + 1);
  }
  const starts = [0];
  const rules = [NO_RULE];
  for (const [port, ruleIndex] of owner.entries()) {
    if (ruleIndex === rules.at(-1)) continue;
    starts.push(port);
    rules.push(ruleIndex);
  }
  return { starts, rules };
}

/** The index of the spoke that an address is in, or -1. */
export function spokeOf(spokes: readonly Cidr[], address: IpAddress): number {
  return spokes.findIndex((spoke) => cidrContains(spoke, address));
}

/** Whether a configuration takes in such traffic: with spokes, only what goes from one to another. */
export function crossesSpokes(
  kernel: Pick<KernelOptions, 'mode' | 'spokes'> | undefined,
  { source, destination }: FiveTuple,
): boolean {
  if (kernel?.mode !== 'next-hop' || kernel.spokes.length === 0) return true;
  const from = spokeOf(kernel.spokes, source);
  const to = spokeOf(kernel.spokes, destination);
  return from >= 0 && to >= 0 && from !== to;
}
