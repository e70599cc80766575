import { networkInterfaces } from 'node:os';
import { ipAddress, isWildcard, parseIpAddress, type IpAddress, type Protocol } from '../../model/address.js';
import { captureAddress, type CapturePlan } from '../../model/capture.js';
import type { Configuration, Frontend, Rule } from '../../model/configuration.js';
import { portSetSize, portsOf, unionPorts, type PortRange, type PortSet } from '../../model/ports.js';
import type { Hash32 } from '../../selection/flow-hash.js';
import type { ListenFailure, TcpPorts } from '../contract.js';
import { CapturedEnds, type CapturedEnd } from './captured-ports.js';
import type { ListenerBinding } from './listener.js';

/** Bindings by protocol and address (`udp 127.0.0.1`), then port. */
export type ListenerPlan = ReadonlyMap<string, ReadonlyMap<number, ListenerBinding>>;

export function socketGroup(protocol: Protocol, address: IpAddress): string {
  return `${protocol} ${address.text}`;
}

/** The plan's binding of a socket, or undefined if it does not want it. */
export function plannedBinding(
  plan: ListenerPlan,
  {
    protocol,
    address,
    port,
  }: { readonly protocol: Protocol; readonly address: string | IpAddress; readonly port: number },
): ListenerBinding | undefined {
  const text = typeof address === 'string' ? address : address.text;
  return plan.get(`${protocol} ${text}`)?.get(port);
}

export function isPlanned(plan: ListenerPlan, binding: ListenerBinding): boolean {
  return plannedBinding(plan, binding) !== undefined;
}

/** Which worker the plan is for, and who owns what. */
export interface PlanShare {
  readonly worker: number;
  readonly ownerOf: OwnerOf;
  /** @default 'shared' */
  readonly tcpPorts?: TcpPorts | undefined;
  /** Absent: every port has a socket of its own. */
  readonly capture?: CapturePlan;
}

const ALONE: PlanShare = { worker: 0, ownerOf: () => 0 };

/**
 * Every socket that a configuration wants of a worker: of UDP those it owns, of TCP all, or those it owns where TCP
 * ports are owned too. A rule that names a port beats an HA-ports rule on the same frontend. A wildcard frontend becomes
 * one UDP socket for each of the machine's own addresses, since a wildcard UDP socket would answer from whatever address
 * the route back suggests.
 */
export function planListeners(
  configuration: Configuration,
  ownAddresses: (family: 4 | 6) => readonly IpAddress[],
  share: PlanShare = ALONE,
): ListenerPlan {
  const plan = new Map<string, Map<number, ListenerBinding>>();
  const ranked = configuration.rules
    .map((rule, ruleIndex) => ({ rule, ruleIndex }))
    .sort((a, b) => Number(a.rule.haPorts) - Number(b.rule.haPorts));
  const { capture } = share;
  for (const { rule, ruleIndex } of ranked) {
    const { frontend } = rule;
    for (const protocol of rule.protocols) {
      if (capture !== undefined && isCaptured(protocol, capture)) continue;
      for (const address of addressesFor(frontend, protocol, ownAddresses)) {
        addRule(plan, { protocol, address, rule, ruleIndex, frontend }, share);
      }
    }
  }
  if (capture !== undefined) addCaptured(plan, configuration, capture, share.worker);
  return plan;
}

function isCaptured(protocol: Protocol, { udp }: CapturePlan): boolean {
  return protocol === 'tcp' || udp === 'redirect';
}

/** One TCP socket a family, which workers share, and one UDP socket a frontend and worker. */
function addCaptured(
  plan: Map<string, Map<number, ListenerBinding>>,
  configuration: Configuration,
  capture: CapturePlan,
  worker: number,
): void {
  const add = (address: IpAddress, port: number, end: CapturedEnd, rest: Partial<ListenerBinding>): void => {
    const binding = { ...end, ...rest, protocol: rest.captured?.protocol ?? 'tcp', address, port };
    plan.set(socketGroup(binding.protocol, address), new Map([[port, binding]]));
  };
  const ends = new CapturedEnds(configuration, 'tcp', capture);
  for (const { frontend, first } of ends.all()) {
    const address = ipAddress(frontend.address.family === 4 ? '0.0.0.0' : '::');
    if (first === undefined || plan.has(socketGroup('tcp', address))) continue;
    const isTold = worker === 0 ? {} : { reportedElsewhere: true };
    add(address, capture.port, first, { captured: { protocol: 'tcp', ends }, ...isTold });
  }
  if (!isCaptured('udp', capture)) return;
  const udp = new CapturedEnds(configuration, 'udp', capture);
  for (const ports of udp.all()) {
    const { address: frontend } = ports.frontend;
    if (ports.first === undefined) continue;
    const address = captureAddress(frontend.family, udp.slotOf(frontend), 0, capture.block);
    add(address, capture.port + worker, ports.first, { captured: { protocol: 'udp', ports } });
  }
}

/** Those failures that no other worker tells of. */
export function ownFailures(
  plan: ListenerPlan,
  failures: readonly ListenFailure[],
): readonly ListenFailure[] {
  return failures.filter((failure) => plannedBinding(plan, failure)?.reportedElsewhere !== true);
}

