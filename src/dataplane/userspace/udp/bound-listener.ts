import type { RemoteInfo, Socket } from 'node:dgram';
import { ipAddress } from '../../../model/address.js';
import type { DropReason } from '../../../model/events.js';
import type { FiveTuple } from '../../../model/five-tuple.js';
import { isAdmitted } from '../../../selection/access-list.js';
import type { Picked } from '../../../selection/pick-result.js';
import { NONE_EXCLUDED } from '../../../selection/picker.js';
import type { UdpFlowState } from '../../hand-over.js';
import type { Listener, ListenerBinding } from '../listener.js';
import { rawUdp } from '../raw-handle.js';
import { ownEndpoint, ServedPort, type Arrival, type Arrivals } from './arrivals.js';
import { ruleIndexIn, type ClientEnd, type ClientFlow, type FlowHost, type UdpTools } from './client-flow.js';
import { ClientKeys } from './client-keys.js';
import { ClientMap } from './client-map.js';
import { PerPacketFlow } from './per-packet-flow.js';
import type { AnswerHost } from './related-ends.js';
import { SendQueueGuard } from './send-queue-guard.js';
import { pickOfRecord } from './pick-of-record.js';
import { SharedUpstreams } from './shared-upstreams.js';
import { UdpFlow } from './udp-flow.js';

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
    const pick = end && pickOfRecord(record, this.#tools.keeper.state, end);
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
    const { keeper } = this.#tools;
    keeper.arrived(this.#binding.rule, 'udp');
    const present = this.#flows.get(this.#keys.find(record.clientAddress, record.tuple.sourcePort));
    const isOpen = this.#phase !== 'closed' && present === undefined;
    const pick = pickOfRecord(record, keeper.state, this.#binding);
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
    const { keeper, picker } = this.#tools;
    const { rule, frontend, sourcePort, destination, destinationPort } = arrival;
    // An answer to the one would be the first step of a loop, to the other it cannot be sent.
    if (this.#neighbourhood.isOwn(arrival.source, sourcePort)) return 'own-listener';
    if (from.port === 0) return 'send-failed';
    keeper.arrived(rule, 'udp');
    const { state } = keeper;
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
    this.#tools.keeper.dropped(rule, 'udp', reason);
  }

  #closeIfDone(): void {
    if (this.#phase !== 'lame-duck' || this.#flows.size > 0 || this.#suspended.size > 0) return;
    this.#phase = 'closed';
    this.#arrivals.close();
    this.#neighbourhood.left(this);
    this.#socket.close();
  }
}
