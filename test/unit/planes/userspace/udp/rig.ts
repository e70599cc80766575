import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { isIPv6, type AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { EventQueue } from '../../../../../src/flows/event-queue.js';
import { FlowManager } from '../../../../../src/flows/flow-manager.js';
import { CapturedPorts, type ListenerBinding } from '../../../../../src/planes/userspace/listen-plan.js';
import type { Listener } from '../../../../../src/planes/userspace/listeners.js';
import { HandoverState } from '../../../../../src/planes/userspace/handover-state.js';
import { DgramSockets } from '../../../../../src/planes/userspace/sockets/dgram.js';
import { RouteSource } from '../../../../../src/planes/userspace/source-address.js';
import { SourcePorts } from '../../../../../src/planes/userspace/source-ports.js';
import { UdpListenerRegistry, type UdpDeps } from '../../../../../src/planes/userspace/udp/listener.js';
import { ipAddress } from '../../../../../src/model/address.js';
import type { DropReason, PlaneEvent } from '../../../../../src/model/events.js';
import type { FlowOrigin, OriginFeed, OriginFollower } from '../../../../../src/model/flow.js';
import type { ForwardingState } from '../../../../../src/model/forwarding.js';
import { createHasher } from '../../../../../src/selection/flow-hash.js';
import { RulePorts } from '../../../../../src/selection/rule-ports.js';
import { Picker } from '../../../../../src/selection/picker.js';
import { within } from '../../../../support/deadline.js';
import { FakeClock } from '../../../../support/fake-clock.js';
import { testState, type TestStateParts } from '../../../../support/forwarding-state.js';

/** Long enough for a busy machine; only a failing test waits for it. */
const DEADLINE_MS = 5000;

export type RigOverrides = Partial<Pick<UdpDeps, 'routeSource' | 'sourcePorts' | 'origins'>> & {
  readonly handover?: HandoverState;
  /** @default one with the real hash */
  readonly picker?: Picker;
};

/** A UDP data plane on real sockets and a clock that stands still. */
export class Rig {
  readonly clock = new FakeClock();
  readonly manager: FlowManager;
  readonly sourcePorts: SourcePorts;
  readonly routeSource: RouteSource;
  readonly events: PlaneEvent[] = [];
  readonly #queue = new EventQueue(this.clock);
  readonly #registry: UdpListenerRegistry;
  readonly #handover: HandoverState;
  readonly #listeners: Listener[] = [];

  private constructor(state: ForwardingState, picker: Picker, overrides: RigOverrides) {
    const { clock } = this;
    const { handover = new HandoverState(), ...others } = overrides;
    this.#handover = handover;
    this.#queue.subscribe((events) => this.events.push(...events));
    const deps = { clock, events: this.#queue };
    this.manager = new FlowManager(deps, { flowEvents: true, worker: 0, workers: 1 }, state);
    this.sourcePorts = new SourcePorts(deps);
    this.routeSource = new RouteSource({ clock });
    const { manager, sourcePorts, routeSource } = this;
    const parts = { manager, picker, sockets: new DgramSockets(), sourcePorts, routeSource };
    this.#registry = new UdpListenerRegistry({ ...parts, ...others });
  }

  static async create(t: TestContext, state: ForwardingState, overrides: RigOverrides = {}): Promise<Rig> {
    const { picker = new Picker(await createHasher()), ...others } = overrides;
    const rig = new Rig(state, picker, others);
    t.after(() => rig.close());
    return rig;
  }

  /** A listener of the state's first rule, which serves. */
  async open(
    address: string,
    port = 0,
    rest: Pick<ListenerBinding, 'captured'> = {},
  ): Promise<Listener & { readonly port: number }> {
    const [slot] = this.manager.slotsFor(this.manager.state.configuration);
    if (slot === undefined) throw new Error('No rule');
    const binding = { protocol: 'udp', address: ipAddress(address), port, slot, ...rest } as const;
    const listener = await this.#registry.open(binding, this.#handover.take(binding));
    listener.serve();
    this.#listeners.push(listener);
    return Object.assign(listener, { port: listener.binding.port });
  }

  /** The captured socket of the state's frontend. */
  async openCaptured(address: string): ReturnType<Rig['open']> {
    const { configuration } = this.manager.state;
    const slots = this.manager.slotsFor(configuration);
    const [first] = slots;
    if (first === undefined) throw new Error('No rule');
    const { frontend } = first.rule;
    const owners = new RulePorts(configuration.rules).at('udp', frontend.address);
    const ports = new CapturedPorts(frontend, first, owners, slots);
    return this.open(address, 0, { captured: { protocol: 'udp', ports } });
  }

  /** Time passes, and what is idle by then ends. */
  pass(ms: number): void {
    this.clock.advance(ms);
    this.manager.tick();
  }

  /** What the plane does with a new state. */
  apply(state: ForwardingState): void {
    this.manager.apply(state);
    const slots = this.manager.slotsFor(state.configuration);
    for (const { binding } of this.#listeners) binding.slot = slots[binding.slot.index] ?? binding.slot;
  }

  drops(reason: DropReason): number {
    return this.manager.traffic.arrivals('ha-ports', 'udp').drops[reason] ?? 0;
  }

  arrivals(): number {
    return this.manager.traffic.arrivals('ha-ports', 'udp').arrivals;
  }

  /** So far. */
  allEvents(): readonly PlaneEvent[] {
    this.#queue.flush();
    return this.events;
  }

  /** All events so far of one type. */
  eventsOf<T extends PlaneEvent['type']>(type: T): Extract<PlaneEvent, { type: T }>[] {
    return this.allEvents().filter((event): event is Extract<PlaneEvent, { type: T }> => event.type === type);
  }

  flows(): readonly { readonly backendId: string | undefined; readonly reason: string | undefined }[] {
    return [...this.manager.table.all()].map(({ placement }) => ({
      backendId: placement?.backendId,
      reason: placement?.reason,
    }));
  }

  /** As a plane that stops does: sockets for answers go with their flows. */
  close(): void {
    for (const flow of [...this.manager.table.all()]) this.manager.end(flow, 'shutdown', 'close');
    for (const listener of this.#listeners) listener.destroy();
  }
}

export interface Received {
  readonly data: Buffer;
  readonly text: string;
  readonly from: RemoteInfo;
}

/** A plain UDP socket of a test, with what it received in order. */
export class Peer {
  readonly address: string;
  readonly port: number;
  readonly received: Received[] = [];
  readonly #socket: Socket;
  #waiting: (() => void) | undefined;

  private constructor(
    socket: Socket,
    answer: ((received: Received) => Buffer | string | undefined) | undefined,
  ) {
    this.#socket = socket;
    const local: AddressInfo = socket.address();
    this.address = local.address;
    this.port = local.port;
    socket.on('error', () => undefined);
    socket.on('message', (data, from) => {
      const received = { data, text: data.toString('latin1'), from };
      this.received.push(received);
      this.#waiting?.();
      const reply = answer?.(received);
      if (reply !== undefined) socket.send(reply, from.port, from.address);
    });
  }

  /** Answers with what `answer` gives. */
  static async open(
    t: TestContext,
    address: string,
    port = 0,
    answer?: (received: Received) => Buffer | string | undefined,
  ): Promise<Peer> {
    const socket = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4' });
    socket.bind({ address, port, exclusive: true });
    await once(socket, 'listening');
    socket.setRecvBufferSize(4_194_304);
    const peer = new Peer(socket, answer);
    t.after(() => peer.close());
    return peer;
  }

  send(data: string | Uint8Array, to: { readonly address: string; readonly port: number }): void {
    this.#socket.send(data, to.port, to.address);
  }

  /** Waits until `count` datagrams have come in all. */
  async count(count: number): Promise<readonly Received[]> {
    await within(this.#reach(count), DEADLINE_MS, `${count} datagrams, got ${this.received.length}`);
    return this.received;
  }

  /** Sends and waits for the next datagram. */
  async ask(
    data: string | Uint8Array,
    to: { readonly address: string; readonly port: number },
  ): Promise<Received> {
    const next = this.received.length;
    this.send(data, to);
    await this.count(next + 1);
    const received = this.received[next];
    if (received === undefined) throw new Error('Nothing received');
    return received;
  }

  close(): void {
    try {
      this.#socket.close();
    } catch {
      // A test may have closed it.
    }
  }

  async #reach(count: number): Promise<void> {
    while (this.received.length < count) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
  }
}

/** A backend that says who it is: `<address>:<datagram>`. */
export function echo(t: TestContext, address: string, port: number): Promise<Peer> {
  return Peer.open(t, address, port, ({ text }) => `${address}:${text}`);
}

/** File descriptors of this process that are sockets. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

export interface UdpLab {
  readonly rig: Rig;
  readonly listener: Listener;
  readonly to: { readonly address: string; readonly port: number };
  /** By address. */
  readonly backends: ReadonlyMap<string, Peer>;
  readonly client: Peer;
}

/**
 * A listener on `at(1)`, a client, and backends on the listener's port, plus the rule's offset, which say who they are;
 * silent ones say nothing.
 */
export async function udpLab(
  t: TestContext,
  at: (host: number) => string,
  parts: Partial<TestStateParts> = {},
  { running = [at(11), at(12), at(13)], silent = false } = {},
): Promise<UdpLab> {
  const rig = await Rig.create(t, testState({ backends: [at(11), at(12), at(13)], ...parts }));
  const listener = await rig.open(at(1));
  const { port } = listener;
  const backends = new Map<string, Peer>();
  for (const address of running) {
    const backendPort = port + (parts.rule?.portOffset ?? 0);
    backends.set(
      address,
      await (silent ? Peer.open(t, address, backendPort) : echo(t, address, backendPort)),
    );
  }
  return { rig, listener, to: { address: at(1), port }, backends, client: await Peer.open(t, at(100)) };
}

/** A client's own address, like nothing that a captured socket sees. */
export const MADE_UP = '198.51.100.7';

/** What the kernel would say of datagrams that it steered to a captured socket. */
export class FakeOrigins implements OriginFeed {
  follower: OriginFollower | undefined;
  entries: FlowOrigin[] = [];
  lists = 0;
  /** A listing waits for it. */
  until: Promise<void> = Promise.resolve();
  readonly #defaults: Pick<FlowOrigin, 'receiver' | 'destination'>;
  #ids = 0;

  constructor(defaults: Pick<FlowOrigin, 'receiver' | 'destination'>) {
    this.#defaults = defaults;
  }

  follow(_port: number, follower: OriginFollower): () => void {
    this.follower = follower;
    return () => (this.follower = undefined);
  }

  async list(): Promise<readonly FlowOrigin[]> {
    this.lists++;
    const entries = [...this.entries];
    await this.until;
    return entries;
  }

  /** An entry for that client, whose own address and port are made up: like nothing that the socket sees. */
  origin(client: Peer, destinationPort: number, rest: Partial<FlowOrigin> = {}): FlowOrigin {
    return {
      ...{ id: ++this.#ids, seenAddress: client.address, seenPort: client.port, destinationPort },
      ...{ source: MADE_UP, sourcePort: 5000, remainingMs: 90_000, ...this.#defaults, ...rest },
    };
  }

  isNew(...args: Parameters<FakeOrigins['origin']>): FlowOrigin {
    const origin = this.origin(...args);
    this.follower?.onNew(origin);
    return origin;
  }
}
