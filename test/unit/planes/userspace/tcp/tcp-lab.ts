import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { EventQueue } from '../../../../../src/flows/event-queue.js';
import type { Flow } from '../../../../../src/flows/flow.js';
import { FlowManager } from '../../../../../src/flows/flow-manager.js';
import { ipAddress, type IpAddress } from '../../../../../src/model/address.js';
import type { CapturePlan } from '../../../../../src/model/capture.js';
import type { PlaneEvent } from '../../../../../src/model/events.js';
import type { ForwardingState } from '../../../../../src/model/forwarding.js';
import type { Inherited } from '../../../../../src/planes/userspace/handover-state.js';
import type { Captured } from '../../../../../src/planes/userspace/listen-plan.js';
import type { Listener } from '../../../../../src/planes/userspace/listeners.js';
import type { StreamSockets } from '../../../../../src/planes/userspace/sockets/byte-stream.js';
import { NetSockets } from '../../../../../src/planes/userspace/sockets/net.js';
import { RouteSource } from '../../../../../src/planes/userspace/source-address.js';
import { SourcePorts } from '../../../../../src/planes/userspace/source-ports.js';
import { createTcpListenerFactory } from '../../../../../src/planes/userspace/tcp/listener.js';
import { systemClock, type Clock } from '../../../../../src/runtime/clock.js';
import { Picker } from '../../../../../src/selection/picker.js';
import { CAREFUL, readCarefully } from '../../../../support/careful-reading.js';
import { FakeClock } from '../../../../support/fake-clock.js';
import { FakeStreams, type FakeStream } from '../../../../support/fake-streams.js';
import { testState, type TestStateParts } from '../../../../support/forwarding-state.js';

const RULE = 'ha-ports';

export const NOTHING_INHERITED: Inherited = { handle: undefined, flows: [] };

interface LabOptions {
  /** @default the system's */
  readonly clock?: Clock;
  /** @default one that was free a moment ago */
  readonly port?: number;
  /** @default those of node:net */
  readonly sockets?: StreamSockets;
  /** The local address of each flow to a backend. @default what the kernel says */
  readonly source?: IpAddress;
  readonly capture?: CapturePlan;
  readonly captured?: (manager: FlowManager) => Captured;
}

/**
 * One TCP listener on the state's frontend address. Every hash is 0, so that the first eligible backend of the state is
 * every flow's first choice, the second the next one, and so on.
 */
export class TcpLab {
  readonly manager: FlowManager;
  readonly events: PlaneEvent[] = [];
  readonly latencies: { readonly backendId: string; readonly seconds: number }[] = [];
  readonly sourcePorts: SourcePorts;
  readonly port: number;
  readonly host: string;
  readonly #queue: EventQueue;
  #listener!: Listener;

