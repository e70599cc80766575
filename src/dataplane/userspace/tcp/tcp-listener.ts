import { createServer, type Server, type Socket } from 'node:net';
import { ipAddress, isWildcard, type IpAddress } from '../../../model/address.js';
import type { CapturePlan } from '../../../model/capture.js';
import { cidrContains } from '../../../model/cidr.js';
import type { Frontend } from '../../../model/configuration.js';
import type { FiveTuple } from '../../../model/five-tuple.js';
import { isAdmitted, judgeAccess } from '../../../selection/access-list.js';
import type { Inheritance } from '../inheritance.js';
import type { Listener, ListenerBinding, ListenerFactory } from '../listener.js';
import { listenDescriptor, listenRaw, rawTcp } from '../raw-handle.js';
import { captureOf } from './captured-binding.js';
import { LoopTurn } from './loop-turn.js';
import { SPLICE_HIGH_WATER_MARK } from './splice.js';
import { TcpConnection, type TcpDeps } from './tcp-connection.js';
import type { TransparentSockets } from './transparent-sockets.js';

/** Connections that may wait to be accepted; Linux takes the lower of this and net.core.somaxconn. */
const BACKLOG = 4096;

const SERVER = { allowHalfOpen: true, pauseOnConnect: true, highWaterMark: SPLICE_HIGH_WATER_MARK };

/** Connections accepted before the listener serves; more are refused. */
const MOST_HELD = 1024;

export interface TcpListenerOptions {
  /** Sockets to go on with. @default none */
  readonly inheritance?: Pick<Inheritance, 'takeSocket'>;
  /** How captured connections tell where they were made to. Absent: none is captured. */
  readonly capture?: CapturePlan;
  /** Handed in from outside; captured listeners of these families use them. @default none */
  readonly transparent?: TransparentSockets;
}

/**
 * Opens TCP listeners whose connections become flows. Every listener it opens uses the same dependencies. A socket that
 * was inherited is served on, with the connections that wait in its queue. A captured listener serves many ports:
 * connections to none of them are refused.
 */
export function createTcpListenerFactory(
  deps: Omit<TcpDeps, 'turn'>,
  options: TcpListenerOptions = {},
): ListenerFactory {
  const tcpDeps = { ...deps, turn: new LoopTurn() };
  return { open: (binding) => TcpListener.open(tcpDeps, binding, options) };
}

class TcpListener implements Listener {
  readonly binding: ListenerBinding;
  readonly #deps: TcpDeps;
  readonly #server: Server;
  readonly #isWildcard: boolean;
  readonly #capture: CapturePlan | undefined;
  /** Where the server goes when this listener is closed; undefined: nobody else wants it. */
  readonly #owner: TransparentSockets | undefined;
  /** Accepted, until it serves. */
  #held: Socket[] | undefined = [];
  #closed = false;

