import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { isIPv6, type AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { EventQueue } from '../../../../../src/flows/event-queue.js';
import { FlowManager } from '../../../../../src/flows/flow-manager.js';
import type { ListenerBinding } from '../../../../../src/planes/userspace/listen-plan.js';
import type { Listener } from '../../../../../src/planes/userspace/listeners.js';
import { HandoverState } from '../../../../../src/planes/userspace/handover-state.js';
import { DgramSockets } from '../../../../../src/planes/userspace/sockets/dgram.js';
import { RouteSource } from '../../../../../src/planes/userspace/source-address.js';
import { SourcePorts } from '../../../../../src/planes/userspace/source-ports.js';
import { UdpListenerRegistry, type UdpDeps } from '../../../../../src/planes/userspace/udp/listener.js';
import { ipAddress } from '../../../../../src/model/address.js';
import type { DropReason, PlaneEvent } from '../../../../../src/model/events.js';
import type { ForwardingState } from '../../../../../src/model/forwarding.js';
import { createHasher } from '../../../../../src/selection/flow-hash.js';
import { Picker } from '../../../../../src/selection/picker.js';
import { within } from '../../../../support/deadline.js';
import { FakeClock } from '../../../../support/fake-clock.js';

/** Long enough for a busy machine; only a failing test waits for it. */
const DEADLINE_MS = 5000;

export type RigOverrides = Partial<Pick<UdpDeps, 'routeSource' | 'sourcePorts' | 'origins'>> & {
  readonly inheritance?: HandoverState;
};

/** A UDP data plane on real sockets and a clock that stands still. */
export class Rig {
  readonly clock: FakeClock;
  readonly manager: FlowManager;
  readonly sourcePorts: SourcePorts;
  readonly routeSource: RouteSource;
  readonly events: PlaneEvent[] = [];
  readonly open: (
    address: string,
    port?: number,
    rest?: Pick<ListenerBinding, 'captured'>,
  ) => Promise<Listener & { readonly port: number }>;
  readonly #queue: EventQueue;
  readonly #listeners: Listener[] = [];

  private constructor(state: ForwardingState, deps: Pick<UdpDeps, 'picker'>, overrides: RigOverrides) {
    this.clock = new FakeClock();
    this.#queue = new EventQueue(this.clock);
    this.#queue.subscribe((events) => this.events.push(...events));
    this.manager = new FlowManager(
      { clock: this.clock, events: this.#queue },
      { flowEvents: true, worker: 0, workers: 1 },
      state,
    );
    this.sourcePorts = new SourcePorts({ clock: this.clock, events: this.#queue });
    this.routeSource = new RouteSource({ clock: this.clock });
    const { inheritance = new HandoverState() } = overrides;
    const factory = new UdpListenerRegistry({
      manager: this.manager,
      sockets: new DgramSockets(),
      sourcePorts: this.sourcePorts,
      routeSource: this.routeSource,
      ...deps,
      ...overrides,
    });
    this.open = async (address, port = 0, rest = {}) => {
      const [slot] = this.manager.slotsFor(this.manager.state.configuration);
      if (slot === undefined) throw new Error('No rule');
      const binding = { protocol: 'udp', address: ipAddress(address), port, slot, ...rest } as const;
      const listener = await factory.open(binding, inheritance.take(binding));
      listener.serve();
      this.#listeners.push(listener);
      return Object.assign(listener, { port: listener.binding.port });
    };
  }

  static async create(t: TestContext, state: ForwardingState, overrides: RigOverrides = {}): Promise<Rig> {
    const rig = new Rig(state, { picker: new Picker(await createHasher()) }, overrides);
    t.after(() => rig.close());
    return rig;
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

  /** All events so far of one type. */
  eventsOf<T extends PlaneEvent['type']>(type: T): Extract<PlaneEvent, { type: T }>[] {
    this.#queue.flush();
    return this.events.filter((event): event is Extract<PlaneEvent, { type: T }> => event.type === type);
  }

  flows(): readonly { readonly backendId: string | undefined; readonly reason: string | undefined }[] {
    return [...this.manager.table.all()].map(({ placement }) => ({
      backendId: placement?.backendId,
      reason: placement?.reason,
    }));
  }

  close(): void {
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
