import type { FlowManager } from '../../../flows/flow-manager.js';
import type { Flow, RuleSlot } from '../../../flows/flow.js';
import { ipAddress, type FiveTuple, type IpAddress } from '../../../model/address.js';
import type { Rule } from '../../../model/configuration.js';
import type { DropReason } from '../../../model/events.js';
import type { OriginFeed } from '../../../model/flow.js';
import { isAdmitted } from '../../../selection/access.js';
import { NONE_EXCLUDED, type Picker } from '../../../selection/picker.js';
import type { UdpFlowState } from '../../contract.js';
import { CapturedFeed, ClientResolver, type Arrival } from '../captured-udp.js';
import type { Inherited } from '../handover-state.js';
import { EndpointMap, type ListenerBinding } from '../listen-plan.js';
import type { Listener, ListenerFactory } from '../listeners.js';
import {
  DEAF,
  type DatagramHandler,
  type DatagramSocket,
  type DatagramSockets,
  type DatagramSource,
} from '../sockets/datagram-socket.js';
import type { RouteSource } from '../source-address.js';
import type { SourcePorts } from '../source-ports.js';
import { RelatedEnds, type AnswerHost } from './answers-from-address.js';
import { ClientKeys, ClientMap } from './client-map.js';
import {
  UdpFlow,
  placeOfRecord,
  type ClientEnd,
  type ClientFlow,
  type FlowHost,
  type UdpTools,
} from './flow.js';
import { PerPacketFlow, SharedUpstreams } from './per-packet.js';
import { DatagramBudget, UpstreamDialer, UpstreamTargets } from './upstream.js';

export interface UdpDeps {
  readonly manager: FlowManager;
  readonly picker: Picker;
  readonly sockets: DatagramSockets;
  readonly sourcePorts: Pick<SourcePorts, 'take' | 'claim' | 'release'>;
  readonly routeSource: Pick<RouteSource, 'known' | 'sourceFor'>;
  /** Whether another worker listens on this endpoint. @default none does */
  readonly isElsewhere?: (address: string, port: number) => boolean;
  /** Where captured sockets' datagrams come from. @default there are no captured sockets */
  readonly origins?: OriginFeed | undefined;
}

/** Rides out what a busy event loop leaves waiting. */
const RECEIVE_BUFFER_BYTES = 4_194_304;

/** Of all flows together, for datagrams that may have to go to another backend. */
const HELD_BYTES = 16_777_216;

/** Sockets for answers, see #answerHost: each takes a descriptor, and clients make backends open them. */
const MOST_ANSWER_SOCKETS = 1024;

/**
 * Opens UDP listeners and knows all of them: a datagram from one of them is not taken in. An address and port that a
 * closed listener still holds for its last flows is handed on with those flows.
 */
export class UdpListenerRegistry implements ListenerFactory {
  readonly #deps: UdpDeps;
  readonly #tools: UdpTools;
  readonly #listeners = new EndpointMap<UdpListener>();
  /** By port. */
  readonly #feeds = new Map<number, CapturedFeed>();
  readonly #captured = new Set<UdpListener>();
  readonly #answering = new Set<UdpListener>();

