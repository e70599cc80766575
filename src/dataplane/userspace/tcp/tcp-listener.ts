import { createServer, type Server, type Socket } from 'node:net';
import { ipAddress, isWildcard, type IpAddress } from '../../../model/address.js';
import { cidrContains } from '../../../model/cidr.js';
import type { Frontend } from '../../../model/configuration.js';
import type { FiveTuple } from '../../../model/five-tuple.js';
import { isAdmitted, judgeAccess } from '../../../selection/access-list.js';
import type { Inheritance } from '../inheritance.js';
import type { Listener, ListenerBinding, ListenerFactory } from '../listener.js';
import { listenRaw, rawTcp } from '../raw-handle.js';
import { LoopTurn } from './loop-turn.js';
import { SPLICE_HIGH_WATER_MARK } from './splice.js';
import { TcpConnection, type TcpDeps } from './tcp-connection.js';

/** Connections that may wait to be accepted; Linux takes the lower of this and net.core.somaxconn. */
const BACKLOG = 4096;

/** Connections accepted before the listener serves; more are refused. */
const MOST_HELD = 1024;

/**
 * Opens TCP listeners whose connections become flows. Every listener it opens uses the same dependencies. A socket that
 * was inherited is served on, with the connections that wait in its queue.
 */
export function createTcpListenerFactory(
  deps: Omit<TcpDeps, 'turn'>,
  inheritance?: Pick<Inheritance, 'takeSocket'>,
): ListenerFactory {
  const tcpDeps = { ...deps, turn: new LoopTurn() };
  return {
    open: (binding) =>
      TcpListener.open(tcpDeps, binding, inheritance?.takeSocket('tcp', binding.address.text, binding.port)),
  };
}

class TcpListener implements Listener {
  readonly binding: ListenerBinding;
  readonly #deps: TcpDeps;
  readonly #server: Server;
  readonly #isWildcard: boolean;
  /** Accepted, until it serves. */
  #held: Socket[] | undefined = [];

  static open(deps: TcpDeps, binding: ListenerBinding, inherited: unknown): Promise<Listener> {
    const listener = new TcpListener(deps, binding);
    return listener.#listen(inherited);
  }

  private constructor(deps: TcpDeps, binding: ListenerBinding) {
    this.#deps = deps;
    this.binding = binding;
    this.#isWildcard = isWildcard(binding.address);
    this.#server = createServer({
      allowHalfOpen: true,
      pauseOnConnect: true,
      highWaterMark: SPLICE_HIGH_WATER_MARK,
    });
  }

  serve(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const socket of held) this.#accept(socket);
  }

  close(): void {
    if (this.#server.listening) this.#server.close();
    for (const socket of this.#held?.splice(0) ?? []) refuse(socket);
  }

  destroy(): void {
    // Accepted connections need nothing of the listening socket.
    this.close();
  }

  rawHandle(): object | undefined {
    return rawTcp(this.#server);
  }

  #listen(inherited: unknown): Promise<Listener> {
    const server = this.#server;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', () => {
        server.off('error', reject);
        server.on('error', () => this.#acceptFailed());
        server.on('connection', (socket) => {
          if (this.#held === undefined) this.#accept(socket);
          else this.#hold(socket, this.#held);
        });
        resolve(this);
      });
      if (inherited !== undefined) {
        listenRaw(server, inherited, BACKLOG);
        return;
      }
      server.listen({
        host: this.binding.address.text,
        port: this.binding.port,
        backlog: BACKLOG,
        ipv6Only: true,
      });
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
    const { rule, frontend } = this.binding;
    keeper.arrived(rule, 'tcp');
    const tuple = this.#tupleOf(socket);
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
    const connection = new TcpConnection(this.#deps, this.binding, socket);
    const flow = keeper.open(tuple, rule, connection);
    if (typeof flow === 'string') refuse(socket);
    else connection.serve(flow, expectsProxyHeader);
  }

  /** Undefined if the client has gone already: the kernel then no longer knows who it was. */
  #tupleOf(socket: Socket): FiveTuple | undefined {
    const { remoteAddress, remotePort } = socket;
    if (remoteAddress === undefined || remotePort === undefined) return undefined;
    const { address, port } = this.binding;
    // Asked only where it is not known: each question is a system call.
    const localAddress = this.#isWildcard ? socket.localAddress : undefined;
    const destination = localAddress === undefined ? address : ipAddress(localAddress);
    const source = ipAddress(remoteAddress);
    return { protocol: 'tcp', source, sourcePort: remotePort, destination, destinationPort: port };
  }
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
