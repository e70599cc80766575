import type { RemoteInfo, Socket } from 'node:dgram';
import type { Flow } from '../../../flows/flow.js';
import { formatEndpoint, type IpAddress } from '../../../model/address.js';
import type { Rule } from '../../../model/configuration.js';
import type { UdpFlowState } from '../../contract.js';
import type { FlowManager } from '../flow-manager.js';
import {
  bindNow,
  createDatagramSocket,
  type ConnectedSocket,
  type DialRefusal,
  type LocalEnd,
  type UpstreamDialer,
  type UpstreamSource,
  type UpstreamTarget,
} from './upstream.js';

/** A flow that shares its local end with others of the same client endpoint. */
export interface RelatedMember {
  readonly flow: Flow;
  /** As the system writes it. */
  readonly clientAddress: string;
  /** A datagram of its backend. */
  receive(datagram: Buffer): void;
}

/** Who serves an address and port of a frontend. */
export interface AnswerHost {
  readonly rule: Rule;
  /** Takes in a flow that a backend began, and its first datagram. What it refuses it counts. */
  begin(record: UdpFlowState, datagram: Buffer): void;
}

/** Who serves which address and port, for answers that leave from there. */
export interface AnswerPorts {
  /** Undefined: nobody can. `rule` is the one of the flow that is answered. */
  hostAt(address: IpAddress, port: number, rule: Rule): AnswerHost | undefined;
}

export interface RelatedEndsDeps {
  readonly manager: FlowManager;
  readonly dialer: UpstreamDialer;
  readonly answerPorts: AnswerPorts;
}

/**
 * Local ends for rules with `answersFrom: "address"`. All flows between a client endpoint, a frontend and a backend go
 * out from one local address and port, so that the backend knows them as one peer whatever port it answers from. Beside
 * their connected sockets there is one that is not connected: Linux prefers the connected ones, so it gets what comes
 * from ports of the backend that no flow leads to yet. From there a new flow begins.
 *
 * A flow of a rule without it may have the same local end towards another port of the same backend; the backend's
 * datagrams from there are its own then. Only rules of both kinds over one pool come to that, once in some 28,000 times.
 */
export class RelatedEnds {
  readonly #deps: RelatedEndsDeps;
  readonly #ends = new Map<string, RelatedEnd>();
  /** By local address and port: ends towards several backends may share both. */
  readonly #companions = new Map<string, Companion>();

  constructor(deps: RelatedEndsDeps) {
    this.#deps = deps;
  }

  /** Ends in use, and the sockets beside the connected ones. */
  get size(): { readonly ends: number; readonly companions: number } {
    return { ends: this.#ends.size, companions: this.#companions.size };
  }

  /** How a flow gets to backends from the end it shares. */
  wayFor(member: RelatedMember): UpstreamSource {
    const { dialer } = this.#deps;
    return {
      ready: (target) => (this.#ends.has(keyOf(member, target)) ? undefined : dialer.ready(target)),
      dial: (target) => this.#dial(member, target, undefined),
      dialFrom: (wanted, target) => this.#dial(member, target, wanted),
      release: (socket, target) => this.#release(member, socket, target),
    };
  }

  #dial(
    member: RelatedMember,
    target: UpstreamTarget,
    wanted: LocalEnd | undefined,
  ): ConnectedSocket | DialRefusal {
    const { dialer } = this.#deps;
    const end = this.#ends.get(keyOf(member, target));
    if (end === undefined) return this.#open(member, target, wanted);
    if (wanted === undefined || isSame(wanted, end.local)) {
      const joined = dialer.joinFrom(end.local, target);
      if (joined !== undefined) {
        end.members.set(target.endpoint.port, member);
        return joined;
      }
    }
    return this.#alone(target, wanted);
  }

  /** The first of its members brings an end into being. */
  #open(
    member: RelatedMember,
    target: UpstreamTarget,
    wanted: LocalEnd | undefined,
  ): ConnectedSocket | DialRefusal {
    const { dialer } = this.#deps;
    const dialled = wanted === undefined ? dialer.dialShared(target) : dialer.dialSharedFrom(wanted, target);
    // What another process had is somebody else's here.
    if (dialled === undefined) return this.#alone(target, wanted);
    if (typeof dialled === 'string') return dialled;
    const companion = this.#companionAt(dialled);
    if (companion === undefined) {
      dialled.socket.close();
      dialer.release(dialled, target);
      dialer.releaseShared(dialled, target);
      return 'descriptors-exhausted';
    }
    const { source, sourcePort, peer } = dialled;
    const end = new RelatedEnd({ source, sourcePort }, companion, peer, target, this.#deps);
    end.members.set(target.endpoint.port, member);
    companion.enter(peer, end);
    this.#ends.set(keyOf(member, target), end);
    return dialled;
  }

  /** Only answers from the port asked on find it. */
  #alone(target: UpstreamTarget, wanted: LocalEnd | undefined): ConnectedSocket | DialRefusal {
    const { dialer } = this.#deps;
    return wanted === undefined ? dialer.dial(target) : dialer.dialFrom(wanted, target);
  }

