import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { EventQueue } from '../../../../../src/flows/event-queue.js';
import { FlowManager } from '../../../../../src/flows/flow-manager.js';
import type { ListenerBinding } from '../../../../../src/planes/userspace/listen-plan.js';
import type { Listener } from '../../../../../src/planes/userspace/listeners.js';
import type { Inherited } from '../../../../../src/planes/userspace/handover-state.js';
import { NetSockets } from '../../../../../src/planes/userspace/sockets/net.js';
import { RouteSource } from '../../../../../src/planes/userspace/source-address.js';
import { SourcePorts } from '../../../../../src/planes/userspace/source-ports.js';
import { createTcpListenerFactory } from '../../../../../src/planes/userspace/tcp/listener.js';
import { ipAddress } from '../../../../../src/model/address.js';
import type { PlaneEvent } from '../../../../../src/model/events.js';
import type { ForwardingState } from '../../../../../src/model/forwarding.js';
import { systemClock, type Clock } from '../../../../../src/runtime/clock.js';
import { Picker } from '../../../../../src/selection/picker.js';
import { CAREFUL, readCarefully } from '../../../../support/careful-reading.js';

const RULE = 'ha-ports';

export const NOTHING_INHERITED: Inherited = { handle: undefined, flows: [] };

/**
 * One TCP listener on real sockets; the clock may be a fake. Every hash is 0, so that the first eligible
 * backend of the state is every flow's first choice, the second the next one, and so on.
 */
export class TcpLab {
  readonly manager: FlowManager;
  readonly events: PlaneEvent[] = [];
  readonly latencies: { readonly backendId: string; readonly seconds: number }[] = [];
  readonly sourcePorts: SourcePorts;
  readonly port: number;
  readonly host: string;
  readonly #queue: EventQueue;
  #listener: Listener | undefined;

  private constructor(state: ForwardingState, clock: Clock, port: number) {
    this.#queue = new EventQueue(clock);
    this.#queue.subscribe((events) => this.events.push(...events));
    this.manager = new FlowManager(
      { clock, events: this.#queue },
      { flowEvents: true, worker: 0, workers: 1 },
      state,
    );
    this.sourcePorts = new SourcePorts({ clock, events: this.#queue });
    this.port = port;
    this.host = state.configuration.frontends[0]!.address.text;
  }

  /** Listens on the state's frontend address, at the port given or one that was free a moment ago. */
  static async open(
    state: ForwardingState,
    options: { readonly clock?: Clock; readonly port?: number } = {},
  ): Promise<TcpLab> {
    const clock = options.clock ?? systemClock;
    const host = state.configuration.frontends[0]!.address.text;
    const lab = new TcpLab(state, clock, options.port ?? (await freePort(host)));
    const factory = createTcpListenerFactory({
      manager: lab.manager,
      picker: new Picker(() => 0),
      sockets: new NetSockets(),
      sourcePorts: lab.sourcePorts,
      routeSource: new RouteSource({ clock }),
      onConnectLatency: (backendId, seconds) => lab.latencies.push({ backendId, seconds }),
    });
    const binding: ListenerBinding = {
      protocol: 'tcp',
      address: ipAddress(host),
      port: lab.port,
      slot: lab.manager.slotsFor(state.configuration)[0]!,
    };
    lab.#listener = await factory.open(binding, NOTHING_INHERITED);
    lab.#listener.serve();
    return lab;
  }

  get flowCount(): number {
    return this.manager.table.size;
  }

  drops(): Readonly<Record<string, number>> {
    return { ...this.manager.traffic.arrivals(RULE, 'tcp').drops };
  }

  arrivals(): number {
    return this.manager.traffic.arrivals(RULE, 'tcp').arrivals;
  }

  endsOf(backendAddress: string): Readonly<Record<string, number>> {
    return { ...this.manager.traffic.of(RULE, `nvas/${backendAddress}`, 'tcp').flowsEnded };
  }

  flushEvents(): readonly PlaneEvent[] {
    this.#queue.flush();
    return this.events;
  }

  closeListener(): void {
    this.#listener?.close();
  }

  close(): void {
    this.#listener?.destroy();
    for (const flow of this.manager.table.all()) this.manager.end(flow, 'shutdown', 'reset');
    this.#queue.flush();
  }
}

/** A backend that hands each connection to `serve`; its sockets never throw. */
export class TestServer {
  readonly sockets = new Set<Socket>();
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(
    host: string,
    serve: (socket: Socket) => void,
    options: { readonly port?: number; readonly pauseOnConnect?: boolean } = {},
  ): Promise<TestServer> {
    const server = createServer({
      ...CAREFUL,
      allowHalfOpen: true,
      pauseOnConnect: options.pauseOnConnect === true,
    });
    const test = new TestServer(server);
    server.on('connection', (socket) => {
      test.sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => test.sockets.delete(socket));
      serve(socket);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port: options.port ?? 0, ipv6Only: true }, resolve);
    });
    return test;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

export async function freePort(host: string): Promise<number> {
  const server = await TestServer.listen(host, () => undefined);
  const { port } = server;
  server.close();
  return port;
}

/** How a socket ended, and what came before. */
export interface Reception {
  readonly bytes: number;
  readonly text: string;
  readonly end: 'fin' | 'reset';
}

/** Reads a socket to its end, whichever that is. */
export function receive(socket: Socket): Promise<Reception> {
  return new Promise((resolve) => {
    let text = '';
    let bytes = 0;
    readCarefully(socket, {
      chunk: (chunk) => {
        bytes += chunk.length;
        if (bytes <= 65536) text += chunk.toString('latin1');
      },
      over: (end) => resolve({ bytes, text, end }),
    });
  });
}
