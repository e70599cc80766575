import { createServer, type Server, type Socket } from 'node:net';
import {
  cidrContains,
  ipAddress,
  isWildcard,
  type Cidr,
  type FiveTuple,
  type IpAddress,
} from '../../../model/address.js';
import type { CapturePlan } from '../../../model/capture.js';
import type { Frontend, Rule } from '../../../model/configuration.js';
import { errorCode, errorMessage } from '../../../model/errors.js';
import { isAdmitted, judgeAccess } from '../../../selection/access.js';
import type { CapturedEnd, CapturedEnds } from '../captured-ports.js';
import type { Listener, ListenerBinding, ListenerFactory } from '../listener.js';
import { listenDescriptor, listenRaw, rawTcp, type Inheritance } from '../node-handles.js';
import { ipv4Number } from '../udp/client-map.js';
import { TcpConnection, type TcpDeps } from './connection.js';
import { LoopTurn, SPLICE_HIGH_WATER_MARK } from './splice.js';

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
    this.#deps.manager.dropped(this.binding.rule, 'tcp', 'descriptors-exhausted');
  }

  /** It is paused and not read, so it cannot end before it is accepted. */
  #hold(socket: Socket, held: Socket[]): void {
    socket.on('error', ignore);
    if (this.#server.listening && held.length < MOST_HELD) held.push(socket);
    else refuse(socket);
  }

  #accept(socket: Socket): void {
    const { manager } = this.#deps;
    const binding = this.#bindingOf(socket);
    if (binding === undefined) {
      manager.dropped(this.binding.rule, 'tcp', 'unknown-origin');
      refuse(socket);
      return;
    }
    const { rule, frontend } = binding;
    manager.arrived(rule, 'tcp');
    const tuple = this.#tupleOf(socket, binding);
    if (tuple === undefined) {
      socket.on('error', ignore);
      socket.destroy();
      return;
    }
    const expectsProxyHeader = isTrusted(frontend, tuple.source);
    if (!mayConnect(frontend, tuple.source, expectsProxyHeader)) {
      manager.dropped(rule, 'tcp', 'denied');
      refuse(socket);
      return;
    }
    const connection = new TcpConnection(this.#deps, binding, socket);
    const flow = manager.open(tuple, rule, connection);
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

/**
 * Whether this process could listen on a TCP port: undefined, or why not (`EADDRINUSE`, `EACCES` ...). It listens for
 * less than a turn of the event loop and accepts nobody: a client in that moment is refused as it was before.
 */
export function tryTcpPort(address: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error) => resolve(errorCode(error) ?? errorMessage(error)));
    server.once('listening', () => server.close(() => resolve(undefined)));
    server.listen({ host: address, port, backlog: 1, ipv6Only: true });
  });
}

/**
 * The transparent listening sockets that were handed in, for as long as the plane takes flows. A descriptor can be used
 * once only: with the server on it the descriptor is closed. So a server that nobody wants for now is kept.
 */
export class TransparentSockets {
  readonly #descriptors: NonNullable<CapturePlan['descriptors']>;
  readonly #kept = new Map<4 | 6, Server>();
  #retired = false;

  constructor({ descriptors = {} }: Pick<CapturePlan, 'descriptors'>) {
    this.#descriptors = descriptors;
  }

  /** Whether the binding's socket was handed in, so that nobody needs to bind one. */
  has({ captured, address }: ListenerBinding): boolean {
    return captured?.protocol === 'tcp' && this.#descriptors[address.family] !== undefined;
  }

  /** What to listen on: a server that listens already, or a descriptor; undefined: there is none. */
  take(family: 4 | 6): Server | number | undefined {
    const kept = this.#kept.get(family);
    this.#kept.delete(family);
    return kept ?? this.#descriptors[family];
  }

