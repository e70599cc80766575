import { networkInterfaces } from 'node:os';
import type { RuleSlot } from '../../flows/flow.js';
import {
  PROTOCOLS,
  ipAddress,
  isWildcard,
  parseIpAddress,
  type IpAddress,
  type Protocol,
} from '../../model/address.js';
import { captureAddress, captureSlots, type CapturePlan } from '../../model/capture.js';
import type { Configuration, Frontend } from '../../model/configuration.js';
import { portSetSize, portsOf } from '../../model/ports.js';
import type { Hash32 } from '../../selection/flow-hash.js';
import { NO_RULE, RulePorts, type PortOwners } from '../../selection/rule-ports.js';
import type { TcpPorts } from '../contract.js';

/** The ports of one captured frontend and protocol, and the rules that serve them. */
export class CapturedPorts {
  readonly frontend: Frontend;
  /** The rule that comes first: what belongs to no port is counted there. */
  readonly first: RuleSlot;
  readonly #owners: PortOwners;
  readonly #slots: readonly RuleSlot[];

  constructor(frontend: Frontend, first: RuleSlot, owners: PortOwners, slots: readonly RuleSlot[]) {
    this.frontend = frontend;
    this.first = first;
    this.#owners = owners;
    this.#slots = slots;
  }

  /** Undefined: no rule serves that port. */
  at(port: number): RuleSlot | undefined {
    return this.#slots[this.#owners.ownerOf(port)];
  }
}

/** All captured ports of a protocol, by the number of the frontend's private addresses. */
export class CapturedFrontends {
  /** Of frontends that some rule serves over this protocol. */
  readonly all: readonly CapturedPorts[];
  readonly #byNumber: (CapturedPorts | undefined)[] = [];
  readonly #numbers: ReadonlyMap<string, number>;

  constructor(
    { frontends }: Pick<Configuration, 'frontends'>,
    rules: { readonly slots: readonly RuleSlot[]; readonly rulePorts: RulePorts },
    protocol: Protocol,
    { block }: Pick<CapturePlan, 'block'>,
  ) {
    const { slots, rulePorts } = rules;
    this.#numbers = captureSlots(
      frontends.map(({ address }) => address),
      block,
    );
    this.all = frontends.flatMap((frontend) => {
      const served = slots.filter(
        ({ rule }) => rule.frontend === frontend && rule.protocols.includes(protocol),
      );
      const first = served.find(({ rule }) => !rule.haPorts) ?? served[0];
      if (first === undefined) return [];
      const owners = rulePorts.at(protocol, frontend.address);
      return [new CapturedPorts(frontend, first, owners, slots)];
    });
    for (const ports of this.all) this.#byNumber[this.numberOf(ports.frontend.address)] = ports;
  }

  numbered(number: number): CapturedPorts | undefined {
    return this.#byNumber[number];
  }

  /** See model/capture.ts, where it is called slot. */
  numberOf({ text }: IpAddress): number {
    return this.#numbers.get(text) ?? -1;
  }
}

/** What a socket gets on behalf of many ports: of TCP those of all frontends of a family, of UDP those of one. */
export type Captured =
  | { readonly protocol: 'tcp'; readonly frontends: CapturedFrontends }
  | { readonly protocol: 'udp'; readonly ports: CapturedPorts };

/**
 * One wanted socket and the rule it serves. `slot` and `captured` are replaced with each configuration. A captured socket
 * is bound to a private address and port, and serves what `captured` says; `slot` is then the first of those.
 */
export interface ListenerBinding {
  readonly protocol: Protocol;
  readonly address: IpAddress;
  readonly port: number;
  slot: RuleSlot;
  /** Absent: the socket is bound to the frontend's own address and port. */
  captured?: Captured | undefined;
  /**
   * Workers share a TCP socket, and one of them tells of it in reports and counters: another than this.
   * @default false
   */
  readonly reportedElsewhere?: boolean;
}

/** A local end of a protocol, by the address's text. */
interface Endpoint {
  readonly protocol: Protocol;
  readonly address: string | { readonly text: string };
  readonly port: number;
}

