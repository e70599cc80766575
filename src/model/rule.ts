import type { Protocol } from './five-tuple.js';
import type { PortSet } from './port-set.js';

/**
 * Which fields are hashed. `five-tuple`: both addresses, both ports, protocol. `source-ip-protocol`: both
 * addresses and protocol. `source-ip`: both addresses. (Azure: Default, SourceIPProtocol, SourceIP.)
 */
export type Distribution = 'five-tuple' | 'source-ip-protocol' | 'source-ip';

/** What ends a backend's hold on its flows. */
export type FlowTrigger = 'probe-down' | 'admin-down' | 'removed' | 'drain-deadline' | 'idle';

export const FLOW_TRIGGERS: readonly FlowTrigger[] = [
  'probe-down',
  'admin-down',
  'removed',
  'drain-deadline',
  'idle',
];

/**
 * What then happens to a flow. `persist`: it stays where it is. `rebalance`: UDP moves with its next datagram;
 * a spliced TCP stream cannot be moved and is reset. `reset`: TCP gets RST on both ends, a UDP flow ends and its
 * next datagram starts a new one. `drop`: the flow is forgotten without a word and its packets are discarded
 * until the client gives up.
 */
export type FlowAction = 'persist' | 'rebalance' | 'reset' | 'drop';

export type FlowPolicy = Readonly<Record<FlowTrigger, Readonly<Record<Protocol, FlowAction>>>>;

/** What a new flow meets when no backend is eligible. `drop` over TCP: accepted, never answered, closed later. */
export type AllDownAction = 'reset' | 'drop' | 'fail-open';

/** A value and the place it came from, so that `explain` can say why a timeout is what it is. */
export interface Sourced<T> {
  readonly value: T;
  readonly origin: 'default' | 'rule' | 'frontend';
}

/**
 * Where a backend may answer from (RFC 4787, section 5, says which filtering that is). `endpoint`: from the port it was
 * asked on, address and port-dependent filtering. `address`: from any of its ports, address-dependent filtering.
 */
export type AnswersFrom = 'endpoint' | 'address';

export interface UdpOptions {
  /** Balance each datagram by itself (one-way protocols: syslog, statsd). Replies are not carried. */
  readonly perPacket: boolean;
  /** Datagrams a backend answers per request; the flow ends when they have come. 0: replies are not carried. */
  readonly expectedResponses?: number;
  /** Absent: `endpoint`. */
  readonly answersFrom?: AnswersFrom;
}

export interface TcpOptions {
  /** TCP_NODELAY on both sockets. @default true */
  readonly noDelay: boolean;
  /** Idle time before the first TCP keep-alive on both sockets, in ms; undefined: off. */
  readonly keepAliveMs?: number;
}

export interface Rule {
  readonly name: string;
  readonly frontend: string;
  readonly backendPool: string;
  readonly probe?: string;
  readonly protocols: readonly Protocol[];
  /** An HA-ports rule: every port, port kept. It yields to any rule that names the port. */
  readonly haPorts: boolean;
  /** The ports listened on, after `listenPorts` and less haports' own ports. */
  readonly ports: PortSet;
  /** Added to the frontend port to get the backend port; 0 keeps it (443 -> 6443 is 6000). */
  readonly portOffset: number;
  readonly floatingIp: boolean;
  readonly distribution: Distribution;
  readonly symmetric: boolean;
  readonly idleTimeoutMs: Readonly<Record<Protocol, Sourced<number>>>;
  /** RST to both ends when a TCP flow ends by idle timeout; otherwise both are closed with FIN. */
  readonly tcpReset: boolean;
  readonly flowPolicy: FlowPolicy;
  readonly allDown: AllDownAction;
  readonly tcp: TcpOptions;
  readonly udp: UdpOptions;
}
