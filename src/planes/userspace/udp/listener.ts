import type { RemoteInfo, Socket } from 'node:dgram';
import { ipAddress, type FiveTuple, type IpAddress } from '../../../model/address.js';
import type { Rule } from '../../../model/configuration.js';
import type { DropReason } from '../../../model/events.js';
import type { OriginFeed } from '../../../model/flow.js';
import { isAdmitted } from '../../../selection/access.js';
import { NONE_EXCLUDED, type Picked, type Picker } from '../../../selection/picker.js';
import type { UdpFlowState } from '../../contract.js';
import {
  CapturedArrivals,
  CapturedFeed,
  ServedPort,
  ownEndpoint,
  type Arrival,
  type Arrivals,
} from '../captured-udp.js';
import type { FlowManager } from '../flow-manager.js';
import type { Listener, ListenerBinding, ListenerFactory } from '../listener.js';
import { bindRaw, rawUdp, type Inheritance } from '../node-handles.js';
import type { RouteSource } from '../source-address.js';
import type { SourcePorts } from '../source-ports.js';
import { RelatedEnds, type AnswerHost, type AnswerPorts } from './answers-from-address.js';
import { ClientKeys, ClientMap } from './client-map.js';
import {
  UdpFlow,
  pickOfRecord,
  ruleIndexIn,
  type ClientEnd,
  type ClientFlow,
  type FlowHost,
  type UdpTools,
} from './flow.js';
import { PerPacketFlow, SharedUpstreams } from './per-packet.js';
import {
  HeldMemory,
  SendQueueGuard,
  UpstreamDialer,
  UpstreamTargets,
  bindNow,
  createDatagramSocket,
} from './upstream.js';

export interface UdpListenerDeps {
  readonly manager: FlowManager;
  readonly picker: Picker;
  readonly sourcePorts: Pick<SourcePorts, 'take' | 'claim' | 'release'>;
  readonly routeSource: Pick<RouteSource, 'known' | 'sourceFor'>;
  /** Whether another worker listens on this endpoint. @default none does */
  readonly isElsewhere?: (address: string, port: number) => boolean;
  /** Sockets and flows to go on with. @default none */
  readonly inheritance?: Pick<Inheritance, 'takeSocket' | 'flowsAt' | 'capturedFlowsAt'>;
  /** Where captured sockets' datagrams come from. @default there are no captured sockets */
  readonly origins?: OriginFeed | undefined;
}

/** Rides out what a busy event loop leaves waiting; the kernel gives at most net.core.rmem_max. */
const RECEIVE_BUFFER_BYTES = 4_194_304;

/** Of all flows together, for datagrams that may have to go to another backend. */
const HELD_BYTES = 16_777_216;

/**
 * Opens UDP listeners that know of each other: a datagram from one of them is not taken in. An address and port that
 * a closed listener still holds for its last flows is handed on with those flows.
 */
export function createUdpListenerFactory(deps: UdpListenerDeps): ListenerFactory {
  return new UdpListenerFactory(deps);
}

