import type { FlowManager } from '../../../flows/flow-manager.js';
import type { Flow } from '../../../flows/flow.js';
import { formatEndpoint, type IpAddress } from '../../../model/address.js';
import type { Rule } from '../../../model/configuration.js';
import type { UdpFlowState } from '../../contract.js';
import type {
  DatagramHandler,
  DatagramSocket,
  DatagramSockets,
  DatagramSource,
} from '../sockets/datagram-socket.js';
import type {
  DialRefusal,
  DialledSocket,
  Dialer,
  UdpLocalEnd,
  UpstreamDialer,
  UpstreamTarget,
} from './upstream.js';

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

  /** Ends in use, and the sockets beside the connected ones. */
  get size(): { readonly ends: number; readonly unconnected: number } {
    return { ends: this.#ends.size, unconnected: this.#unconnected.size };
  }

  /** Dials for a flow from the end that it shares. */
  dialerFor(member: RelatedMember): Dialer {
    const { dialer } = this.#deps;
    return {
      ready: (target) => (this.#ends.has(keyOf(member, target)) ? undefined : dialer.ready(target)),
      dial: (target, options) => this.#dial(member, target, options?.local),
      close: (socket, target) => this.#close(member, socket, target),
    };
  }

  #dial(
    member: RelatedMember,
    target: UpstreamTarget,
    local: UdpLocalEnd | undefined,
  ): DialledSocket | DialRefusal {
    const { dialer } = this.#deps;
    const end = this.#ends.get(keyOf(member, target));
    if (end === undefined) return this.#open(member, target, local);
    if (local === undefined || isSame(local, end.local)) {
      const joined = dialer.join(end.local, target);
      if (joined !== undefined) {
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
    target: UpstreamTarget,
    local: UdpLocalEnd | undefined,
  ): DialledSocket | DialRefusal {
    const { dialer } = this.#deps;
    const dialled = dialer.dial(target, { local, shared: true });
    if (typeof dialled === 'string') {
      // What another process had may be in use here.
      return local === undefined ? dialled : dialer.dial(target, { local });
    }
    const { source, sourcePort, peer } = dialled;
    const own = { source, sourcePort };
    const unconnected = this.#unconnectedAt(own);
    if (unconnected === undefined) {
      dialer.close(dialled, target);
      dialer.releaseShared(own, target);
      return 'descriptors-exhausted';
    }
    const end = new RelatedEnd({ local: own, unconnected, peer, target }, this.#deps);
    end.members.set(target.endpoint.port, member);
    unconnected.ends.set(peer, end);
    this.#ends.set(keyOf(member, target), end);
    return dialled;
  }

  #close(member: RelatedMember, socket: DialledSocket, target: UpstreamTarget): void {
    const { dialer } = this.#deps;
    dialer.close(socket, target);
    const key = keyOf(member, target);
    const end = this.#ends.get(key);
    if (end === undefined || !isSame(end.local, socket)) return;
    end.members.delete(target.endpoint.port);
    if (end.members.size > 0) return;
    this.#ends.delete(key);
    dialer.releaseShared(end.local, target);
    const { unconnected, peer, local } = end;
    unconnected.ends.delete(peer);
    if (unconnected.ends.size > 0) return;
    unconnected.close();
    this.#unconnected.delete(formatEndpoint(local.source, local.sourcePort));
  }

  #unconnectedAt(local: UdpLocalEnd): UnconnectedSocket | undefined {
    const key = formatEndpoint(local.source, local.sourcePort);
    const present = this.#unconnected.get(key);
    if (present !== undefined) return present;
    const opened = UnconnectedSocket.open(local, this.#deps);
    if (opened !== undefined) this.#unconnected.set(key, opened);
    return opened;
  }
}

interface RelatedEndParts {
  readonly local: UdpLocalEnd;
  readonly unconnected: UnconnectedSocket;
  /** The backend's address as the system writes it. */
  readonly peer: string;
  readonly target: UpstreamTarget;
}

/** One local end towards one backend, and the flows on it. */
class RelatedEnd {
  readonly local: UdpLocalEnd;
  readonly unconnected: UnconnectedSocket;
  readonly peer: string;
  /** By the backend's port. */
  readonly members = new Map<number, RelatedMember>();
  readonly #target: UpstreamTarget;
  readonly #deps: RelatedEndsDeps;

  constructor({ local, unconnected, peer, target }: RelatedEndParts, deps: RelatedEndsDeps) {
    this.local = local;
    this.unconnected = unconnected;
    this.peer = peer;
    this.#target = target;
    this.#deps = deps;
  }

  /** Of one of its flows: what is thrown away is counted there. */
  get rule(): Rule | undefined {
    return this.#anyMember()?.flow.rule;
  }

  /** From any port of the backend. */
  receive(datagram: Buffer, port: number): void {
    const member = this.members.get(port);
    // What waited here while the flow's own socket came into being.
    if (member !== undefined) member.receive(datagram);
    else this.#begin(datagram, port);
  }

  #begin(datagram: Buffer, port: number): void {
    const { manager, hostAt } = this.#deps;
    const member = this.#anyMember();
    if (member === undefined) return;
    const { tuple, rule } = member.flow;
    const destinationPort = port - rule.portOffset;
    const isPort = destinationPort >= 1 && destinationPort <= 65535;
    const host = isPort ? hostAt(tuple.destination, destinationPort) : undefined;
    if (host === undefined || !leadsToTheSame(host.rule, rule)) {
      manager.dropped(rule, 'udp', 'unexpected-reply');
      return;
    }
    const { backendId, endpoint } = this.#target;
    const record: UdpFlowState = {
      tuple: { ...tuple, destinationPort },
      clientAddress: member.clientAddress,
      rule: host.rule.name,
      backendId,
      endpoint: { address: endpoint.address, port },
      ...this.local,
      openedAtMs: manager.clock.wallMs(),
      bytesToBackend: 0,
      packetsToBackend: 0,
      bytesToClient: 0,
      packetsToClient: 0,
    };
    host.begin(record, datagram);
  }

  #anyMember(): RelatedMember | undefined {
    const [member] = this.members.values();
    return member;
  }
}

