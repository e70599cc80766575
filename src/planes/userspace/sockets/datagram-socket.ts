import type { IpAddress } from '../../../model/address.js';

/*
 * UDP as the userspace plane needs it: see byte-stream.ts for what such an interface is for.
 */

/** Where a datagram comes from, as the system writes it. */
export interface DatagramSource {
  readonly address: string;
  readonly port: number;
}

/** Told what happens to a socket. */
export interface DatagramHandler {
  /** The datagram is the handler's to keep. */
  onDatagram(datagram: Buffer, from: DatagramSource): void;
  /** A receive failed. On a connected socket that is how ICMP is heard of. The socket stays usable. */
  onReceiveError(error: NodeJS.ErrnoException): void;
  /** A datagram that was sent did not leave this machine. */
  onSendError(error: NodeJS.ErrnoException): void;
}

/** One UDP socket, bound to a local address. It reads from the start. */
export interface DatagramSocket {
  handler: DatagramHandler;
  readonly port: number;

  /**
   * Connects before it returns: the peer's address as the system writes it, undefined if no route leads there. What came
   * in before may be from others.
   */
  connect(address: IpAddress, port: number): string | undefined;
  /** To the peer that it is connected to. False: too much waits already, and it was not taken. */
  send(datagram: Buffer): boolean;
  /** As send, of a socket that is not connected. */
  sendTo(datagram: Buffer, address: string, port: number): boolean;
  /** Leaves what arrives in the kernel until `resumeReading`. */
  pauseReading(): void;
  resumeReading(): void;
  /** Node's own object under it, which another process may get; undefined where there is none. */
  rawHandle(): object | undefined;
  /** The handler hears nothing after it. Not twice. */
  close(): void;
}

export interface BindOptions {
  readonly address: IpAddress;
  /** 0: one of the system's choice. */
  readonly port: number;
  /** `shared`: many connected sockets can have one local port (SO_REUSEADDR). */
  readonly use: 'exclusive' | 'shared';
  /** The raw handle of a socket that is bound already, of another process. @default a new socket is bound */
  readonly inherited?: unknown;
  /** The kernel gives at most net.core.rmem_max. @default what the kernel gives by itself */
  readonly receiveBufferBytes?: number | undefined;
}

/** Makes UDP sockets. One for all flows of a worker. */
export interface DatagramSockets {
  /** Binds before it returns; the system's error where that failed. */
  bind(options: BindOptions, handler: DatagramHandler): DatagramSocket | NodeJS.ErrnoException;
}

/** For a socket whose handler is not there yet, or that no one listens to. */
export const DEAF: DatagramHandler = {
  onDatagram: () => undefined,
  onReceiveError: () => undefined,
  onSendError: () => undefined,
};