class UdpListenerFactory implements ListenerFactory, Neighbourhood, AnswerPorts {
  readonly #tools: UdpTools;
  readonly #listeners = new ListenerRegistry<BoundListener>();
  readonly #isElsewhere: (address: string, port: number) => boolean;
  readonly #inheritance: UdpListenerDeps['inheritance'];
  readonly #origins: OriginFeed | undefined;
  /** By port. */
  readonly #feeds = new Map<number, CapturedFeed>();
  readonly #captured = new Set<BoundListener>();
  readonly #answerSockets = new AnswerSockets((binding, socket) => {
    const listener = new BoundListener(binding, socket, this.#tools, this);
    this.#listeners.set(binding.address.text, binding.port, listener);
    return listener;
  });

  constructor({
    manager,
    picker,
    sourcePorts,
    routeSource,
    isElsewhere,
    inheritance,
    origins,
  }: UdpListenerDeps) {
    this.#isElsewhere = isElsewhere ?? (() => false);
    this.#inheritance = inheritance;
    this.#origins = origins;
    const dialer = new UpstreamDialer({ sourcePorts, routeSource });
    this.#tools = {
      manager,
      picker,
      dialer,
      related: new RelatedEnds({ manager, dialer, answerPorts: this }),
      heldMemory: new HeldMemory(HELD_BYTES),
      targets: new UpstreamTargets(),
    };
  }

  open(binding: ListenerBinding): Promise<Listener> {
    const present = this.#listeners.get(binding.address.text, binding.port);
    if (present?.reopen(binding) === true) return Promise.resolve(present);
    const { address } = binding;
    const captured = binding.captured === undefined ? undefined : this.#origins;
    if (binding.captured !== undefined && captured === undefined) {
      return Promise.reject(new TypeError('A captured socket needs to be told of origins'));
    }
    const socket = createDatagramSocket(address.family, 'exclusive');
    const inherited = this.#inheritance?.takeSocket('udp', address.text, binding.port);
    const failure =
      inherited === undefined ? bindNow(socket, address, binding.port) : bindRaw(socket, inherited);
    if (failure !== undefined) {
      socket.close();
      return Promise.reject(failure);
    }
    try {
      socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES);
    } catch {
      // It then has what the kernel gave it.
    }
    const { port } = socket.address();
    // Only a test asks for port 0.
    const bound = binding.port === port ? binding : { ...binding, port };
    const listener =
      captured === undefined
        ? new BoundListener(bound, socket, this.#tools, this)
        : this.#capturedListener(bound, socket, captured);
    this.#listeners.set(address.text, port, listener);
    // Before the first datagram is read, for that would start a new flow.
    const flows =
      captured === undefined
        ? this.#inheritance?.flowsAt(address.text, port)
        : this.#inheritance?.capturedFlowsAt(binding.frontend.address.text);
    for (const flow of flows ?? []) listener.resume(flow);
    return Promise.resolve(listener);
  }

  isOwn(address: string, port: number): boolean {
    if (this.#listeners.get(address, port) !== undefined) return true;
    // Captured ports are free for clients on this machine, whose address is the frontend's. There is no loop: an answer
    // to a captured port belongs to a known entry of the kernel's, and is not captured again.
    return this.#captured.size === 0 && this.#isElsewhere(address, port);
  }

  hostAt(address: IpAddress, port: number): AnswerHost | undefined {
    const present = this.#listeners.get(address.text, port);
    if (present !== undefined) return present;
    for (const { binding } of this.#captured) {
      const { captured, frontend } = binding;
      if (captured?.protocol !== 'udp' || frontend.address.text !== address.text) continue;
      const end = captured.ports.at(port);
      if (end !== undefined) return this.#answerSockets.open({ protocol: 'udp', address, port, ...end });
    }
    return undefined;
  }

  left(listener: BoundListener): void {
    const { address, port } = listener.binding;
    this.#listeners.delete(address.text, port);
    this.#captured.delete(listener);
    this.#answerSockets.left(listener);
  }

  /** On a socket that gets all ports of a frontend. */
  #capturedListener(binding: ListenerBinding, socket: Socket, origins: OriginFeed): BoundListener {
    const { address, port } = binding;
    const { manager, heldMemory } = this.#tools;
    const { clock } = manager;
    const feed = this.#feeds.get(port) ?? new CapturedFeed({ feed: origins, clock }, port);
    this.#feeds.set(port, feed);
    const keys = new ClientKeys(address.family);
    const arrivals = new CapturedArrivals({ clock, heldMemory, feed, keys }, address.text);
    const listener = new BoundListener(binding, socket, this.#tools, this, { arrivals, keys });
    this.#captured.add(listener);
    arrivals.serve(listener);
    return listener;
  }
}

/** What a listener needs to know of its fellows. */
export interface Neighbourhood {
  /** Whether an own UDP listener has this endpoint. */
  isOwn(address: string, port: number): boolean;
  /** The listener's socket is closed. */
  left(listener: BoundListener): void;
}

export interface BoundListenerOptions {
  /** @default clients send to the endpoint that it is bound to */
  readonly arrivals?: Arrivals;
  /** Of its clients, where `arrivals` has them too. @default its own */
  readonly keys?: ClientKeys;
}