/** Values by protocol, address and port. */
export class EndpointMap<T> {
  /** By address, then by port: with all ports of an address, texts of keys would take longer than all else. */
  readonly #groups: Readonly<Record<Protocol, Map<string, Map<number, T>>>> = {
    tcp: new Map(),
    udp: new Map(),
  };

  get size(): number {
    let size = 0;
    for (const group of this.#all()) size += group.size;
    return size;
  }

  get(endpoint: Endpoint): T | undefined {
    return this.#groupOf(endpoint)?.get(endpoint.port);
  }

  set(endpoint: Endpoint, value: T): void {
    let group = this.#groupOf(endpoint);
    if (group === undefined) {
      group = new Map<number, T>();
      this.#groups[endpoint.protocol].set(addressOf(endpoint), group);
    }
    group.set(endpoint.port, value);
  }

  delete(endpoint: Endpoint): boolean {
    return this.#groupOf(endpoint)?.delete(endpoint.port) ?? false;
  }

  clear(): void {
    for (const protocol of PROTOCOLS) this.#groups[protocol].clear();
  }

  *values(): Generator<T> {
    for (const group of this.#all()) yield* group.values();
  }

  /** On all addresses, over both protocols. */
  *onPort(port: number): Generator<T> {
    for (const group of this.#all()) {
      const value = group.get(port);
      if (value !== undefined) yield value;
    }
  }

  #all(): readonly Map<number, T>[] {
    return PROTOCOLS.flatMap((protocol) => [...this.#groups[protocol].values()]);
  }

  #groupOf(endpoint: Endpoint): Map<number, T> | undefined {
    return this.#groups[endpoint.protocol].get(addressOf(endpoint));
  }
}

function addressOf({ address }: Endpoint): string {
  return typeof address === 'string' ? address : address.text;
}

export type ListenerPlan = EndpointMap<ListenerBinding>;

/** Which worker the plan is for, and which worker owns what. */
export interface PlanShare {
  readonly worker: number;
  readonly ownerOf: OwnerOf;
  /** @default 'shared' */
  readonly tcpPorts?: TcpPorts | undefined;
  /** Absent: every port has a socket of its own. */
  readonly capture?: CapturePlan | undefined;
}

const ALONE: PlanShare = { worker: 0, ownerOf: () => 0 };

/**
 * Every socket that a configuration wants of a worker: of UDP those it owns, of TCP all, or those it owns where TCP
 * ports are owned too. `slots` are those of the configuration's rules.
 */
export function planListeners(
  configuration: Pick<Configuration, 'frontends' | 'rules'>,
  slots: readonly RuleSlot[],
  ownAddresses: OwnAddresses,
  share: PlanShare = ALONE,
): ListenerPlan {
  const plan: ListenerPlan = new EndpointMap();
  const rulePorts = new RulePorts(configuration.rules);
  const { capture } = share;
  for (const protocol of PROTOCOLS) {
    if (capture !== undefined && isCaptured(protocol, capture)) continue;
    for (const { address, owners } of boundAddresses(rulePorts, protocol, ownAddresses)) {
      addPorts(plan, { protocol, address }, owners, slots, share);
    }
  }
  if (capture !== undefined) addCaptured(plan, configuration, { slots, rulePorts }, capture, share.worker);
  return plan;
}

/**
 * Where sockets are bound for a protocol. A wildcard frontend becomes one UDP socket for each of the machine's own
 * addresses, since a wildcard UDP socket would answer from whatever address the route back suggests.
 */
function boundAddresses(
  rulePorts: RulePorts,
  protocol: Protocol,
  ownAddresses: OwnAddresses,
): readonly { readonly address: IpAddress; readonly owners: PortOwners }[] {
  return rulePorts.frontends(protocol).flatMap(({ address, owners }) => {
    const isSpread = protocol === 'udp' && isWildcard(address);
    return (isSpread ? ownAddresses(address.family) : [address]).map((own) => ({ address: own, owners }));
  });
}

function addPorts(
  plan: ListenerPlan,
  { protocol, address }: { readonly protocol: Protocol; readonly address: IpAddress },
  { segments }: PortOwners,
  slots: readonly RuleSlot[],
  share: PlanShare,
): void {
  const isOwnedByOne = protocol === 'udp' || share.tcpPorts === 'owned';
  const ownerOf = protocol === 'tcp' && isOwnedByOne ? tcpOwner(share.ownerOf) : share.ownerOf;
  for (const segment of segments) {
    const slot = slots[segment.rule];
    if (slot === undefined) throw new RangeError(`No slot for rule ${segment.rule}`);
    for (const port of portsOf([segment])) {
      const isOwn = ownerOf(address, port) === share.worker;
      if (!isOwn && isOwnedByOne) continue;
      const binding = { protocol, address, port, slot };
      if (plan.get(binding) !== undefined) continue;
      plan.set(binding, isOwn ? binding : { ...binding, reportedElsewhere: true });
    }
  }
}

function isCaptured(protocol: Protocol, { udp }: CapturePlan): boolean {
  return protocol === 'tcp' || udp === 'redirect';
}

/** One TCP socket a family, which workers share, and one UDP socket a frontend and worker. */
function addCaptured(
  plan: ListenerPlan,
  configuration: Pick<Configuration, 'frontends'>,
  rules: { readonly slots: readonly RuleSlot[]; readonly rulePorts: RulePorts },
  capture: CapturePlan,
  worker: number,
): void {
  const frontends = new CapturedFrontends(configuration, rules, 'tcp', capture);
  for (const { frontend, first } of frontends.all) {
    const address = ipAddress(frontend.address.family === 4 ? '0.0.0.0' : '::');
    const end = { protocol: 'tcp', address, port: capture.port } as const;
    if (plan.get(end) !== undefined) continue;
    const captured = { protocol: 'tcp', frontends } as const;
    plan.set(end, { ...end, slot: first, captured, reportedElsewhere: worker !== 0 });
  }
  if (!isCaptured('udp', capture)) return;
  const udp = new CapturedFrontends(configuration, rules, 'udp', capture);
  for (const ports of udp.all) {
    const { address: own } = ports.frontend;
    const address = captureAddress(own.family, udp.numberOf(own), 0, capture.block);
    const end = { protocol: 'udp', address, port: capture.port + worker } as const;
    plan.set(end, { ...end, slot: ports.first, captured: { protocol: 'udp', ports } });
  }
}

/** Whether any of all workers listens on a UDP endpoint, by this configuration. */
export function udpEndpoints(
  { rules }: Pick<Configuration, 'rules'>,
  ownAddresses: OwnAddresses,
): (address: string, port: number) => boolean {
  const byAddress = new Map<string, PortOwners[]>();
  for (const { address, owners } of boundAddresses(new RulePorts(rules), 'udp', ownAddresses)) {
    byAddress.set(address.text, [...(byAddress.get(address.text) ?? []), owners]);
  }
  return (address, port) =>
    byAddress.get(address)?.some((owners) => owners.ownerOf(port) !== NO_RULE) ?? false;
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

/** Without a socket left, a listener could accept nothing: this share of the descriptors is kept for flows. */
const SHARE_FOR_LISTENERS = 0.9;

/** As many as a configuration may ask for. */
const MOST_WORKERS = 64;

/** A shared socket goes from the control process to each worker, which takes some 0.3 ms: this many take 12 s. */
const MOST_HANDED_OVER = 40_000;

export interface BudgetRequest {
  readonly configuration: Configuration;
  /** 0: all in one process. */
  readonly workers: number;
  /** Descriptors that a process may have open; undefined: no limit. */
  readonly limit: number | undefined;
  /** Absent: every port has a socket of its own. */
  readonly capture?: CapturePlan | undefined;
  readonly ownAddresses: OwnAddresses;
  /** As decided before; absent: shared where that fits. */
  readonly tcpPorts?: TcpPorts | undefined;
}

/** What listening on all of a configuration takes of the process that has most of it. */
export interface SocketBudget {
  readonly tcpPorts: TcpPorts;
  /** Sockets, at most: how many of its ports a worker owns is known to within some per cent. */
  readonly sockets: number;
  /** Absent: they fit. */
  readonly shortage?: SocketShortage;
}

export interface SocketShortage {
  readonly limit: number;
  /** Descriptors that would do. */
  readonly needed: number;
  /** Workers that would do under the present limit; absent: no number does. */
  readonly workers?: number;
}

/** How many of its descriptors a process may use to listen. */
export function mostListeners(limit: number | undefined): number {
  return limit === undefined ? Infinity : Math.floor(limit * SHARE_FOR_LISTENERS);
}

/**
 * How several workers are to have the TCP ports, and whether it all fits. Shared sockets spread the flows of a single
 * port over all workers, but every process needs all of them; owned ones are one worker's each, as UDP's always are.
 */
export function socketBudget(request: BudgetRequest): SocketBudget {
  const { workers, limit } = request;
  const ports = {
    tcp: countPorts(request, 'tcp'),
    udp: countPorts(request, 'udp'),
    captured: request.capture !== undefined,
  };
  const tcpPorts = request.tcpPorts ?? chooseForm(ports, workers, limit);
  const sockets = socketsOf(ports, workers, tcpPorts);
  if (sockets <= mostListeners(limit) || limit === undefined) return { tcpPorts, sockets };
  const needed = Math.ceil(sockets / SHARE_FOR_LISTENERS);
  const enough = ports.captured ? undefined : workersThatDo(ports, limit);
  const helps = enough !== undefined && enough > workers;
  return { tcpPorts, sockets, shortage: { limit, needed, ...(helps && { workers: enough }) } };
}

/** What is wrong and what helps, as the end of a message. */
export function shortageAdvice({ limit, needed, workers }: SocketShortage): string {
  const others = workers === undefined ? '' : `, or set "dataPlane.workers" to ${workers} or more`;
  return (
    `a process may open ${limit} files and sockets and needs ${needed}: raise the hard limit ` +
    `(LimitNOFILE=${needed} in the systemd unit, "ulimit -Hn ${needed}", or prlimit)${others}, ` +
    'or have nftables capture the ports with "dataPlane.capture"'
  );
}

interface PortCounts extends Readonly<Record<Protocol, number>> {
  readonly captured: boolean;
}

function chooseForm(ports: PortCounts, workers: number, limit: number | undefined): TcpPorts {
  if (workers < 2 || ports.captured) return 'shared';
  const fits = socketsOf(ports, workers, 'shared') <= mostListeners(limit);
  return fits && ports.tcp * workers <= MOST_HANDED_OVER ? 'shared' : 'owned';
}

function socketsOf({ tcp, udp }: PortCounts, workers: number, tcpPorts: TcpPorts): number {
  return ownedShare(udp, workers) + (tcpPorts === 'owned' ? ownedShare(tcp, workers) : tcp);
}

/** Rendezvous hashing is a lottery: four standard deviations above the mean are hardly ever passed. */
function ownedShare(ports: number, workers: number): number {
  if (workers < 2) return ports;
  const mean = ports / workers;
  return Math.min(ports, Math.ceil(mean + 4 * Math.sqrt(mean)));
}

function workersThatDo(ports: PortCounts, limit: number): number | undefined {
  for (let workers = 2; workers <= MOST_WORKERS; workers++) {
    if (socketsOf(ports, workers, 'owned') <= mostListeners(limit)) return workers;
  }
  return undefined;
}

/** Sockets of all workers together that listen for a protocol. */
function countPorts({ configuration, capture, ownAddresses }: BudgetRequest, protocol: Protocol): number {
  // Two for TCP, one for each worker and frontend for UDP.
  if (capture !== undefined && isCaptured(protocol, capture)) return 2;
  return boundAddresses(new RulePorts(configuration.rules), protocol, ownAddresses)
    .map(({ owners }) => portSetSize(owners.segments))
    .reduce((sum, size) => sum + size, 0);
}
