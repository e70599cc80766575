import {
  cidrContains,
  isWildcard,
  unzonedText,
  type Cidr,
  type FiveTuple,
  type IpAddress,
  type Protocol,
} from '../model/address.js';
import type { KernelOptions, Rule } from '../model/configuration.js';
import type { PortRange, PortSet } from '../model/ports.js';

/** Where no rule owns a port. */
export const NO_RULE = -1;

/** Consecutive ports of one rule. */
export interface PortSegment extends PortRange {
  /** Into the rules. */
  readonly rule: number;
}

/** Which rule owns which ports of one frontend address and protocol. Immutable. */
export class PortOwners {
  /** The owned ones, ascending. */
  readonly segments: readonly PortSegment[];

  constructor(segments: readonly PortSegment[]) {
    this.segments = segments;
  }

  /** Index of the rule, or NO_RULE. */
  ownerOf(port: number): number {
    const { segments } = this;
    let low = 0;
    let high = segments.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      // `middle` lies within low..high, which lie within the array.
      const { first, last, rule } = segments[middle]!;
      if (port < first) high = middle - 1;
      else if (port > last) low = middle + 1;
      else return rule;
    }
    return NO_RULE;
  }

  portsOf(rule: number): PortSet {
    return this.segments
      .filter((segment) => segment.rule === rule)
      .map(({ first, last }) => ({ first, last }));
  }
}

interface FrontendEntry {
  readonly address: IpAddress;
  /** Where set, only addresses of this zone, or without one, are meant. */
  readonly zone: string | undefined;
  /** By index. */
  readonly claims: Map<number, Rule>;
  owners: PortOwners;
}

/**
 * The one map from port to rule of a configuration: build it once per configuration. Precedence: a frontend with exactly
 * the destination address before a wildcard one of the same family (as sockets have it), within that a rule that names
 * the port before an HA-ports rule, within that the earlier rule.
 */
export class RulePorts {
  /** By protocol and address without zone; `*` for wildcards. */
  readonly #entries = new Map<string, FrontendEntry[]>();

  constructor(rules: readonly Rule[]) {
    for (const [index, rule] of rules.entries()) {
      for (const protocol of rule.protocols)
        this.#entryOf(protocol, rule.frontend.address).claims.set(index, rule);
    }
    for (const entries of this.#entries.values()) {
      for (const entry of entries) entry.owners = ownersAmong(entry.claims);
    }
  }

  /** Index of the rule that takes what arrives there, or NO_RULE. */
  ownerOf(protocol: Protocol, destination: IpAddress, port: number): number {
    for (const key of [keyOf(protocol, destination), wildcardKey(protocol, destination.family)]) {
      for (const { zone, owners } of this.#entries.get(key) ?? []) {
        if (!zonesAgree(zone, destination.zone)) continue;
        const rule = owners.ownerOf(port);
        if (rule !== NO_RULE) return rule;
      }
    }
    return NO_RULE;
  }

  /** Of the frontends with exactly this address. */
  at(protocol: Protocol, address: IpAddress): PortOwners {
    const entries = this.#entries.get(keyOf(protocol, address)) ?? [];
    return entries.find((entry) => entry.address.text === address.text)?.owners ?? NO_PORTS;
  }

  /** Every frontend address that a rule serves over the protocol. */
  frontends(protocol: Protocol): readonly { readonly address: IpAddress; readonly owners: PortOwners }[] {
    return [...this.#entries].flatMap(([key, entries]) => (key.startsWith(`${protocol} `) ? entries : []));
  }

  #entryOf(protocol: Protocol, address: IpAddress): FrontendEntry {
    const key = keyOf(protocol, address);
    const entries = this.#entries.get(key) ?? [];
    this.#entries.set(key, entries);
    let entry = entries.find((one) => one.address.text === address.text);
    if (entry === undefined) {
      const zone = isWildcard(address) ? undefined : address.zone;
      entries.push((entry = { address, zone, claims: new Map(), owners: NO_PORTS }));
    }
    return entry;
  }
}

const NO_PORTS = new PortOwners([]);

/** Cuts the ports where a range begins or ends, and paints the pieces, weakest claim first. */
function ownersAmong(claims: ReadonlyMap<number, Rule>): PortOwners {
  const cuts = new Set<number>();
  for (const { ports } of claims.values()) {
    for (const { first, last } of ports) cuts.add(first).add(last + 1);
  }
  const starts = Uint32Array.from(cuts).sort();
  const pieceAt = new Map(Array.from(starts, (port, piece) => [port, piece]));
  const owner = new Int32Array(starts.length).fill(NO_RULE);
  const weakestFirst = [...claims].sort(
    ([a, ruleA], [b, ruleB]) => Number(ruleB.haPorts) - Number(ruleA.haPorts) || b - a,
  );
  for (const [index, { ports }] of weakestFirst) {
    for (const { first, last } of ports) owner.fill(index, pieceAt.get(first), pieceAt.get(last + 1));
  }
  const segments: PortSegment[] = [];
  for (let from = 0, to = 1; from < owner.length; from = to++) {
    const rule = owner[from] ?? NO_RULE;
    while (owner[to] === rule) to++;
    // The last piece begins behind every range: it has no owner.
    if (rule !== NO_RULE) segments.push({ first: starts[from] ?? 0, last: (starts[to] ?? 0) - 1, rule });
  }
  return new PortOwners(segments);
}

/** Whether a frontend's address takes in a destination: the same address, or the wildcard of its family. */
export function frontendCovers(frontend: IpAddress, destination: IpAddress): boolean {
  if (frontend.family !== destination.family) return false;
  if (isWildcard(frontend)) return true;
  return unzonedText(frontend) === unzonedText(destination) && zonesAgree(frontend.zone, destination.zone);
}

/** Addresses read off the wire or typed by people often lack the zone: none agrees with any. */
function zonesAgree(a: string | undefined, b: string | undefined): boolean {
  return a === undefined || b === undefined || a === b;
}

function keyOf(protocol: Protocol, address: IpAddress): string {
  return isWildcard(address) ? wildcardKey(protocol, address.family) : `${protocol} ${unzonedText(address)}`;
}

function wildcardKey(protocol: Protocol, family: 4 | 6): string {
  return `${protocol} *${family}`;
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