/** `lame-duck`: closed, but with flows left that go on using the socket. */
type Phase = 'open' | 'lame-duck' | 'closed';

/** Datagrams kept before the listener serves; more are thrown away. */
const MOST_HELD = 64;

/** One bound socket and the flows of the clients that send to it. It owns the socket. */
export class BoundListener implements Listener, FlowHost, AnswerHost {
  readonly #tools: UdpTools;
  readonly #socket: Socket;
  readonly #neighbourhood: Neighbourhood;
  readonly #keys: ClientKeys;
  readonly #arrivals: Arrivals;
  readonly #flows = new ClientMap<ClientFlow>();
  /** Flows of clients that the kernel has forgotten: what comes from there may be somebody else's. */
  readonly #suspended = new Map<number, ClientFlow>();
  /** By destination port. */
  readonly #sharedUpstreams = new Map<number, SharedUpstreams>();
  readonly #queue: SendQueueGuard;
  readonly #onSent = (error: Error | null): void => {
    this.#queue.finished();
    if (error !== null && this.#phase !== 'closed') this.#drop('send-failed');
  };
  #binding: ListenerBinding;
  #phase: Phase = 'open';
  /** First datagrams of clients, until it serves. */
  #held: { readonly datagram: Buffer; readonly from: RemoteInfo }[] | undefined = [];

  constructor(
    binding: ListenerBinding,
    socket: Socket,
    tools: UdpTools,
    neighbourhood: Neighbourhood,
    { arrivals, keys }: BoundListenerOptions = {},
  ) {
    this.#binding = binding;
    this.#socket = socket;
    this.#tools = tools;
    this.#neighbourhood = neighbourhood;
    this.#keys = keys ?? new ClientKeys(binding.address.family);
    this.#arrivals = arrivals ?? ownEndpoint;
    this.#queue = new SendQueueGuard(socket);
    socket.on('message', (datagram, from) => this.received(datagram, from));
    // A failed receive concerns one datagram; the socket goes on.
    socket.on('error', () => undefined);
  }

  get binding(): ListenerBinding {
    return this.#binding;
  }

  get rule(): ListenerBinding['rule'] {
    return this.#binding.rule;
  }

  /** Takes new flows again, for another binding of the same endpoint. False: its socket is in use or closed. */
  reopen(binding: ListenerBinding): boolean {
    if (this.#phase !== 'lame-duck') return false;
    this.#binding = binding;
    this.#phase = 'open';
    this.#held = [];
    return true;
  }

  serve(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const { datagram, from } of held) this.received(datagram, from);
  }

