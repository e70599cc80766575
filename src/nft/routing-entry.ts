import { fnv1a } from '../model/fnv1a.js';

/*
 * Routes, addresses and policy rules of this machine that belong to one instance. Each carries the instance's tag, so
 * that they are found without a configuration, also after a crash, and two instances never take the other's away:
 *
 *   route     protocol 104, and its metric is the tag, or it is in the routing table with that number
 *   addr      on lo, its metric is the tag
 *   rule      looks up the routing table with that number
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

/** rtm_protocol, `h` of haports: not in /etc/iproute2/rt_protos, and above RTPROT_STATIC, so routing daemons keep off. */
export const ROUTE_PROTOCOL = '104';

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

/** In the instance's own routing table every address is this machine's own. */
export function everythingLocalRoute(family: 4 | 6, tag: number): RoutingEntry {
  return {
    object: 'route',
    family,
    args: ['local', 'default', 'dev', 'lo', 'table', String(tag), 'proto', ROUTE_PROTOCOL],
  };
}

/** An address that can be bound, and that is no one's choice as a source: it is deprecated from the start. */
export function loopbackAddress(family: 4 | 6, address: string, tag: number): RoutingEntry {
  const prefix = `${address}/${family === 4 ? 32 : 128}`;
  const flags = family === 6 ? ['noprefixroute', 'preferred_lft', '0'] : [];
  return { object: 'addr', family, args: [prefix, 'dev', 'lo', 'metric', String(tag), ...flags] };
}

/** Packets with that mark are routed by the instance's own routing table. `mark`: `0x68000000/0xff000000`. */
export function markRule(family: 4 | 6, mark: string, tag: number): RoutingEntry {
  return {
    object: 'rule',
    family,
    args: [
      ...['pref', RULE_PREFERENCE, 'fwmark', mark],
      ...['lookup', String(tag), 'protocol', ROUTE_PROTOCOL],
    ],
  };
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

/** All that is routed by the backend's table goes to the backend. */
export function backendRoute(family: 4 | 6, gateway: string, table: number): RoutingEntry {
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

export function sameEntry(a: RoutingEntry, b: RoutingEntry): boolean {
  return ipCommandLine('add', a) === ipCommandLine('add', b);
}
