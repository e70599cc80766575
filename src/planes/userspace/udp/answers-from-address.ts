import type { FlowManager } from '../../../flows/flow-manager.js';
import type { Flow } from '../../../flows/flow.js';
import { formatEndpoint, type IpAddress } from '../../../model/address.js';
import type { Rule } from '../../../model/configuration.js';
import type { UdpFlowState } from '../../contract.js';
import { DEAF, type DatagramSocket, type DatagramSockets } from '../sockets/datagram-socket.js';
import type { DialTarget } from '../source-ports.js';
import type { DialRefusal, DialledSocket, Dialer, UdpLocalEnd, UpstreamDialer } from './upstream.js';

/** A flow that shares its local end with others of the same client endpoint. */
export interface RelatedMember {
  readonly flow: Flow;
  /** As the system writes it. */
  readonly clientAddress: string;
  /** A datagram of its backend. */
  receive(datagram: Buffer): void;
}

/** What serves an address and port of a frontend. */
export interface AnswerHost {
  readonly rule: Rule;
  /** Takes in a flow that a backend began, and its first datagram. What it refuses it counts. */
  begin(record: UdpFlowState, datagram: Buffer): void;
}

export interface RelatedEndsDeps {
  readonly manager: FlowManager;
  readonly sockets: DatagramSockets;
  readonly dialer: UpstreamDialer;
  /** What serves an address and port, for answers that leave from there; undefined: nothing can. */
  readonly hostAt: (address: IpAddress, port: number) => AnswerHost | undefined;
}

/** One local end towards one backend, and the flows on it: at least one. */
interface RelatedEnd {
  readonly local: UdpLocalEnd;
  readonly unconnected: UnconnectedSocket;
  readonly target: DialTarget;
  /** By the backend's port. */
  readonly members: Map<number, RelatedMember>;
}

/**
 * An unconnected socket beside connected ones on the same local address and port. It takes datagrams of the backends
 * that those lead to, whatever port they come from, and nothing else (RFC 4787, section 5: address-dependent
 * filtering).
 */
interface UnconnectedSocket {
  readonly socket: DatagramSocket;
  /** By the backend's address as the system writes it: at least one. */
  readonly ends: Map<string, RelatedEnd>;
}

/**
 * Local ends for rules with `answersFrom: "address"`. All flows between a client endpoint, a frontend and a backend
 * leave from one local address and port, so that the backend knows them as one peer whatever port it answers from.
 * Beside their connected sockets there is one that is not connected: Linux prefers the connected ones, so it gets what
 * comes from ports of the backend that no flow leads to yet. From there a new flow begins.
 *
 * A flow of a rule without it may have the same local end towards another port of the same backend; the backend's
 * datagrams from there are its own then. Only rules of both kinds over one pool come to that, once in some 28,000 times.
 */
export class RelatedEnds {
  readonly #deps: RelatedEndsDeps;
  readonly #ends = new Map<string, RelatedEnd>();
  /** By local address and port: ends towards several backends may share both. */
  readonly #unconnected = new Map<string, UnconnectedSocket>();

  constructor(deps: RelatedEndsDeps) {
    this.#deps = deps;
  }

  /** Dials for a flow from the end that it shares. */
  dialerFor(member: RelatedMember): Dialer {
    const { dialer } = this.#deps;
    return {
      ready: (target) => (this.#ends.has(keyOf(member, target)) ? undefined : dialer.ready(target)),
      dial: (target, { local } = {}) => this.#dial(member, target, local),
      close: (socket, target) => this.#close(member, socket, target),
    };
  }

  #dial(
    member: RelatedMember,
    target: DialTarget,
    local: UdpLocalEnd | undefined,
  ): DialledSocket | DialRefusal {
    const { dialer } = this.#deps;
    const end = this.#ends.get(keyOf(member, target));
    if (end === undefined) return this.#open(member, target, local);
    if (local === undefined || isSame(local, end.local)) {
      const joined = dialer.join(end.local, target);
      if (typeof joined !== 'string') {
        end.members.set(target.endpoint.port, member);
        return joined;
      }
    }
    // Only answers from the port asked on find it.
    return dialer.dial(target, { local });
  }