/** By address: the UDP ports that all workers together listen on. */
export function plannedUdpPorts(
  configuration: Configuration,
  ownAddresses: (family: 4 | 6) => readonly IpAddress[],
): ReadonlyMap<string, PortSet> {
  const planned = new Map<string, PortSet>();
  for (const rule of configuration.rules) {
    if (!rule.protocols.includes('udp')) continue;
    for (const { text } of addressesFor(rule.frontend, 'udp', ownAddresses)) {
      planned.set(text, unionPorts(planned.get(text) ?? [], rule.ports));
    }
  }
  return planned;
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
  share: PlanShare,
): void {
  const key = socketGroup(entry.protocol, entry.address);
  const group = plan.get(key) ?? new Map<number, ListenerBinding>();
  plan.set(key, group);
  const isAlone = entry.protocol === 'udp' || share.tcpPorts === 'owned';
  const ownerOf = entry.protocol === 'tcp' && isAlone ? tcpOwner(share.ownerOf) : share.ownerOf;
  for (const port of portsOf(entry.rule.ports)) {
    if (group.has(port)) continue;
    const isOwner = ownerOf(entry.address, port) === share.worker;
    if (isOwner) group.set(port, { ...entry, port });
    else if (!isAlone) group.set(port, { ...entry, port, reportedElsewhere: true });
  }
}

/**
 * Gives each port set's part of this worker. Two workers must never choose the same port for the same backend: for UDP
 * the kernel would let them, and one would get the other's replies. The same set has the same part, as an object too.
 */
export function portShares(worker: number, workers: number): (ports: PortSet) => PortSet {
  if (workers === 1) return (ports) => ports;
  const known = new WeakMap<PortSet, PortSet>();
  return (ports) => {
    let share = known.get(ports);
    if (share === undefined) known.set(ports, (share = sharePorts(ports, worker, workers)));
    return share;
  };
}

/**
 * The worker's own part of a port set: as large as the others' to within one port, in few ranges. The parts of all
 * workers are disjoint and make up the set.
 */
export function sharePorts(ports: PortSet, worker: number, workers: number): PortSet {
  const size = portSetSize(ports);
  const from = Math.floor((size * worker) / workers);
  const to = Math.floor((size * (worker + 1)) / workers);
  const share: PortRange[] = [];
  let offset = 0;
  for (const { first, last } of ports) {
    const length = last - first + 1;
    const low = Math.max(from - offset, 0);
    const high = Math.min(to - offset, length);
    if (low < high) share.push({ first: first + low, last: first + high - 1 });
    offset += length;
  }
  return share;
}

/** The machine's own addresses of a family, as they are when asked. */
export type OwnAddresses = (family: 4 | 6) => readonly IpAddress[];

/** What the operating system lists, in its order, without duplicates. Link-local IPv6 carries its interface as zone. */
export const ownAddresses: OwnAddresses = (family) => addressesOf(family, networkInterfaces());

/** The addresses in a listing as `os.networkInterfaces()` gives it. */
export function addressesOf(
  family: 4 | 6,
  interfaces: ReturnType<typeof networkInterfaces>,
): readonly IpAddress[] {
  const found = new Map<string, IpAddress>();
  for (const [name, entries] of Object.entries(interfaces)) {
    for (const entry of entries ?? []) {
      const scoped = entry.family === 'IPv6' && entry.scopeid !== 0;
      const address = parseIpAddress(scoped ? `${entry.address}%${name}` : entry.address);
      if (address?.family === family) found.set(address.text, address);
    }
  }
  return [...found.values()];
}

/** Which worker owns an address and port: an index below the number of workers. */
export type OwnerOf = (address: IpAddress, port: number) => number;

/** Not a worker's index: there are at most 64. */
const UNKNOWN = 0xff;
const ALL_PORTS = 65536;

/**
 * Rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998): the worker
 * with the highest xxh32 (seed 0) of address bytes, port (2, big endian) and worker index (1) owns the socket. Whether a
 * worker lives changes nothing, and one worker more takes over an equal part from each of the others. IPv4-mapped
 * addresses are IPv4 here as everywhere; zones are left out.
 */
export function rendezvousOwner(hash: Hash32, workers: number): OwnerOf {
  if (workers === 1) return () => 0;
  // Every plan asks for every port again, which is up to workers times 65,535 hashes an address.
  const known = new Map<string, Uint8Array>();
  return (address, port) => {
    let owners = known.get(address.text);
    if (owners === undefined) known.set(address.text, (owners = new Uint8Array(ALL_PORTS).fill(UNKNOWN)));
    const present = owners[port];
    if (present !== undefined && present !== UNKNOWN) return present;
    return (owners[port] = highestScore(hash, address, port, workers));
  };
}

/**
 * Of TCP ports that one worker has alone: the owner of the port whatever the address. A listener on a wildcard address
 * and one on a single address are in each other's way, and the one worker that has both can close one for the other.
 */
export function tcpOwner(ownerOf: OwnerOf): OwnerOf {
  const everywhere = { 4: ipAddress('0.0.0.0'), 6: ipAddress('::') };
  return ({ family }, port) => ownerOf(everywhere[family], port);
}

function highestScore(hash: Hash32, address: IpAddress, port: number, workers: number): number {
  const { length } = address.bytes;
  const input = new Uint8Array(length + 3);
  input.set(address.bytes);
  input[length] = port >> 8;
  input[length + 1] = port & 0xff;
  let owner = 0;
  let best = -1;
  for (let worker = 0; worker < workers; worker++) {
    input[length + 2] = worker;
    const score = hash(input, 0);
    if (score <= best) continue;
    best = score;
    owner = worker;
  }
  return owner;
}
