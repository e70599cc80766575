import { createSocket, type Socket, type SocketOptions } from 'node:dgram';
import type { IpAddress } from '../../../model/address.js';

/*
 * All addresses here are literals. Node looks them up nevertheless, for bind and connect, and for every datagram sent
 * on a socket that is not connected. A look-up that answers at once makes all three synchronous.
 */
const answerAtOnce: Readonly<Record<4 | 6, NonNullable<SocketOptions['lookup']>>> = {
  4: (hostname, _options, callback) => callback(null, hostname, 4),
  6: (hostname, _options, callback) => callback(null, hostname, 6),
};

/** `shared`: SO_REUSEADDR, so that many connected sockets can have one local port. */
export type PortUse = 'exclusive' | 'shared';

/** An unbound socket for literal addresses of one family only. Whoever asks for it closes it. */
export function createDatagramSocket(family: 4 | 6, portUse: PortUse): Socket {
  return createSocket({
    type: family === 4 ? 'udp4' : 'udp6',
    ipv6Only: family === 6,
    reuseAddr: portUse === 'shared',
    lookup: answerAtOnce[family],
  });
}

/** Binds before it returns; the system's error where that failed. Port 0: one of the system's choice. */
export function bindNow(socket: Socket, address: IpAddress, port: number): NodeJS.ErrnoException | undefined {
  let failure: NodeJS.ErrnoException | undefined;
  const onError = (error: Error): void => {
    failure = error;
  };
  socket.on('error', onError);
  socket.bind({ address: address.text, port, exclusive: true });
  socket.off('error', onError);
  return failure;
}

/** Connects a bound socket before it returns: the peer's address as the system writes it, undefined if it failed. */
export function connectNow(socket: Socket, address: IpAddress, port: number): string | undefined {
  socket.connect(port, address.text);
  try {
    const peer = socket.remoteAddress().address;
    // The same text is not kept twice.
    return peer === address.text ? address.text : peer;
  } catch {
    // It is emitted as well, later.
    socket.on('error', ignore);
    return undefined;
  }
}

function ignore(): void {
  // Its caller was told already.
}