  private constructor(state: ForwardingState, clock: Clock, port: number) {
    this.#queue = new EventQueue(clock);
    this.#queue.subscribe((events) => this.events.push(...events));
    this.manager = new FlowManager(
      { clock, events: this.#queue },
      { flowEvents: true, worker: 0, workers: 1 },
      state,
    );
    this.sourcePorts = new SourcePorts({ clock, events: this.#queue, random: () => 0 });
    this.port = port;
    this.host = state.configuration.frontends[0]!.address.text;
  }

  static async open(state: ForwardingState, options: LabOptions = {}): Promise<TcpLab> {
    const { clock = systemClock, sockets = new NetSockets(), source, capture, captured } = options;
    const { address } = state.configuration.frontends[0]!;
    const lab = new TcpLab(state, clock, options.port ?? (await freePort(address.text)));
    const { manager, sourcePorts, port } = lab;
    const lookUp = source && (() => Promise.resolve(source));
    const factory = createTcpListenerFactory(
      {
        ...{ manager, picker: new Picker(() => 0), sockets, sourcePorts },
        routeSource: new RouteSource(lookUp === undefined ? { clock } : { clock, lookUp }),
        onConnectLatency: (backendId, seconds) => lab.latencies.push({ backendId, seconds }),
      },
      capture,
    );
    const slot = manager.slotsFor(state.configuration)[0]!;
    const binding = { protocol: 'tcp', address, port, slot, captured: captured?.(manager) } as const;
    lab.#listener = await factory.open(binding, NOTHING_INHERITED);
    lab.#listener.serve();
    return lab;
  }

  /** All captured ports from now on. */
  set captured(captured: Captured) {
    this.#listener.binding.captured = captured;
  }

  get flowCount(): number {
    return this.manager.table.size;
  }

  get onlyFlow(): Flow {
    const [flow, ...more] = this.manager.table.all();
    if (flow === undefined || more.length > 0) throw new Error(`${this.flowCount} flows, not one`);
    return flow;
  }

  drops(rule = RULE): Readonly<Record<string, number>> {
    return { ...this.manager.traffic.arrivals(rule, 'tcp').drops };
  }

  arrivals(rule = RULE): number {
    return this.manager.traffic.arrivals(rule, 'tcp').arrivals;
  }

  totals(backendAddress: string) {
    return this.manager.traffic.of(RULE, `nvas/${backendAddress}`, 'tcp');
  }

  endsOf(backendAddress: string): Readonly<Record<string, number>> {
    return { ...this.totals(backendAddress).flowsEnded };
  }

  flushEvents(): readonly PlaneEvent[] {
    this.#queue.flush();
    return this.events;
  }

  close(): void {
    this.#listener.destroy();
    for (const flow of this.manager.table.all()) this.manager.end(flow, 'shutdown', 'reset');
    this.#queue.flush();
  }
}

export const [FIRST, SECOND, THIRD] = ['10.0.0.1', '10.0.0.2', '10.0.0.3'] as const;
export const SOURCE = ipAddress('10.0.0.9');

export interface MemoryLab {
  readonly lab: TcpLab;
  readonly clock: FakeClock;
  readonly streams: FakeStreams;
  /** A client, and the stream to the backend that took it. */
  readonly spliced: () => { readonly client: FakeStream; readonly backend: FakeStream };
}

/** The same over streams in memory, on port 443. Backends, if not said otherwise: FIRST and SECOND. */
export async function inMemory(
  parts: Partial<TestStateParts> = {},
  options: LabOptions = {},
): Promise<MemoryLab> {
  const [clock, streams] = [new FakeClock(), new FakeStreams()];
  const state = testState({ backends: [FIRST, SECOND], ...parts });
  const lab = await TcpLab.open(state, { clock, sockets: streams, port: 443, source: SOURCE, ...options });
  const spliced = (): ReturnType<MemoryLab['spliced']> => {
    const client = streams.accept();
    const backend = streams.last();
    backend.connect();
    return { client, backend };
  };
  return { lab, clock, streams, spliced };
}

export interface Cleanup {
  after: (fn: () => void) => void;
}

/** Over real sockets, all of them gone after the test. */
export interface WireLab {
  readonly lab: TcpLab;
  readonly server: TestServer;
  readonly dial: (localAddress?: string) => Promise<Socket>;
}

/** A listener in front of one backend, which serves on the same port. */
export async function onWire(
  t: Cleanup,
  serve: (socket: Socket) => void,
  { address = '127.0.0.2', ...parts }: Partial<TestStateParts> & { readonly address?: string } = {},
  options: LabOptions = {},
): Promise<WireLab> {
  const server = await TestServer.listen(address, serve);
  const state = testState({ backends: [address], ...parts });
  const lab = await TcpLab.open(state, { port: server.port, ...options });
  const clients: Socket[] = [];
  t.after(() => {
    for (const client of clients) client.destroy();
    lab.close();
    server.close();
  });
  const dial = async (localAddress?: string): Promise<Socket> => {
    const client = connect({ ...CAREFUL, host: lab.host, port: lab.port, localAddress, allowHalfOpen: true });
    clients.push(client);
    await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject));
    return client;
  };
  return { lab, server, dial };
}

/** A backend that hands each connection to `serve`; its sockets never throw. */
export class TestServer {
  readonly sockets = new Set<Socket>();
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async listen(host: string, serve: (socket: Socket) => void, port = 0): Promise<TestServer> {
    const server = createServer({ ...CAREFUL, allowHalfOpen: true });
    const test = new TestServer(server);
    server.on('connection', (socket) => {
      test.sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => test.sockets.delete(socket));
      serve(socket);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port, ipv6Only: true }, resolve);
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
