import { mix32 } from '../../flows/flow.js';
import { isWildcard, parseIpAddress, type Protocol } from '../../model/address.js';
import { portSetSize } from '../../model/ports.js';
import { NO_RULE } from '../../selection/rule-ports.js';
import {
  copied,
  markFilter,
  protocolOf,
  type Conntrack,
  type ConntrackEntry,
  type EntryFilter,
} from '../netfilter/conntrack.js';
import { addressText } from '../netfilter/setup.js';
import { INSTANCE_MASK, markTag, type KernelProgram, type KernelRule } from './program.js';

/*
 * What flow policy means for conntrack: which entries are to be deleted when backends lose their flows.
 */

/** Flows of a rule on a backend that conntrack is to forget. `udp` stands for all protocols but TCP. */
export interface Eviction {
  readonly rule: KernelRule;
  readonly protocol: Protocol;
  readonly mark: number;
}

/** Evictions by what they are about. */
export type Evictions = ReadonlyMap<string, Eviction>;

/**
 * Flows that are placed anew by being forgotten: their next packet is the first of a flow. UDP that is reset is that too,
 * as its flow ends and its next datagram starts another.
 */
export function movedFlows(program: KernelProgram): Evictions {
  return evictions(program, 'udp', ({ actions: { udp } }) => [...udp.rebalance, ...udp.reset]);
}

/** TCP flows that are reset when they next send: after that they are forgotten. Those that can move are not among them. */
export function resetFlows(program: KernelProgram): Evictions {
  return evictions(program, 'tcp', ({ actions: { tcp } }) => tcp.reset);
}

function evictions(
  { rules }: KernelProgram,
  protocol: Protocol,
  marksOf: (rule: KernelRule) => readonly number[],
): Evictions {
  return new Map(
    rules
      .filter(({ rule }) => rule.protocols.includes(protocol))
      .flatMap((rule) =>
        marksOf(rule).map((mark) => [keyOf(rule, protocol, mark), { rule, protocol, mark }] as const),
      ),
  );
}

function keyOf({ rule }: KernelRule, protocol: Protocol, mark: number): string {
  return `${rule.name} ${protocol} ${mark}`;
}

/** Those that are not in the others. */
export function evictionsWithout(some: Evictions, others: Evictions): readonly Eviction[] {
  return [...some].flatMap(([key, eviction]) => (others.has(key) ? [] : [eviction]));
}

/** Matches flows of an eviction, and maybe some of the same frontend's other rules. */
export function matchOf({ rule, mark }: Eviction): EntryFilter {
  const { address } = rule.rule.frontend;
  return [
    ...['-f', `ipv${address.family}`, ...markFilter(mark, 0xffffffff)],
    ...(isWildcard(address) ? [] : ['--orig-dst', addressText(address)]),
  ];
}

/** Flows of one client on a backend. */
export function clientFilter(eviction: Eviction, source: string): EntryFilter {
  return ['-p', eviction.protocol, ...matchOf(eviction), '--orig-src', source];
}

/** All flows of an instance, by family: `conntrack -D` takes one at a time. */
export function instanceFilters(instance: string): readonly EntryFilter[] {
  return ['ipv4', 'ipv6'].map((family) => ['-f', family, ...markFilter(markTag(instance), INSTANCE_MASK)]);
}

/**
 * Flows of UDP to the frontends that began without the table: the kernel decides about a flow once, and a client that
 * keeps sending would never be balanced.
 */
export function staleFlows({ frontends }: KernelProgram): EntryFilter[] {
  return frontends
    .filter(({ address }) => !isWildcard(address))
    .map(({ address }) => [
      ...['-f', `ipv${address.family}`, '-p', 'udp', '--orig-dst', addressText(address)],
      ...markFilter(0, INSTANCE_MASK),
    ]);
}

/** Finds the filters of flows that are to be forgotten. Its methods reject where conntrack cannot be listed. */
export class FlowFinder {
  readonly #conntrack: Pick<Conntrack, 'list'>;

  constructor(conntrack: Pick<Conntrack, 'list'>) {
    this.#conntrack = conntrack;
  }