  constructor(deps: UdpDeps) {
    const { manager, picker, sockets } = deps;
    this.#deps = deps;
    const dialer = new UpstreamDialer(deps);
    const hostAt = (address: IpAddress, port: number): AnswerHost | undefined => this.#hostAt(address, port);
    this.#tools = {
      ...{ manager, picker, dialer },
      related: new RelatedEnds({ manager, sockets, dialer, hostAt }),
      budget: new DatagramBudget(HELD_BYTES),
      targets: new UpstreamTargets(),
    };
  }

  open(binding: ListenerBinding, inherited: Inherited): Promise<Listener> {
    const present = this.#listeners.get(binding);
    if (present?.reopen(binding) === true) return Promise.resolve(present);
    const isCaptured = binding.captured !== undefined;
    if (isCaptured && this.#deps.origins === undefined) {
      return Promise.reject(new TypeError('A captured socket needs origins'));
    }
    const socket = this.#deps.sockets.bind(
      {
        ...{ address: binding.address, port: binding.port, use: 'exclusive' },
        ...{ inherited: inherited.handle, receiveBufferBytes: RECEIVE_BUFFER_BYTES },
      },
      DEAF,
    );
    if (socket instanceof Error) return Promise.reject(socket);
    // Only a test asks for port 0.
    const bound = binding.port === 0 ? { ...binding, port: socket.port } : binding;
    const listener = this.#listen(bound, socket, this.#deps.origins);
    // Before the first datagram is read, for that would start a new flow.
    for (const flow of inherited.flows) listener.resume(flow);
    return Promise.resolve(listener);
  }

  /** Whether an own UDP listener has this endpoint. */
  isOwn(address: string, port: number): boolean {
    if (this.#listeners.get({ protocol: 'udp', address, port }) !== undefined) return true;
    // Captured ports are free for clients on this machine, whose address is the frontend's. There is no loop: an answer
    // to a captured port belongs to a known entry of the kernel's, and is not captured again.
    return this.#captured.size === 0 && this.#deps.isElsewhere?.(address, port) === true;
  }

  /** Its socket is closed. */
  left(listener: UdpListener): void {
    this.#listeners.delete(listener.binding);
    this.#captured.delete(listener);
    this.#answering.delete(listener);
  }

  /** What serves an address and port of a frontend, for flows that backends begin; undefined: nothing can. */
  #hostAt(address: IpAddress, port: number): AnswerHost | undefined {
    const present = this.#listeners.get({ protocol: 'udp', address, port });
    if (present !== undefined) return present;
    const slots = [...this.#captured].map((listener) => listener.slotOf(port));
    const slot = slots.find((one) => one?.rule.frontend.address.text === address.text);
    return slot && this.#answerHost({ protocol: 'udp', address, port, slot });
  }

  /**
   * A socket on a port of a captured frontend, for flows that backends begin. Nothing listens there: the kernel steers
   * what clients send to the one captured socket. What leaves from such a socket makes an entry in conntrack, by which
   * the client's datagrams are answers and come back to it. It is a listener that is closing from its first flow on: it
   * takes no other clients and goes with its last flow. An upgrade does not hand it over. Undefined: there are too many,
   * or the port cannot be had, since another process listens there for one.
   */
  #answerHost(binding: ListenerBinding): AnswerHost | undefined {
    if (this.#answering.size >= MOST_ANSWER_SOCKETS) return undefined;
    const { address, port } = binding;
    const socket = this.#deps.sockets.bind({ address, port, use: 'exclusive' }, DEAF);
    if (socket instanceof Error) return undefined;
    const listener = this.#listen(binding, socket, undefined);
    this.#answering.add(listener);
    return {
      rule: binding.slot.rule,
      begin(record, datagram) {
        listener.begin(record, datagram);
        listener.close();
      },
    };
  }

  #listen(binding: ListenerBinding, socket: DatagramSocket, origins: OriginFeed | undefined): UdpListener {
    const { address, port, captured } = binding;
    const keys = new ClientKeys(address.family);
    let resolver: ClientResolver | undefined;
    if (captured !== undefined && origins !== undefined) {
      const { budget, manager } = this.#tools;
      const { clock } = manager;
      const feed = this.#feeds.get(port) ?? new CapturedFeed({ feed: origins, clock }, port);
      this.#feeds.set(port, feed);
      resolver = new ClientResolver({ clock, budget, feed, keys }, address.text);
    }
    const listener = new UdpListener(binding, socket, this.#tools, this, keys, resolver);
    socket.handler = listener;
    this.#listeners.set(binding, listener);
    if (resolver !== undefined) {
      this.#captured.add(listener);
      resolver.serve(listener);
    }
    return listener;
  }
}

/** `lame-duck`: closed, but with flows left that still use the socket. */
type Phase = 'open' | 'lame-duck' | 'closed';

/** Datagrams kept before the listener serves; more are thrown away. */
const MOST_HELD = 64;