/** Whether flows of both rules to the same frontend port end on the same port of the same backends. */
function leadsToTheSame(a: Rule, b: Rule): boolean {
  if (a.name === b.name) return true;
  return a.udp.answersFrom === 'address' && a.pool.name === b.pool.name && a.portOffset === b.portOffset;
}

function keyOf({ flow, clientAddress }: RelatedMember, { backendId, endpoint }: UpstreamTarget): string {
  const { sourcePort, destination } = flow.tuple;
  return `${clientAddress}|${sourcePort}|${destination.text}|${backendId}|${endpoint.address.text}`;
}

function isSame(a: UdpLocalEnd, b: UdpLocalEnd): boolean {
  return a.sourcePort === b.sourcePort && a.source.text === b.source.text;
}

/**
 * An unconnected socket beside connected ones on the same local address and port. It takes datagrams of the backends
 * that those lead to, whatever port they come from, and nothing else (RFC 4787, section 5: address-dependent
 * filtering).
 */
class UnconnectedSocket implements DatagramHandler {
  /** By the backend's address as the system writes it. */
  readonly ends = new Map<string, RelatedEnd>();
  readonly #manager: FlowManager;
  #socket: DatagramSocket | undefined;

  private constructor(manager: FlowManager) {
    this.#manager = manager;
  }

  /** Undefined where the system has no socket for it. */
  static open(
    { source, sourcePort }: UdpLocalEnd,
    { manager, sockets }: RelatedEndsDeps,
  ): UnconnectedSocket | undefined {
    const opened = new UnconnectedSocket(manager);
    const socket = sockets.bind({ address: source, port: sourcePort, use: 'shared' }, opened);
    if (socket instanceof Error) return undefined;
    opened.#socket = socket;
    return opened;
  }

  onDatagram(datagram: Buffer, from: DatagramSource): void {
    const end = this.ends.get(from.address);
    if (end !== undefined) {
      end.receive(datagram, from.port);
      return;
    }
    const [anyEnd] = this.ends.values();
    if (anyEnd?.rule !== undefined) this.#manager.dropped(anyEnd.rule, 'udp', 'unexpected-reply');
  }

  onReceiveError(): void {
    // It concerns one datagram; the socket stays usable.
  }

  onSendError(): void {
    // Nothing is sent from here.
  }

  close(): void {
    this.#socket?.close();
  }
}
