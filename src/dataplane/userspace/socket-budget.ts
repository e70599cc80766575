import { isWildcard, type IpAddress } from '../../model/address.js';
import type { CapturePlan } from '../../model/capture.js';
import type { Configuration } from '../../model/configuration.js';
import type { Protocol } from '../../model/five-tuple.js';
import { portSetSize, unionPorts, type PortSet } from '../../model/port-set.js';
import type { TcpPorts } from '../data-plane.js';

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
  for (const { name, address } of configuration.frontends) {
    let ports: PortSet = [];
    for (const rule of configuration.rules) {
      if (rule.frontend === name && rule.protocols.includes(protocol)) ports = unionPorts(ports, rule.ports);
    }
    const addresses = protocol === 'udp' && isWildcard(address) ? ownAddresses(address.family).length : 1;
    count += portSetSize(ports) * addresses;
  }
  return count;
}
