import type { IpAddress } from '../../model/address.js';
import type { BalancerError } from '../../model/errors.js';
import { fnv1a } from '../../model/fnv1a.js';
import { succeeded, toolFailure, type Tools } from './tools.js';

/** rtm_protocol, `h` of haports: not in /etc/iproute2/rt_protos, and above RTPROT_STATIC, so routing daemons keep off. */
export const ROUTE_PROTOCOL = '104';

/** Where `ip` lists entries, and which of what it lists there is an entry of an instance's. */
interface Place {
  readonly args: readonly string[];
  readonly entryOf: (
    record: Readonly<Record<string, unknown>>,
    family: 4 | 6,
    tag: number,
  ) => RoutingEntry | undefined;
}

const PLACES = {
  'private-routes': {
    args: ['route', 'show', 'table', 'local', 'proto', ROUTE_PROTOCOL],
    entryOf: (record, family, tag) =>
      record['metric'] === tag ? anyIpRoute(family, String(record['dst']), tag) : undefined,
  },
  'backend-tables': {
    args: ['route', 'show', 'table', 'all', 'proto', ROUTE_PROTOCOL],
    entryOf: ({ table, gateway }, family, tag) =>
      isBackendTable(tag, Number(table)) && typeof gateway === 'string'
        ? backendRoute(family, gateway, Number(table))
        : undefined,
  },
  addresses: {
    args: ['addr', 'show', 'dev', 'lo'],
    entryOf: (record, family, tag) =>
      record['metric'] === tag ? loopbackAddress(family, String(record['local']), tag) : undefined,
  },
  rules: {
    args: ['rule', 'show'],
    entryOf: ({ table, fwmark }, family, tag) =>
      isBackendTable(tag, Number(table)) ? backendRule(family, Number(fwmark), Number(table)) : undefined,
  },
} as const satisfies Readonly<Record<string, Place>>;

/**
 * All that carries the tag, as it was made. `like`: only in places where these are, which takes fewer processes.
 * Rejects with BalancerError.
 */
export async function listOwnRouting(
  tools: Tools,
  tag: number,
  like?: readonly RoutingEntry[],
): Promise<RoutingEntry[]> {
  const places = Object.keys(PLACES) as (keyof typeof PLACES)[];
  const listings = ([4, 6] as const).flatMap((family) =>
    places
      .filter((place) => like?.some((entry) => entry.family === family && placeOf(entry) === place) ?? true)
      .map((place) => list(tools, tag, PLACES[place], family)),
  );
  return (await Promise.all(listings)).flat();
}

/** Puts entries in place; one that is there already is left. Rejects with BalancerError at the first that cannot be. */
export async function addRouting(tools: Tools, entries: readonly RoutingEntry[]): Promise<void> {
  for (const entry of entries) {
    // `ip rule` knows no replace. It is only called for what is missing.
    const failure = await change(tools, entry.object === 'rule' ? 'add' : 'replace', entry);
    if (failure !== undefined && !failure.message.includes('File exists')) throw failure;
  }
}

/** Takes entries away, all that can be. The failure of the first that could not be. */
export async function deleteRouting(
  tools: Tools,
  entries: readonly RoutingEntry[],
): Promise<BalancerError | undefined> {
  let first: BalancerError | undefined;
  for (const entry of entries) {
    const failure = await change(tools, 'del', entry);
    // Gone by itself, or with its device.
    if (
      failure !== undefined &&
      !/No such process|Cannot assign requested address|No such file/.test(failure.message)
    ) {
      first ??= failure;
    }
  }
  return first;
}

export function without(entries: readonly RoutingEntry[], others: readonly RoutingEntry[]): RoutingEntry[] {
  const known = new Set(others.map((entry) => ipCommandLine('add', entry)));
  return entries.filter((entry) => !known.has(ipCommandLine('add', entry)));
}

async function change(
  tools: Tools,
  verb: 'add' | 'replace' | 'del',
  entry: RoutingEntry,
): Promise<BalancerError | undefined> {
  const [, ...args] = ipCommandLine(verb, entry).split(' ');
  const outcome = await tools.run('ip', args);
  return succeeded(outcome) ? undefined : toolFailure('ip', outcome);
}

async function list(
  tools: Tools,
  tag: number,
  { args, entryOf }: Place,
  family: 4 | 6,
): Promise<RoutingEntry[]> {
  const outcome = await tools.run('ip', ['-N', '-j', `-${family}`, ...args]);
  if (!succeeded(outcome)) {
    // A kernel may be without IPv6.
    if (/Address family not supported/i.test(outcome.stderr)) return [];
    throw toolFailure('ip', outcome);
  }
  const found = records(outcome.stdout);
  if (found === undefined) throw toolFailure('ip', { ...outcome, failure: 'no JSON' });
  return found.flatMap((record) => entryOf(record, family, tag) ?? []);
}