/** One bound socket and the flows of the clients that send to it. It owns the socket. */
export class UdpListener implements Listener, FlowHost, AnswerHost, DatagramHandler {
  readonly #tools: UdpTools;
  readonly #socket: DatagramSocket;
  readonly #registry: UdpListenerRegistry;
  readonly #keys: ClientKeys;
  /** Undefined: clients send to the endpoint that it is bound to. */
  readonly #resolver: ClientResolver | undefined;
  readonly #flows = new ClientMap<ClientFlow>();
  /** Flows of clients that the kernel has forgotten: what comes from there may be another client's. */
  readonly #suspended = new Map<number, ClientFlow>();
  /** By destination port. */
  readonly #sharedUpstreams = new Map<number, SharedUpstreams>();
  #binding: ListenerBinding;
  #phase: Phase = 'open';
  /** First datagrams of clients, until it serves. */
  #held: { readonly datagram: Buffer; readonly from: DatagramSource }[] | undefined = [];

  constructor(
    binding: ListenerBinding,
    socket: DatagramSocket,
    tools: UdpTools,
    registry: UdpListenerRegistry,
    keys: ClientKeys,
    resolver: ClientResolver | undefined,
  ) {
    this.#binding = binding;
    this.#socket = socket;
    this.#tools = tools;
    this.#registry = registry;
    this.#keys = keys;
    this.#resolver = resolver;
  }

  get binding(): ListenerBinding {
    return this.#binding;
  }

  get rule(): Rule {
    return this.#binding.slot.rule;
  }

  /** The rule that serves a port of this listener at present. */
  slotOf(port: number): RuleSlot | undefined {
    const { captured, slot } = this.#binding;
    return captured?.protocol === 'udp' ? captured.ports.at(port) : slot;
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
    for (const { datagram, from } of held) this.onDatagram(datagram, from);
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
    return this.#socket.rawHandle();
  }