  /** A server that is no longer wanted. Nothing is steered to it then; what still comes is for the caller to refuse. */
  keep(family: 4 | 6, server: Server): void {
    if (this.#retired) server.close();
    else this.#kept.set(family, server);
  }

  /** No flows are taken any more: from now on servers are closed. Other processes go on with the same sockets. */
  retire(): void {
    this.#retired = true;
    for (const server of this.#kept.values()) server.close();
    this.#kept.clear();
  }
}

/** How a socket that listens on both families writes IPv4 addresses (RFC 4291, 2.5.5.2). */
const MAPPED = '::ffff:';

/**
 * Whose port a captured connection was made to, as the binding that a socket of that port alone would have; undefined:
 * nobody's. One system call.
 */
export function captureOf(
  socket: Socket,
  listener: ListenerBinding,
  { tcp, block }: CapturePlan,
): ListenerBinding | undefined {
  const { localAddress } = socket;
  const ends = endsOf(listener);
  if (localAddress === undefined || ends === undefined) return undefined;
  if (tcp === 'tproxy') {
    const { localPort = 0 } = socket;
    const address = localAddress.startsWith(MAPPED) ? localAddress.slice(MAPPED.length) : localAddress;
    return bindingAt(ends.of(address)?.at(localPort), localPort, listener);
  }
  const captured = capturedPortOfText(localAddress, block);
  if (captured < 0) return undefined;
  const port = captured & 0xffff;
  const end = ends.ofSlot(captured >>> 16)?.at(port);
  return end?.frontend.address.family === listener.address.family
    ? bindingAt(end, port, listener)
    : undefined;
}

function bindingAt(
  end: CapturedEnd | undefined,
  port: number,
  listener: ListenerBinding,
): ListenerBinding | undefined {
  return end === undefined ? undefined : new CapturedBinding(end, port, listener);
}

function endsOf({ captured }: ListenerBinding): CapturedEnds | undefined {
  return captured?.protocol === 'tcp' ? captured.ends : undefined;
}

/** Who serves one captured port: after a reload another rule, if one does; else who served it when the flow began. */
class CapturedBinding implements ListenerBinding {
  readonly protocol = 'tcp';
  readonly port: number;
  readonly #first: CapturedEnd;
  readonly #listener: ListenerBinding;

  constructor(first: CapturedEnd, port: number, listener: ListenerBinding) {
    this.#first = first;
    this.port = port;
    this.#listener = listener;
  }

  get address(): IpAddress {
    return this.#first.frontend.address;
  }

  get rule(): Rule {
    return this.#end.rule;
  }

  get ruleIndex(): number {
    return this.#end.ruleIndex;
  }

  get frontend(): Frontend {
    return this.#end.frontend;
  }

  get #end(): CapturedEnd {
    return endsOf(this.#listener)?.of(this.address.text)?.at(this.port) ?? this.#first;
  }
}

/** Ports fit below this factor, slots above. */
const PORTS = 65_536;

/** What private IPv6 addresses begin with, see model/capture-address.ts; a slot or a second colon follows. */
const PREFIX6 = 'fd68:6170:6f72:7473:';

/**
 * Slot times 65,536 plus port of a private address as the kernel writes it; -1 for any other address. The same as
 * `capturedPort(ipAddress(text))`, which takes 0.2 us for IPv4 and 19 us for IPv6; this takes 0.1 us for both.
 */
export function capturedPortOfText(text: string, block: Cidr): number {
  if (text.startsWith(PREFIX6)) return ofTail6(text);
  if (text.includes(':')) return -1;
  const [first = 0, second = 0] = block.address.bytes;
  const offset = ipv4Number(text) - (first * 256 + second) * PORTS;
  return offset >= 0 && offset < PORTS * 2 ** Math.max(0, 16 - block.prefixLength) ? offset : -1;
}

/** `7::1bb` after the prefix, or `:1bb` in slot 0. A port is never 0, so the zeros before it are always shortened. */
function ofTail6(text: string): number {
  const gap = text.indexOf('::', PREFIX6.length - 1);
  if (gap < 0) return -1;
  const slot = gap < PREFIX6.length ? 0 : group(text, PREFIX6.length, gap);
  const port = group(text, gap + 2, text.length);
  return slot < 0 || port < 0 ? -1 : slot * PORTS + port;
}

/** One group of an IPv6 address, lower case; -1 if it is none. */
function group(text: string, start: number, end: number): number {
  if (end <= start || end - start > 4) return -1;
  let value = 0;
  for (let index = start; index < end; index++) {
    const code = text.charCodeAt(index);
    if (code >= 0x30 && code <= 0x39) value = value * 16 + code - 0x30;
    else if (code >= 0x61 && code <= 0x66) value = value * 16 + code - 0x57;
    else return -1;
  }
  return value;
}
