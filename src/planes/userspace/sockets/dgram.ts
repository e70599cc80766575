import { createSocket, type RemoteInfo, type Socket, type SocketOptions } from 'node:dgram';
import type { IpAddress } from '../../../model/address.js';
import type { BindOptions, DatagramHandler, DatagramSocket, DatagramSockets } from './datagram-socket.js';

/** Bytes that may wait in the process for a socket's send buffer. */
const MAX_QUEUED_BYTES = 1_048_576;

/** Sends under way below which the queue cannot be long: most finish within the call. */
const UNSUSPICIOUS_SENDS = 16;

/** Where a socket finds its object: listeners are shared functions, not closures for each flow. */
const OWNER = Symbol('owner');

type OwnedSocket = Socket & { [OWNER]?: DgramSocket };

/*
 * All addresses here are literals. Node looks them up nevertheless, for bind and connect, and for every datagram sent
 * on a socket that is not connected. A look-up that answers at once makes all three synchronous.
 */
const answerAtOnce: Readonly<Record<4 | 6, NonNullable<SocketOptions['lookup']>>> = {
  4: (hostname, _options, callback) => callback(null, hostname, 4),
  6: (hostname, _options, callback) => callback(null, hostname, 6),
};

/** The adapter over node:dgram. */
export class DgramSockets implements DatagramSockets {
  bind(options: BindOptions, handler: DatagramHandler): DatagramSocket | NodeJS.ErrnoException {
    const { address, port, use, inherited, receiveBufferBytes } = options;
    const { family } = address;
    const socket = createSocket({
      type: family === 4 ? 'udp4' : 'udp6',
      ipv6Only: family === 6,
      reuseAddr: use === 'shared',
      lookup: answerAtOnce[family],
    });
    const failure = bindNow(socket, inherited ?? { address: address.text, port, exclusive: true });
    if (failure !== undefined) {
      socket.close();
      return failure;
    }
    if (receiveBufferBytes !== undefined) raiseReceiveBuffer(socket, receiveBufferBytes);
    return new DgramSocket(socket, handler);
  }
}

/** One socket of node:dgram. */
class DgramSocket implements DatagramSocket {
  handler: DatagramHandler;
  readonly #socket: OwnedSocket;
  readonly #onSent = (error: Error | null): void => {
    this.#sendsUnderWay--;
    if (error !== null && !this.#isClosed) this.handler.onSendError(error);
  };
  #sendsUnderWay = 0;
  #isClosed = false;

  constructor(socket: OwnedSocket, handler: DatagramHandler) {
    this.#socket = socket;
    this.handler = handler;
    socket[OWNER] = this;
    socket.on('message', onMessage);
    socket.on('error', onError);
  }

  get port(): number {
    return this.#socket.address().port;
  }

  connect(address: IpAddress, port: number): string | undefined {
    this.#socket.connect(port, address.text);
    try {
      const peer = this.#socket.remoteAddress().address;
      // The same text is not kept twice.
      return peer === address.text ? address.text : peer;
    } catch {
      // It is emitted as well, later, when the socket is closed.
      return undefined;
    }
  }

  send(datagram: Buffer): boolean {
    if (this.#isFull()) return false;
    this.#sendsUnderWay++;
    this.#socket.send(datagram, this.#onSent);
    return true;
  }

  sendTo(datagram: Buffer, address: string, port: number): boolean {
    if (this.#isFull()) return false;
    this.#sendsUnderWay++;
    this.#socket.send(datagram, port, address, this.#onSent);
    return true;
  }

  pauseReading(): void {
    rawUdp(this.#socket)?.recvStop();
  }

  resumeReading(): void {
    if (!this.#isClosed) rawUdp(this.#socket)?.recvStart();
  }

  rawHandle(): object | undefined {
    return rawUdp(this.#socket);
  }

  close(): void {
    this.#isClosed = true;
    this.#socket.close();
  }

  // What its socket's listeners call.

  received(datagram: Buffer, from: RemoteInfo): void {
    if (!this.#isClosed) this.handler.onDatagram(datagram, from);
  }

  failed(error: Error): void {
    if (!this.#isClosed) this.handler.onReceiveError(error);
  }

  /** Asks the socket only when sends have piled up. */
  #isFull(): boolean {
    return this.#sendsUnderWay >= UNSUSPICIOUS_SENDS && this.#socket.getSendQueueSize() >= MAX_QUEUED_BYTES;
  }
}

function onMessage(this: OwnedSocket, datagram: Buffer, from: RemoteInfo): void {
  this[OWNER]?.received(datagram, from);
}

function onError(this: OwnedSocket, error: Error): void {
  this[OWNER]?.failed(error);
}

/** `target`: an address and port, or what came from another process, which Node takes too (lib/dgram.js); its types do not say so. */
function bindNow(socket: Socket, target: unknown): NodeJS.ErrnoException | undefined {
  let failure: NodeJS.ErrnoException | undefined;
  const onFailure = (error: Error): void => {
    failure = error;
  };
  socket.on('error', onFailure);
  (socket.bind as (target: unknown) => void).call(socket, target);
  socket.off('error', onFailure);
  return failure;
}

function raiseReceiveBuffer(socket: Socket, bytes: number): void {
  try {
    socket.setRecvBufferSize(bytes);
  } catch {
    // It then has what the kernel gave it.
  }
}

/** What is used of the objects that Node keeps under its sockets (lib/internal, stable since Node 10). */
interface RawUdp {
  recvStart(): number;
  recvStop(): number;
}

/**
 * The object under a bound socket. `socket._handle` would be the same, and tells of its deprecation on stderr (DEP0112);
 * sending the socket itself would have the receiving process read from it at once.
 */
function rawUdp(socket: Socket): (RawUdp & object) | undefined {
  const symbol = Object.getOwnPropertySymbols(socket).find(
    ({ description }) => description === 'state symbol',
  );
  if (symbol === undefined) return undefined;
  const { handle } = (socket as unknown as Record<symbol, { readonly handle?: unknown }>)[symbol] ?? {};
  return isRawUdp(handle) ? handle : undefined;
}

function isRawUdp(handle: unknown): handle is RawUdp & object {
  return typeof handle === 'object' && handle !== null && 'recvStart' in handle && 'recvStop' in handle;
}
