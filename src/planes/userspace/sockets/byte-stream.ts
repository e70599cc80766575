import type { IpAddress } from '../../../model/address.js';

/*
 * TCP as the userspace plane needs it. What is written against these interfaces runs on every adapter: node:net
 * (net.ts) is the reference, and tests have one in memory.
 */

/** Told what happens to a stream. Never called from within a call to that stream. */
export interface StreamHandler {
  /** Of a stream that was dialled: it is connected, and paused. */
  onConnect(stream: ByteStream): void;
  /** The chunk is the handler's to keep. Only while the stream is resumed. */
  onData(stream: ByteStream, chunk: Buffer): void;
  /** The peer has sent FIN, and certainly no RST. Only while the stream is resumed. */
  onEnd(stream: ByteStream): void;
  /** After a write that returned false, and after `notifyDrained`: nothing waits in this process any more. */
  onDrain(stream: ByteStream): void;
  /** The connection could not be made, was reset, or the kernel gave it up. */
  onError(stream: ByteStream, error: Error): void;
  /** The socket is closed, for whatever reason. Always the last call, and after `reset` and `destroy` the only one. */
  onClose(stream: ByteStream): void;
}

/** One TCP connection. Made paused. It is half-open capable: FIN of one direction leaves the other alone. */
export interface ByteStream {
  handler: StreamHandler;
  /** Bytes that were written and that the kernel has not taken yet. */
  readonly waitingBytes: number;

  /** Takes the chunk whole. False: so much waits by now that the caller should write no more until `onDrain`. */
  write(chunk: Uint8Array): boolean;
  /** Calls `onDrain` once nothing waits, for a caller that did not write last. */
  notifyDrained(): void;
  pause(): void;
  resume(): void;
  /** Sends FIN after what waits. */
  shutdown(): void;
  /** Sends RST and throws away what waits. A stream that is connecting is dropped. Idempotent. */
  reset(): void;
  /** Closes without RST where nothing is unread. Idempotent. */
  destroy(): void;

  setNoDelay(): void;
  /** Idle time before the first keep-alive, in milliseconds. */
  setKeepAlive(idleMs: number): void;
  /** As the system writes them; undefined where the connection is gone. Each call may cost a system call. */
  localEndpoint(): StreamEndpoint | undefined;
  remoteEndpoint(): StreamEndpoint | undefined;
}

export interface StreamEndpoint {
  readonly address: string;
  readonly port: number;
}

/** A local address and port that is the holder's alone until it is released. */
export interface LocalEnd {
  readonly address: IpAddress;
  readonly port: number;
  release(): void;
}

export interface DialOptions {
  readonly address: IpAddress;
  readonly port: number;
  /** Where to leave from; released when the socket is closed. @default the kernel chooses */
  readonly local?: LocalEnd | undefined;
  readonly noDelay: boolean;
  readonly keepAliveMs?: number | undefined;
}

export interface ListenOptions {
  readonly address: IpAddress;
  /** 0: one of the system's choice. */
  readonly port: number;
  /** The raw handle of a socket that listens already, of another process or listener. @default a new socket is bound */
  readonly inherited?: unknown;
}

export interface AcceptHandler {
  /** The stream is the receiver's; it is paused, and its handler is to be set at once. */
  onStream(stream: ByteStream): void;
  /** A connection could not be accepted for want of descriptors or memory. The socket keeps listening. */
  onAcceptError(error: Error): void;
}

/** A listening socket. */
export interface StreamListener {
  /** Node's own object under it, which another process may get; undefined where there is none. */
  rawHandle(): object | undefined;
  /** Idempotent. Accepted streams stay. */
  close(): void;
}

/** Makes TCP sockets. One for all flows of a worker. */
export interface StreamSockets {
  /** `handler` hears of it in a later turn of the event loop, never from within this call. */
  dial(options: DialOptions, handler: StreamHandler): ByteStream;
  /** Rejects with the system's error (`EADDRINUSE`, `EACCES`, ...). */
  listen(options: ListenOptions, handler: AcceptHandler): Promise<StreamListener>;
}