  /** TCP or UDP of these; `all` are those that stay in force, of the same kind. */
  async filtersOf(
    some: readonly Eviction[],
    all: Evictions,
    program: KernelProgram,
  ): Promise<readonly EntryFilter[]> {
    const filters: EntryFilter[] = [];
    for (const eviction of some) {
      const match = ['-p', eviction.protocol, ...matchOf(eviction)];
      const port = onlyPort(eviction);
      if (port !== undefined) filters.push([...match, '--orig-port-dst', String(port)]);
      else if (!isShared(eviction, all, program)) filters.push(match);
      else filters.push(...(await this.#byPort(eviction, match, program)));
    }
    return filters;
  }

  /** Flows of protocols without ports, whichever there are. */
  async otherFilters(some: readonly Eviction[]): Promise<readonly EntryFilter[]> {
    const wanted = some.filter(({ protocol, rule }) => protocol !== 'tcp' && rule.rule.haPorts);
    return this.#filters(wanted.map(matchOf), (entry, match) =>
      protocolOf(entry) === undefined ? ['-p', String(entry.protocol), ...match] : undefined,
    );
  }

  /** Flows to which no rule belongs any more. Their next packet meets what there is for packets of no flow. */
  async rulelessFilters(program: KernelProgram): Promise<readonly EntryFilter[]> {
    return this.#filters(instanceFilters(program.instance), (entry, match) => {
      const protocol = protocolOf(entry);
      if (protocol === undefined || ownerOf(entry, program) !== NO_RULE) return undefined;
      const { destination, destinationPort } = entry.original;
      const ends = ['--orig-dst', copied(destination), '--orig-port-dst', String(destinationPort)];
      return ['-p', protocol, ...match, ...ends];
    });
  }

  /** Clients that have flows of that kind. */
  async clientsOf(eviction: Eviction): Promise<ReadonlySet<string>> {
    const entries = await this.#list(['-p', eviction.protocol, ...matchOf(eviction)]);
    return new Set(entries.map(({ original }) => copied(original.source)));
  }

  /** By mark of the instance that is in use, the address that answers. */
  async marksInUse(instance: string): Promise<ReadonlyMap<number, string>> {
    const found = new Map<number, string>();
    for (const match of instanceFilters(instance)) {
      for (const { mark, reply } of await this.#list(match)) found.set(mark, copied(reply.source));
    }
    return found;
  }

  /** Rules on the same address have other wishes: by the ports of those flows that are the rule's. */
  async #byPort(
    { rule }: Eviction,
    match: EntryFilter,
    program: KernelProgram,
  ): Promise<readonly EntryFilter[]> {
    return this.#filters([match], (entry) =>
      ownerOf(entry, program) === rule.index
        ? [...match, '--orig-port-dst', String(entry.original.destinationPort)]
        : undefined,
    );
  }

  /** The filters of the entries that match, each once. */
  async #filters(
    matches: readonly EntryFilter[],
    filterOf: (entry: ConntrackEntry, match: EntryFilter) => EntryFilter | undefined,
  ): Promise<readonly EntryFilter[]> {
    const filters = new Map<string, EntryFilter>();
    for (const match of matches) {
      for (const entry of await this.#list(match)) {
        const filter = filterOf(entry, match);
        if (filter !== undefined) filters.set(filter.join(' '), filter);
      }
    }
    return [...filters.values()];
  }

  async #list(filter: EntryFilter): Promise<readonly ConntrackEntry[]> {
    const all: ConntrackEntry[] = [];
    const failure = await this.#conntrack.list(filter, (entries) => all.push(...entries));
    if (failure !== undefined) throw failure;
    return all;
  }
}

/** The only port of the rule; undefined: it has several. */
function onlyPort({ rule: { rule } }: Eviction): number | undefined {
  return portSetSize(rule.ports) === 1 ? rule.ports[0]?.first : undefined;
}

/** Whether a match may hit flows of other rules: some have the frontend's address, the pool and the protocol, but no such eviction. */
function isShared(
  { rule: own, protocol, mark }: Eviction,
  all: Evictions,
  { rules }: KernelProgram,
): boolean {
  const { frontend, pool } = own.rule;
  return rules.some(
    (other) =>
      other !== own &&
      other.rule.frontend.address.family === frontend.address.family &&
      (isWildcard(frontend.address) || other.rule.frontend.address.text === frontend.address.text) &&
      other.rule.pool === pool &&
      other.rule.protocols.includes(protocol) &&
      !all.has(keyOf(other, protocol, mark)),
  );
}

/** Index of the rule that now has the port to which a flow was opened, or NO_RULE; undefined: neither TCP nor UDP. */
function ownerOf(entry: ConntrackEntry, { rulePorts }: KernelProgram): number | undefined {
  const protocol = protocolOf(entry);
  const destination = parseIpAddress(entry.original.destination);
  if (protocol === undefined || destination === undefined) return undefined;
  return rulePorts.ownerOf(protocol, destination, entry.original.destinationPort);
}

/** As good as random, and the same for the same client: the order in which a drain ends flows. */
export function rankOf(source: string): number {
  let hash = 0;
  for (let index = 0; index < source.length; index++) hash = mix32(hash ^ source.charCodeAt(index));
  return hash >>> 0;
}