  /** The first of its members brings an end into being. */
  #open(
    member: RelatedMember,
    target: DialTarget,
    local: UdpLocalEnd | undefined,
  ): DialledSocket | DialRefusal {
    const { dialer } = this.#deps;
    const dialled = dialer.dial(target, { local, shared: true });
    if (typeof dialled === 'string') {
      // What another process had may be in use here.
      return local === undefined ? dialled : dialer.dial(target, { local });
    }
    const unconnected = this.#unconnectedAt(dialled);
    if (unconnected === undefined) {
      dialer.close(dialled, target);
      dialer.releaseShared(dialled, target);
      return 'descriptors-exhausted';
    }
    const { source, sourcePort, peer } = dialled;
    const members = new Map([[target.endpoint.port, member]]);
    const end = { local: { source, sourcePort }, unconnected, target, members };
    unconnected.ends.set(peer, end);
    this.#ends.set(keyOf(member, target), end);
    return dialled;
  }

  #close(member: RelatedMember, dialled: DialledSocket, target: DialTarget): void {
    const { dialer } = this.#deps;
    dialer.close(dialled, target);
    const key = keyOf(member, target);
    const end = this.#ends.get(key);
    if (end === undefined || !isSame(end.local, dialled)) return;
    end.members.delete(target.endpoint.port);
    if (end.members.size > 0) return;
    this.#ends.delete(key);
    dialer.releaseShared(dialled, target);
    const { socket, ends } = end.unconnected;
    ends.delete(dialled.peer);
    if (ends.size > 0) return;
    socket.close();
    this.#unconnected.delete(endpointOf(dialled));
  }

  /** Undefined where the system has no socket for it. */
  #unconnectedAt(local: UdpLocalEnd): UnconnectedSocket | undefined {
    const key = endpointOf(local);
    const present = this.#unconnected.get(key);
    if (present !== undefined) return present;
    const { source: address, sourcePort: port } = local;
    const ends = new Map<string, RelatedEnd>();
    const socket = this.#deps.sockets.bind(
      { address, port, use: 'shared' },
      { ...DEAF, onDatagram: (datagram, from) => this.#received(datagram, from.port, from.address, ends) },
    );
    if (socket instanceof Error) return undefined;
    const opened = { socket, ends };
    this.#unconnected.set(key, opened);
    return opened;
  }

  #received(datagram: Buffer, port: number, address: string, ends: ReadonlyMap<string, RelatedEnd>): void {
    const end = ends.get(address);
    const member = end?.members.get(port);
    // What waited here while the flow's own socket came into being.
    if (member !== undefined) member.receive(datagram);
    else if (end !== undefined) this.#begin(end, datagram, port);
    else {
      const [anyEnd] = ends.values();
      const [anyMember] = anyEnd?.members.values() ?? [];
      if (anyMember !== undefined) this.#drop(anyMember);
    }
  }

  #begin({ members, target, local }: RelatedEnd, datagram: Buffer, port: number): void {
    const { manager, hostAt } = this.#deps;
    const [member] = members.values();
    if (member === undefined) return;
    // It has an answer, if from elsewhere: it is not evicted to make room for the answer's own flow.
    manager.table.answered(member.flow);
    const { tuple, rule } = member.flow;
    const destinationPort = port - rule.portOffset;
    const isPort = destinationPort >= 1 && destinationPort <= 65535;
    const host = isPort ? hostAt(tuple.destination, destinationPort) : undefined;
    if (host === undefined || !leadsToTheSame(host.rule, rule)) {
      this.#drop(member);
      return;
    }
    const record: UdpFlowState = {
      tuple: { ...tuple, destinationPort },
      clientAddress: member.clientAddress,
      rule: host.rule.name,
      backendId: target.backendId,
      endpoint: { address: target.endpoint.address, port },
      ...local,
      openedAtMs: manager.clock.wallMs(),
      bytesToBackend: 0,
      packetsToBackend: 0,
      bytesToClient: 0,
      packetsToClient: 0,
    };
    host.begin(record, datagram);
  }

  #drop({ flow }: RelatedMember): void {
    this.#deps.manager.dropped(flow.rule, 'udp', 'unexpected-reply');
  }
}

/** Whether flows of both rules to the same frontend port end on the same port of the same backends. */
function leadsToTheSame(a: Rule, b: Rule): boolean {
  if (a.name === b.name) return true;
  return a.udp.answersFrom === 'address' && a.pool.name === b.pool.name && a.portOffset === b.portOffset;
}

function keyOf({ flow, clientAddress }: RelatedMember, { backendId, endpoint }: DialTarget): string {
  const { sourcePort, destination } = flow.tuple;
  return `${clientAddress}|${sourcePort}|${destination.text}|${backendId}|${endpoint.address.text}`;
}

function isSame(a: UdpLocalEnd, b: UdpLocalEnd): boolean {
  return a.sourcePort === b.sourcePort && a.source.text === b.source.text;
}

function endpointOf({ source, sourcePort }: UdpLocalEnd): string {
  return formatEndpoint(source, sourcePort);
}