  static open(
    deps: TcpDeps,
    binding: ListenerBinding,
    { inheritance, capture, transparent }: TcpListenerOptions,
  ): Promise<Listener> {
    if (binding.captured !== undefined && capture === undefined) return Promise.reject(noCapture());
    const plan = binding.captured === undefined ? undefined : capture;
    const { family, text } = binding.address;
    const inherited = inheritance?.takeSocket('tcp', text, binding.port);
    const isBound = inherited !== undefined || plan?.tcp !== 'tproxy';
    const source = isBound ? createServer(SERVER) : transparent?.take(family);
    if (source === undefined) return Promise.reject(noTransparentSocket(family));
    const server = typeof source === 'number' ? createServer(SERVER) : source;
    const listener = new TcpListener(deps, binding, server, plan, isBound ? undefined : transparent);
    return listener.#listen(() => {
      if (inherited !== undefined) listenRaw(server, inherited, BACKLOG);
      else if (typeof source === 'number') listenDescriptor(server, source, BACKLOG);
      else server.listen({ host: text, port: binding.port, backlog: BACKLOG, ipv6Only: true });
    });
  }

  private constructor(
    deps: TcpDeps,
    binding: ListenerBinding,
    server: Server,
    capture: CapturePlan | undefined,
    owner: TransparentSockets | undefined,
  ) {
    this.#deps = deps;
    this.binding = binding;
    this.#server = server;
    this.#capture = capture;
    this.#owner = owner;
    this.#isWildcard = capture === undefined && isWildcard(binding.address);
  }

  serve(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const socket of held) this.#accept(socket);
  }

  close(): void {
    if (!this.#closed && this.#server.listening) this.#letGo();
    this.#closed = true;
    for (const socket of this.#held?.splice(0) ?? []) refuse(socket);
  }

  destroy(): void {
    // Accepted connections need nothing of the listening socket.
    this.close();
  }

  rawHandle(): object | undefined {
    return rawTcp(this.#server);
  }

  #letGo(): void {
    if (this.#owner === undefined) {
      this.#server.close();
      return;
    }
    this.#server.removeAllListeners('connection');
    this.#server.on('connection', refuse);
    this.#owner.keep(this.binding.address.family, this.#server);
  }

  #listen(start: () => void): Promise<Listener> {
    const server = this.#server;
    if (server.listening) {
      this.#attach();
      return Promise.resolve(this);
    }
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', () => {
        this.#attach();
        resolve(this);
      });
      start();
    });
  }

  /** A server that was kept has listeners of its former owner. */
  #attach(): void {
    const server = this.#server;
    server.removeAllListeners('error');
    server.removeAllListeners('connection');
    server.on('error', () => this.#acceptFailed());
    server.on('connection', (socket) => {
      if (this.#held === undefined) this.#accept(socket);
      else this.#hold(socket, this.#held);
    });
  }

  /** After `listening`, the only errors are failures to accept: no descriptors, or no memory. It goes on listening. */
  #acceptFailed(): void {
    this.#deps.keeper.dropped(this.binding.rule, 'tcp', 'descriptors-exhausted');
  }

  /** It is paused and not read, so it cannot end before it is accepted. */
  #hold(socket: Socket, held: Socket[]): void {
    socket.on('error', ignore);
    if (this.#server.listening && held.length < MOST_HELD) held.push(socket);
    else refuse(socket);
  }

  #accept(socket: Socket): void {
    const { keeper } = this.#deps;
    const binding = this.#bindingOf(socket);
    if (binding === undefined) {
      keeper.dropped(this.binding.rule, 'tcp', 'unknown-origin');
      refuse(socket);
      return;
    }
    const { rule, frontend } = binding;
    keeper.arrived(rule, 'tcp');
    const tuple = this.#tupleOf(socket, binding);
    if (tuple === undefined) {
      socket.on('error', ignore);
      socket.destroy();
      return;
    }
    const expectsProxyHeader = isTrusted(frontend, tuple.source);
    if (!mayConnect(frontend, tuple.source, expectsProxyHeader)) {
      keeper.dropped(rule, 'tcp', 'denied');
      refuse(socket);
      return;
    }
    const connection = new TcpConnection(this.#deps, binding, socket);
    const flow = keeper.open(tuple, rule, connection);
    if (typeof flow === 'string') refuse(socket);
    else connection.serve(flow, expectsProxyHeader);
  }

  /** Undefined if nobody serves the port that the connection was made to. */
  #bindingOf(socket: Socket): ListenerBinding | undefined {
    return this.#capture === undefined ? this.binding : captureOf(socket, this.binding, this.#capture);
  }

  /** Undefined if the client has gone already: the kernel then no longer knows who it was. */
  #tupleOf(socket: Socket, { address, port }: ListenerBinding): FiveTuple | undefined {
    const { remoteAddress, remotePort } = socket;
    if (remoteAddress === undefined || remotePort === undefined) return undefined;
    // Asked only where it is not known: each question is a system call.
    const localAddress = this.#isWildcard ? socket.localAddress : undefined;
    const destination = localAddress === undefined ? address : ipAddress(localAddress);
    const source = ipAddress(remoteAddress);
    return { protocol: 'tcp', source, sourcePort: remotePort, destination, destinationPort: port };
  }
}

function noCapture(): TypeError {
  return new TypeError('A captured listener needs the capture plan');
}

function noTransparentSocket(family: 4 | 6): Error {
  return Object.assign(new Error(`No transparent IPv${family} socket was handed in`), { code: 'EBADF' });
}

/** Whether this peer must send a PROXY header. */
function isTrusted({ proxyProtocol }: Frontend, peer: IpAddress): boolean {
  return proxyProtocol?.trustedSources.some((block) => cidrContains(block, peer)) === true;
}

/** A trusted peer need not be on the allow list, which is for the clients it speaks for; a denied one stays denied. */
function mayConnect(frontend: Frontend, peer: IpAddress, expectsProxyHeader: boolean): boolean {
  if (!expectsProxyHeader) return isAdmitted(frontend, peer);
  const verdict = judgeAccess(frontend, peer);
  return verdict.admitted || verdict.because !== 'deny';
}

function refuse(socket: Socket): void {
  if (socket.listenerCount('error') === 0) socket.on('error', ignore);
  socket.resetAndDestroy();
}

function ignore(): void {
  // The connection is being thrown away.
}
