import type { Socket } from 'node:dgram';
import type { Server } from 'node:net';
import { isWildcard, type IpAddress, type Protocol } from '../../model/address.js';
import type { CapturePlan } from '../../model/capture.js';
import type { Configuration } from '../../model/configuration.js';
import { portSetSize, unionPorts, type PortSet } from '../../model/ports.js';
import type { ListeningSocket, TcpPorts, UdpFlowState } from '../contract.js';

/** What haports uses of the objects that Node keeps under its sockets (lib/internal, stable since Node 10). */
interface RawUdp {
  recvStart(): number;
  recvStop(): number;
}

/** The object under a listening server, which may be sent to another process; undefined where it is not listening. */
export function rawTcp(server: Server): object | undefined {
  const { _handle: handle } = server as Server & { readonly _handle?: object | null };
  return handle ?? undefined;
}

/**
 * The object under a bound socket. `socket._handle` would be the same, and tells of its deprecation on stderr (DEP0112);
 * sending the socket itself would have the receiving process read from it at once.
 */
export function rawUdp(socket: Socket): (RawUdp & object) | undefined {
  const symbol = Object.getOwnPropertySymbols(socket).find(
    ({ description }) => description === 'state symbol',
  );
  if (symbol === undefined) return undefined;
  const { handle } = (socket as unknown as Record<symbol, { readonly handle?: unknown }>)[symbol] ?? {};
  return isRawUdp(handle) ? handle : undefined;
}

/**
 * Listens on what came from another process. In a cluster worker `server.listen(handle)` would ask the cluster for a
 * socket instead; this is what it does everywhere else (lib/net.js: `_listen2`, which servers have had since Node 0.x).
 */
export function listenRaw(server: Server, handle: unknown, backlog: number): void {
  const raw = server as unknown as {
    _handle: unknown;
    _listen2(address: null, port: number, addressType: number, backlog: number): void;
  };
  raw._handle = handle;
  raw._listen2(null, -1, -1, backlog);
}

/**
 * Listens on a descriptor of this process, which is closed with the server. `server.listen({ fd })` would ask the cluster
 * for it in a cluster worker, whatever `exclusive` says (lib/net.js); see listenRaw.
 */
export function listenDescriptor(server: Server, descriptor: number, backlog: number): void {
  const raw = server as unknown as {
    _listen2(address: null, port: null, addressType: null, backlog: number, fd: number): void;
  };
  raw._listen2(null, null, null, backlog, descriptor);
}

/** Binds a socket to what came from another process: it reads from now on. The system's error where that failed. */
export function bindRaw(socket: Socket, handle: unknown): NodeJS.ErrnoException | undefined {
  let failure: NodeJS.ErrnoException | undefined;
  const onError = (error: Error): void => {
    failure = error;
  };
  socket.on('error', onError);
  // Node takes a handle here (lib/dgram.js: `recvStart` is what it looks for); the types do not say so.
  (socket.bind as (handle: unknown) => void).call(socket, handle);
  socket.off('error', onError);
  return failure;
}

function isRawUdp(handle: unknown): handle is RawUdp & object {
  return typeof handle === 'object' && handle !== null && 'recvStart' in handle && 'recvStop' in handle;
}

/** No flow has that port. */
const ALL_PORTS = 0;

/** What a plane got from its predecessor, until its listeners have taken it. */
export class Inheritance {
  readonly #sockets = new Map<string, ListeningSocket>();
  #flows = new Map<string, UdpFlowState[]>();

  addSockets(sockets: readonly ListeningSocket[]): void {
    for (const socket of sockets) {
      const key = keyOf(socket.protocol, socket.address, socket.port);
      this.#sockets.get(key)?.release();
      this.#sockets.set(key, socket);
    }
  }

  setFlows(flows: readonly UdpFlowState[]): void {
    this.#flows = new Map();
    for (const flow of flows) {
      const { destination, destinationPort } = flow.tuple;
      const port = flow.clientPort === undefined ? destinationPort : ALL_PORTS;
      const key = keyOf('udp', destination.text, port);
      const group = this.#flows.get(key) ?? [];
      this.#flows.set(key, group);
      group.push(flow);
    }
  }

  /** The raw handle of a socket that is now the caller's; undefined: there is none, so open one. */
  takeSocket(protocol: Protocol, address: string, port: number): unknown {
    const key = keyOf(protocol, address, port);
    const socket = this.#sockets.get(key);
    this.#sockets.delete(key);
    return socket?.handle;
  }

  /** Flows that came in there. */
  flowsAt(address: string, port: number): readonly UdpFlowState[] {
    return this.#flows.get(keyOf('udp', address, port)) ?? [];
  }

  /** Flows to all ports of a captured frontend. */
  capturedFlowsAt(address: string): readonly UdpFlowState[] {
    return this.flowsAt(address, ALL_PORTS);
  }

  /** Closes what nobody has taken: connections would wait there for ever. */
  discard(): void {
    for (const socket of this.#sockets.values()) socket.release();
    this.#sockets.clear();
    this.#flows.clear();
  }
}

function keyOf(protocol: Protocol, address: string, port: number): string {
  return `${protocol} ${address} ${port}`;
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
  readonly capture?: CapturePlan;
  /** The machine's own addresses of a family. */
  readonly ownAddresses: (family: 4 | 6) => readonly IpAddress[];
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
  if (capture !== undefined && (protocol === 'tcp' || capture.udp === 'redirect')) return 2;
  let count = 0;
  for (const frontend of configuration.frontends) {
    const { address } = frontend;
    let ports: PortSet = [];
    for (const rule of configuration.rules) {
      if (rule.frontend === frontend && rule.protocols.includes(protocol))
        ports = unionPorts(ports, rule.ports);
    }
    const addresses = protocol === 'udp' && isWildcard(address) ? ownAddresses(address.family).length : 1;
    count += portSetSize(ports) * addresses;
  }
  return count;
}