  freeze(): readonly UdpFlowState[] {
    this.#socket.pauseReading();
    return this.#flows.entries().flatMap(([key, flow]) => {
      const record = flow.record();
      return record === undefined ? [] : { ...record, ...this.#resolver?.record(key) };
    });
  }

  thaw(): void {
    if (this.#phase !== 'closed') this.#socket.resumeReading();
  }

  /** Continues a flow of another process, if its rule is here and its backend may keep it. */
  resume(record: UdpFlowState): UdpFlow | undefined {
    return this.#continue(record, this.slotOf(record.tuple.destinationPort));
  }

  begin(record: UdpFlowState, datagram: Buffer): void {
    const { manager } = this.#tools;
    manager.arrived(this.rule, 'udp');
    const isKnown =
      this.#flows.get(this.#keys.find(record.clientAddress, record.tuple.sourcePort)) !== undefined;
    // The binding of a listener that is closing is out of date after a reload.
    const slot = manager.slotNamed(this.rule.name);
    // A flow of that client with another backend stays as it is.
    if (this.#phase === 'closed' || isKnown || placeOfRecord(record, slot) === undefined) {
      this.#drop('unexpected-reply');
    } else this.#continue(record, slot)?.onReply(datagram);
  }

  reply(datagram: Buffer, client: ClientEnd): void {
    const isForgotten = this.#suspended.size > 0 && this.#suspended.has(client.key);
    const isSent =
      !isForgotten && this.#phase !== 'closed' && this.#socket.sendTo(datagram, client.address, client.port);
    if (!isSent) this.#drop('send-failed');
  }

  forget(client: ClientEnd): void {
    if (!this.#flows.delete(client.key) && !this.#suspended.delete(client.key)) return;
    this.#resolver?.ended(client.key);
    this.#keys.release(client.address);
    this.#closeIfDone();
  }

  /** From the socket, or held until now. */
  onDatagram(datagram: Buffer, from: DatagramSource): void {
    const flow = this.#flows.get(this.#keys.find(from.address, from.port));
    if (flow !== undefined) flow.fromClient(datagram);
    else if (this.#held === undefined) this.#first(datagram, from);
    else if (this.#held.length < MOST_HELD) this.#held.push({ datagram, from });
  }

  onReceiveError(): void {
    // It concerns one datagram; the socket stays usable.
  }

  onSendError(): void {
    this.#drop('send-failed');
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

  /** Counts a datagram whose client remained unknown. */
  rejected(): void {
    this.#drop('unknown-origin');
  }

  #continue(record: UdpFlowState, slot: RuleSlot | undefined): UdpFlow | undefined {
    const { tuple, clientAddress: address, clientPort: port = tuple.sourcePort } = record;
    const place = placeOfRecord(record, slot);
    if (slot === undefined || place === undefined) return undefined;
    const client = { key: this.#keys.hold(address, port), address, port };
    const resumed = new UdpFlow(this.#tools, this, client);
    const flow = this.#open(client, tuple, slot, resumed, record);
    if (flow === undefined) return undefined;
    resumed.resume(flow, place, record);
    if (flow.tableIndex < 0) return undefined;
    this.#resolver?.resumed(client.key, record);
    return resumed;
  }

  /** A datagram that belongs to no known flow. */
  #first(datagram: Buffer, from: DatagramSource): void {
    if (this.#phase === 'closed') return;
    const arrival = this.#resolver?.resolve(datagram, from) ?? this.#ownArrival(from);
    if (arrival === 'held') return;
    if (typeof arrival === 'string') {
      this.#drop(arrival);
      return;
    }
    const refusal = this.#admit(arrival, datagram, from);
    if (refusal !== undefined) this.#drop(refusal, arrival.slot.rule);
  }

  #ownArrival({ address: source, port: sourcePort }: DatagramSource): Arrival {
    const { slot, address: destination, port: destinationPort } = this.#binding;
    return { slot, source, sourcePort, destination, destinationPort };
  }

  /** Starts a flow with its first datagram, or says why not. Nothing is remembered of a client that gets none. */
  #admit(arrival: Arrival, datagram: Buffer, { address, port }: DatagramSource): DropReason | undefined {
    const { manager, picker } = this.#tools;
    const { slot, sourcePort, destination, destinationPort } = arrival;
    // An answer to an own listener would start a loop, and none can be sent to port 0.
    if (this.#registry.isOwn(arrival.source, sourcePort)) return 'own-listener';
    if (port === 0) return 'send-failed';
    manager.arrived(slot.rule, 'udp');
    if (this.#phase !== 'open') return 'stopping';
    const source = ipAddress(arrival.source);
    if (!isAdmitted(slot.rule.frontend, source)) return 'denied';
    const tuple: FiveTuple = { protocol: 'udp', source, sourcePort, destination, destinationPort };
    const pick = picker.pickForRule(manager.state, slot.index, tuple, NONE_EXCLUDED);
    if (pick.kind !== 'picked') return 'no-backend';
    const client = { key: this.#keys.hold(address, port), address, port };
    const started = slot.rule.udp.perPacket
      ? new PerPacketFlow(this.#tools, this, client, this.#upstreamsOf(destinationPort))
      : new UdpFlow(this.#tools, this, client);
    const flow = this.#open(client, tuple, slot, started);
    if (flow === undefined) return undefined;
    started.start(flow, pick);
    if (flow.tableIndex >= 0) started.fromClient(datagram);
    return undefined;
  }

  /** Takes a client's flow in. Undefined where that is refused, which is counted. */
  #open(
    { key, address }: ClientEnd,
    tuple: FiveTuple,
    slot: RuleSlot,
    transport: ClientFlow,
    past?: UdpFlowState,
  ): Flow | undefined {
    const flow = this.#tools.manager.open(tuple, slot, transport, past);
    if (typeof flow === 'string' || this.#isClosed()) {
      // To make room for it the last flow of a listener that was closing may have been evicted.
      if (typeof flow !== 'string') this.#tools.manager.end(flow, 'shutdown', 'gone');
      this.#keys.release(address);
      return undefined;
    }
    this.#flows.add(key, transport);
    return flow;
  }

  #isClosed(): boolean {
    return this.#phase === 'closed';
  }

  #upstreamsOf(destinationPort: number): SharedUpstreams {
    let upstreams = this.#sharedUpstreams.get(destinationPort);
    if (upstreams === undefined) {
      upstreams = new SharedUpstreams(this.#tools, () => this.slotOf(destinationPort) ?? this.#binding.slot);
      this.#sharedUpstreams.set(destinationPort, upstreams);
    }
    return upstreams;
  }

  #drop(reason: DropReason, rule = this.rule): void {
    this.#tools.manager.dropped(rule, 'udp', reason);
  }

  #closeIfDone(): void {
    if (this.#phase !== 'lame-duck' || this.#flows.size > 0 || this.#suspended.size > 0) return;
    this.#phase = 'closed';
    this.#resolver?.close();
    this.#registry.left(this);
    this.#socket.close();
  }
}