function placeOf({ object, args }: RoutingEntry): keyof typeof PLACES {
  if (object === 'addr') return 'addresses';
  if (object === 'rule') return 'rules';
  return args.includes('via') ? 'backend-tables' : 'private-routes';
}

/** What `ip -j` prints: a list, of devices with lists of addresses for `addr`. Nothing at all where there is nothing. */
function records(json: string): Record<string, unknown>[] | undefined {
  const parsed = json.trim() === '' ? [] : parseJson(json);
  if (!Array.isArray(parsed)) return undefined;
  const items: unknown[] = parsed;
  return items.filter(isRecord).flatMap((item) => {
    const addresses: unknown = item['addr_info'];
    return Array.isArray(addresses) ? (addresses as unknown[]).filter(isRecord) : [item];
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/*
 * Routes, addresses and policy rules of this machine that belong to one instance. Each carries the instance's tag, so
 * that they are found without a configuration, also after a crash, and two instances never take the other's away:
 *
 *   route     protocol 104, and its metric is the tag, or it is in the routing table of a backend
 *   addr      on lo, its metric is the tag
 *   rule      looks up the routing table of a backend
 *
 * Backends that packets are routed to as they are have a routing table each: 2^31 + the lower 15 bits of the tag + the
 * backend's number.
 */

/** What `ip` adds or deletes: `ip -4 route add <args>`. Made only by the functions below: the texts are compared. */
export interface RoutingEntry {
  readonly object: 'route' | 'addr' | 'rule';
  readonly family: 4 | 6;
  readonly args: readonly string[];
}

/** Ahead of the tables main (32766) and default; no other meaning. */
const RULE_PREFERENCE = '680';

/** The table of an instance. It starts with `haports`, so that no instance can have the name of a foreign table. */
export function tableOf(instance: string): string {
  return instance.startsWith('haports') ? instance : `haports-${instance}`;
}

/** A number from 65,536 to 2^31 - 1, which is a valid metric and no usual number of a routing table. */
export function instanceTag(instance: string): number {
  return (fnv1a(Buffer.from(tableOf(instance))) % (0x7fff_ffff - 0x1_0000)) + 0x1_0000;
}

/** All addresses of the prefix are this machine's own. */
export function anyIpRoute(family: 4 | 6, prefix: string, tag: number): RoutingEntry {
  return {
    object: 'route',
    family,
    args: ['local', prefix, 'dev', 'lo', 'proto', ROUTE_PROTOCOL, 'metric', String(tag)],
  };
}

/** An address that can be bound, and that is no one's choice as a source: it is deprecated from the start. */
export function loopbackAddress(family: 4 | 6, address: string, tag: number): RoutingEntry {
  const prefix = `${address}/${family === 4 ? 32 : 128}`;
  const flags = family === 6 ? ['noprefixroute', 'preferred_lft', '0'] : [];
  return { object: 'addr', family, args: [prefix, 'dev', 'lo', 'metric', String(tag), ...flags] };
}

/** The routing table of a backend, by its mark. */
export function backendTable(tag: number, mark: number): number {
  return backendTables(tag) * 0x1_0000 + (mark & 0xffff);
}

/** Whether a routing table is that of a backend of the instance. */
export function isBackendTable(tag: number, table: number): boolean {
  return Math.floor(table / 0x1_0000) === backendTables(tag);
}

/** The upper half of their numbers, above all other tags. */
function backendTables(tag: number): number {
  return 0x8000 + (tag & 0x7fff);
}

/** Packets with exactly that mark are routed by the backend's table. */
export function backendRule(family: 4 | 6, mark: number, table: number): RoutingEntry {
  return {
    object: 'rule',
    family,
    args: [
      ...['pref', RULE_PREFERENCE, 'fwmark', `0x${mark.toString(16)}`],
      ...['lookup', String(table), 'protocol', ROUTE_PROTOCOL],
    ],
  };
}

/** The policy rule and the route by which packets with exactly that mark go to the backend. */
export function routingTo(address: IpAddress, mark: number, tag: number): RoutingEntry[] {
  const table = backendTable(tag, mark);
  const [gateway = ''] = address.text.split('%', 1);
  return [backendRoute(address.family, gateway, table), backendRule(address.family, mark, table)];
}

/** All that is routed by the backend's table goes to the backend. */
function backendRoute(family: 4 | 6, gateway: string, table: number): RoutingEntry {
  return {
    object: 'route',
    family,
    args: ['default', 'via', gateway, 'table', String(table), 'proto', ROUTE_PROTOCOL],
  };
}

/** `ip -4 route add local 240.7.0.0/16 dev lo proto 104 metric 1234567`. */
export function ipCommandLine(verb: 'add' | 'replace' | 'del', entry: RoutingEntry): string {
  return `ip -${entry.family} ${entry.object} ${verb} ${entry.args.join(' ')}`;
}