  #release(member: RelatedMember, socket: LocalEnd, target: UpstreamTarget): void {
    const { dialer } = this.#deps;
    dialer.release(socket, target);
    const key = keyOf(member, target);
    const end = this.#ends.get(key);
    if (end === undefined || !isSame(end.local, socket)) return;
    end.members.delete(target.endpoint.port);
    if (end.members.size > 0) return;
    this.#ends.delete(key);
    dialer.releaseShared(end.local, target);
    if (end.companion.leave(end.peer)) this.#companions.delete(endpointOf(end.local));
  }

  #companionAt(local: LocalEnd): Companion | undefined {
    const key = endpointOf(local);
    const present = this.#companions.get(key);
    if (present !== undefined) return present;
    const companion = Companion.open(local, this.#deps.manager);
    if (companion !== undefined) this.#companions.set(key, companion);
    return companion;
  }
}

/** One local end and the flows on it. */
class RelatedEnd implements CompanionEnd {
  readonly local: LocalEnd;
  readonly companion: Companion;
  readonly peer: string;
  /** By the backend's port. */
  readonly members = new Map<number, RelatedMember>();
  readonly #target: UpstreamTarget;
  readonly #deps: RelatedEndsDeps;

  constructor(
    local: LocalEnd,
    companion: Companion,
    peer: string,
    target: UpstreamTarget,
    deps: RelatedEndsDeps,
  ) {
    this.local = local;
    this.companion = companion;
    this.peer = peer;
    this.#target = target;
    this.#deps = deps;
  }

  get rule(): Rule | undefined {
    return this.#anyMember()?.flow.rule;
  }

  receive(datagram: Buffer, port: number): void {
    const member = this.members.get(port);
    // What waited here while the flow's own socket came into being.
    if (member !== undefined) member.receive(datagram);
    else this.#begin(datagram, port);
  }

  #begin(datagram: Buffer, port: number): void {
    const { manager, answerPorts } = this.#deps;
    const member = this.#anyMember();
    if (member === undefined) return;
    const { tuple, rule } = member.flow;
    const destinationPort = port - rule.portOffset;
    const host =
      destinationPort < 1 || destinationPort > 65535
        ? undefined
        : answerPorts.hostAt(tuple.destination, destinationPort, rule);
    if (host === undefined || !isSameWay(host.rule, rule)) {
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
function isSameWay(a: Rule, b: Rule): boolean {
  if (a.name === b.name) return true;
  return a.udp.answersFrom === 'address' && a.pool.name === b.pool.name && a.portOffset === b.portOffset;
}

function keyOf({ flow, clientAddress }: RelatedMember, { backendId, endpoint }: UpstreamTarget): string {
  const { sourcePort, destination } = flow.tuple;
  return `${clientAddress}|${sourcePort}|${destination.text}|${backendId}|${endpoint.address.text}`;
}

function endpointOf({ source, sourcePort }: LocalEnd): string {
  return formatEndpoint(source, sourcePort);
}

function isSame(a: LocalEnd, b: LocalEnd): boolean {
  return a.sourcePort === b.sourcePort && a.source.text === b.source.text;
}

/** What waits for datagrams of one backend. */
export interface CompanionEnd {
  /** Of one of its flows: what is thrown away is counted there. Undefined without any. */
  readonly rule: Rule | undefined;
  /** From any port of the backend. */
  receive(datagram: Buffer, port: number): void;
}

/**
 * An unconnected socket beside connected ones on the same local address and port. It takes datagrams of the backends
 * that those lead to, whatever port they come from, and nothing else (RFC 4787, section 5: address-dependent
 * filtering). It closes when the last end has left.
 */
export class Companion {
  readonly #socket: Socket;
  readonly #manager: Pick<FlowManager, 'dropped'>;
  /** By the backend's address as the system writes it. */
  readonly #ends = new Map<string, CompanionEnd>();

  private constructor(socket: Socket, manager: Pick<FlowManager, 'dropped'>) {
    this.#socket = socket;
    this.#manager = manager;
    socket.on('message', (datagram, from) => this.#received(datagram, from));
    // A failed receive concerns one datagram; the socket goes on.
    socket.on('error', () => undefined);
  }

  /** Undefined where the system has no socket for it. */
  static open({ source, sourcePort }: LocalEnd, manager: Pick<FlowManager, 'dropped'>): Companion | undefined {
    const socket = createDatagramSocket(source.family, 'shared');
    if (bindNow(socket, source, sourcePort) === undefined) return new Companion(socket, manager);
    socket.close();
    return undefined;
  }

  enter(peer: string, end: CompanionEnd): void {
    this.#ends.set(peer, end);
  }

  /** True: it was the last one, and the socket is closed. */
  leave(peer: string): boolean {
    this.#ends.delete(peer);
    if (this.#ends.size > 0) return false;
    this.#socket.close();
    return true;
  }

  #received(datagram: Buffer, from: RemoteInfo): void {
    const end = this.#ends.get(from.address);
    if (end !== undefined) {
      end.receive(datagram, from.port);
      return;
    }
    const [anyEnd] = this.#ends.values();
    if (anyEnd?.rule !== undefined) this.#manager.dropped(anyEnd.rule, 'udp', 'unexpected-reply');
  }
}
