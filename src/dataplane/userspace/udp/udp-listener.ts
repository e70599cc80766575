import type { Socket } from 'node:dgram';
import type { IpAddress } from '../../../model/address.js';
import type { OriginFeed } from '../../../model/flow-origin.js';
import type { Picker } from '../../../selection/picker.js';
import type { FlowKeeper } from '../flow-keeper.js';
import type { Inheritance } from '../inheritance.js';
import type { Listener, ListenerBinding, ListenerFactory } from '../listener.js';
import { bindRaw } from '../raw-handle.js';
import type { RouteSource } from '../route-source.js';
import type { SourcePorts } from '../source-ports.js';
import { AnswerSockets } from './answer-sockets.js';
import { BoundListener, type Neighbourhood } from './bound-listener.js';
import { CapturedArrivals } from './captured-arrivals.js';
import { CapturedFeed } from './captured-feed.js';
import type { UdpTools } from './client-flow.js';
import { ClientKeys } from './client-keys.js';
import { bindNow, createDatagramSocket } from './datagram-socket.js';
import { HeldMemory } from './held-memory.js';
import { ListenerRegistry } from './listener-registry.js';
import { RelatedEnds, type AnswerHost, type AnswerPorts } from './related-ends.js';
import { UpstreamDialer } from './upstream-dialer.js';
import { UpstreamTargets } from './upstream-targets.js';

export interface UdpListenerDeps {
  readonly keeper: FlowKeeper;
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
    keeper,
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
      keeper,
      picker,
      dialer,
      related: new RelatedEnds({ keeper, dialer, answerPorts: this }),
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
    const { keeper, heldMemory } = this.#tools;
    const { clock } = keeper;
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