  close(): void {
    if (this.#phase === 'open') this.#phase = 'lame-duck';
    this.#held = undefined;
    this.#closeIfDone();
  }

  destroy(): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'lame-duck';
    this.#held = undefined;
    for (const flow of [...this.#flows.values(), ...this.#suspended.values()]) flow.shutDown();
    this.#closeIfDone();
  }

  rawHandle(): object | undefined {
    return rawUdp(this.#socket);
  }

  freeze(): readonly UdpFlowState[] {
    rawUdp(this.#socket)?.recvStop();
    return this.#flows.entries().flatMap(([key, flow]) => {
      const record = flow.record();
      return record === undefined ? [] : { ...record, ...this.#arrivals.record(key) };
    });
  }

  thaw(): void {
    if (this.#phase !== 'closed') rawUdp(this.#socket)?.recvStart();
  }

  /** Goes on with a flow of another process, if its rule is here and its backend may keep it. */
  resume(record: UdpFlowState): UdpFlow | undefined {
    const { tuple, clientAddress: address, clientPort: port = tuple.sourcePort } = record;
    const { captured } = this.#binding;
    const end = captured?.protocol === 'udp' ? captured.ports.at(tuple.destinationPort) : this.#binding;
    const pick = end && pickOfRecord(record, this.#tools.manager.state, end);
    if (end === undefined || pick === undefined) return undefined;
    const key = this.#keys.hold(address, port);
    const start = { tuple, pick, rule: end.rule, client: { key, address, port } };
    const flow = UdpFlow.resume(record, start, this.#tools, this);
    if (flow === undefined) {
      this.#keys.release(address);
      return undefined;
    }
    this.#flows.add(key, flow);
    this.#arrivals.resumed(key, record);
    return flow;
  }

  begin(record: UdpFlowState, datagram: Buffer): void {
    const { manager } = this.#tools;
    manager.arrived(this.#binding.rule, 'udp');
    const present = this.#flows.get(this.#keys.find(record.clientAddress, record.tuple.sourcePort));
    const isOpen = this.#phase !== 'closed' && present === undefined;
    const pick = pickOfRecord(record, manager.state, this.#binding);
    // A flow of that client with another backend stays as it is.
    if (!isOpen || pick === undefined) this.#drop('unexpected-reply');
    else this.resume(record)?.onReply(datagram);
  }

  reply(datagram: Buffer, client: ClientEnd): void {
    const isForgotten = this.#suspended.size > 0 && this.#suspended.has(client.key);
    if (isForgotten || this.#phase === 'closed' || this.#queue.isFull()) {
      this.#drop('send-failed');
      return;
    }
    this.#queue.started();
    this.#socket.send(datagram, client.port, client.address, this.#onSent);
  }

  forget(client: ClientEnd): void {
    if (!this.#flows.delete(client.key) && !this.#suspended.delete(client.key)) return;
    this.#arrivals.ended(client.key);
    this.#keys.release(client.address);
    this.#closeIfDone();
  }

  /** What the socket gets, and what was held of that until now. */
  received(datagram: Buffer, from: RemoteInfo): void {
    const flow = this.#flows.get(this.#keys.find(from.address, from.port));
    if (flow !== undefined) flow.fromClient(datagram);
    else if (this.#held === undefined) this.#first(datagram, from);
    else if (this.#held.length < MOST_HELD) this.#held.push({ datagram, from });
  }

  /** This client's flow neither gets datagrams nor answers any until `restore`. False: there is no such flow. */
  suspend(key: number): boolean {
    const flow = this.#flows.get(key);
    if (flow === undefined) return this.#suspended.has(key);
    this.#flows.delete(key);
    this.#suspended.set(key, flow);
    return true;
  }

  restore(key: number): void {
    const flow = this.#suspended.get(key);
    if (flow === undefined) return;
    this.#suspended.delete(key);
    this.#flows.add(key, flow);
  }

  /** Ends this client's flow, if there is one. */
  endFlow(key: number): void {
    (this.#flows.get(key) ?? this.#suspended.get(key))?.shutDown();
  }

  /** Counts a datagram that was nobody's. */
  rejected(): void {
    this.#drop('unknown-origin');
  }

  /** A datagram of no known flow. */
  #first(datagram: Buffer, from: RemoteInfo): void {
    if (this.#phase === 'closed') return;
    const arrival = this.#arrivals.of(datagram, from, this.#binding);
    if (arrival === 'held') return;
    if (typeof arrival === 'string') {
      this.#drop(arrival);
      return;
    }
    const { rule } = arrival;
    const admission = this.#admit(arrival, from);
    if (typeof admission === 'string') {
      this.#drop(admission, rule);
      return;
    }
    const key = this.#keys.hold(from.address, from.port);
    const start = { ...admission, rule, client: { key, address: from.address, port: from.port } };
    const flow = rule.udp.perPacket
      ? PerPacketFlow.open(start, this.#tools, this, this.#upstreamsOf(arrival))
      : UdpFlow.open(start, this.#tools, this);
    if (flow === undefined) {
      this.#keys.release(from.address);
      return;
    }
    this.#flows.add(key, flow);
    flow.fromClient(datagram);
  }

  /** The new flow's tuple and backend, or why it gets none. Nothing is remembered of one that gets none. */
  #admit(
    arrival: Arrival,
    from: RemoteInfo,
  ): { readonly tuple: FiveTuple; readonly pick: Picked } | DropReason {
    const { manager, picker } = this.#tools;
    const { rule, frontend, sourcePort, destination, destinationPort } = arrival;
    // An answer to the one would be the first step of a loop, to the other it cannot be sent.
    if (this.#neighbourhood.isOwn(arrival.source, sourcePort)) return 'own-listener';
    if (from.port === 0) return 'send-failed';
    manager.arrived(rule, 'udp');
    const { state } = manager;
    const ruleIndex = ruleIndexIn(state, rule.name, arrival.ruleIndex);
    if (this.#phase !== 'open' || ruleIndex < 0) return 'stopping';
    const source = ipAddress(arrival.source);
    if (!isAdmitted(frontend, source)) return 'denied';
    const tuple: FiveTuple = { protocol: 'udp', source, sourcePort, destination, destinationPort };
    const pick = picker.pickForRule(state, ruleIndex, tuple, NONE_EXCLUDED);
    return pick.kind === 'picked' ? { tuple, pick } : 'no-backend';
  }

  #upstreamsOf({ destinationPort }: Arrival): SharedUpstreams {
    let upstreams = this.#sharedUpstreams.get(destinationPort);
    if (upstreams === undefined) {
      upstreams = new SharedUpstreams(this.#tools, new ServedPort(this, destinationPort));
      this.#sharedUpstreams.set(destinationPort, upstreams);
    }
    return upstreams;
  }

  #drop(reason: DropReason, rule = this.#binding.rule): void {
    this.#tools.manager.dropped(rule, 'udp', reason);
  }

  #closeIfDone(): void {
    if (this.#phase !== 'lame-duck' || this.#flows.size > 0 || this.#suspended.size > 0) return;
    this.#phase = 'closed';
    this.#arrivals.close();
    this.#neighbourhood.left(this);
    this.#socket.close();
  }
}

/** Each takes a descriptor, and clients make backends open them. */
const MOST_SOCKETS = 1024;

/**
 * Sockets on ports of captured frontends, for flows that backends begin. Nobody listens there: the kernel steers what
 * clients send to the one captured socket. What leaves from such a socket makes an entry in conntrack, by which the
 * client's datagrams are answers and come back to it. It is a listener that is closing from its first flow on: it takes
 * no other clients and goes with its last flow. An upgrade does not hand it over.
 */
export class AnswerSockets {
  readonly #listen: (binding: ListenerBinding, socket: Socket) => BoundListener;
  readonly #open = new Set<BoundListener>();

  /** `listen`: makes a listener of a bound socket, known by its address and port, that tells when it has closed. */
  constructor(listen: (binding: ListenerBinding, socket: Socket) => BoundListener) {
    this.#listen = listen;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Whether it was one of these. */
  left(listener: BoundListener): boolean {
    return this.#open.delete(listener);
  }

  /** Undefined: there are too many, or the port cannot be had, since another process listens there for one. */
  open(binding: ListenerBinding): AnswerHost | undefined {
    if (this.#open.size >= MOST_SOCKETS) return undefined;
    const socket = createDatagramSocket(binding.address.family, 'exclusive');
    if (bindNow(socket, binding.address, binding.port) !== undefined) {
      socket.close();
      return undefined;
    }
    const listener = this.#listen(binding, socket);
    this.#open.add(listener);
    return new AnswerSocket(listener);
  }
}

class AnswerSocket implements AnswerHost {
  readonly #listener: BoundListener;

  constructor(listener: BoundListener) {
    this.#listener = listener;
  }

  get rule(): Rule {
    return this.#listener.rule;
  }

  begin(record: UdpFlowState, datagram: Buffer): void {
    this.#listener.begin(record, datagram);
    this.#listener.close();
  }
}

/** What is open on which local endpoint. Looked up for first datagrams only, and without building strings. */
export class ListenerRegistry<T> {
  readonly #byPort = new Map<number, Map<string, T>>();

  get(address: string, port: number): T | undefined {
    return this.#byPort.get(port)?.get(address);
  }

  set(address: string, port: number, listener: T): void {
    const byAddress = this.#byPort.get(port) ?? new Map<string, T>();
    this.#byPort.set(port, byAddress);
    byAddress.set(address, listener);
  }

  delete(address: string, port: number): void {
    const byAddress = this.#byPort.get(port);
    byAddress?.delete(address);
    if (byAddress?.size === 0) this.#byPort.delete(port);
  }
}
