import { connect, createServer, type Server, type Socket, type TcpNetConnectOpts } from 'node:net';
import { errorCode, errorMessage } from '../../../model/errors.js';
import type {
  AcceptHandler,
  ByteStream,
  DialOptions,
  ListenOptions,
  LocalEnd,
  StreamEndpoint,
  StreamHandler,
  StreamListener,
  StreamSockets,
} from './byte-stream.js';

/** A stream that has this much waiting takes no more before it has drained. */
const BUFFER_LIMIT_BYTES = 64 * 1024;

/**
 * Back-pressure is kept by our own limit. What a `highWaterMark` of one byte does is to make Node stop reading, inside
 * the very read, when no one takes the chunk at once (see NetStream.#readCarefully), and to have `drain` emitted after
 * every wait.
 */
const HIGH_WATER_MARK = 1;

/** Connections that may wait to be accepted; Linux takes the lower of this and net.core.somaxconn. */
const BACKLOG = 4096;

const SERVER = { allowHalfOpen: true, pauseOnConnect: true, highWaterMark: HIGH_WATER_MARK };

const NOTHING = new Uint8Array(0);

/** Where a socket finds its stream: listeners are shared functions, not closures for each connection. */
const STREAM = Symbol('stream');

type OwnedSocket = Socket & { [STREAM]?: NetStream };

/** The adapter over node:net. */
export class NetSockets implements StreamSockets {
  readonly #turn = new LoopTurn();

  dial(options: DialOptions, handler: StreamHandler): ByteStream {
    const { address, port, local, noDelay, keepAliveMs } = options;
    // Node hands what it does not know itself to the stream; its types leave highWaterMark out.
    const request: TcpNetConnectOpts & { readonly highWaterMark: number } = {
      localAddress: local?.address.text,
      localPort: local?.port,
      host: address.text,
      port,
      family: address.family,
      autoSelectFamily: false,
      allowHalfOpen: true,
      highWaterMark: HIGH_WATER_MARK,
      noDelay,
      keepAlive: keepAliveMs !== undefined,
      keepAliveInitialDelay: keepAliveMs,
    };
    const socket = connect(request);
    socket.on('connect', onConnect);
    return new NetStream(socket, this.#turn, handler, local);
  }

  async listen({ address, port, inherited }: ListenOptions, handler: AcceptHandler): Promise<StreamListener> {
    const server = createServer(SERVER);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', resolve);
      if (inherited !== undefined) listenRaw(server, inherited);
      else server.listen({ host: address.text, port, backlog: BACKLOG, ipv6Only: true });
    });
    server.removeAllListeners('error');
    // After `listening`, the only errors are failures to accept.
    server.on('error', (error) => handler.onAcceptError(error));
    server.on('connection', (socket) => handler.onStream(new NetStream(socket, this.#turn, UNHANDLED)));
    return {
      rawHandle: () => (server as Server & { readonly _handle?: object | null })._handle ?? undefined,
      close: () => {
        if (server.listening) server.close();
      },
    };
  }
}

/**
 * Listens on what came from another process. In a cluster worker `server.listen(handle)` would ask the cluster for a
 * socket instead; this is what it does everywhere else (lib/net.js: `_listen2`, which servers have had since Node 0.x).
 */
function listenRaw(server: Server, handle: unknown): void {
  const raw = server as unknown as {
    _handle: unknown;
    _listen2(address: null, port: number, addressType: number, backlog: number): void;
  };
  raw._handle = handle;
  raw._listen2(null, -1, -1, BACKLOG);
}

/** Of a stream that was just accepted. */
const UNHANDLED: StreamHandler = {
  onConnect: ignore,
  onData: ignore,
  onEnd: ignore,
  onDrain: ignore,
  onError: ignore,
  onClose: ignore,
};

/** One socket of node:net. */
class NetStream implements ByteStream {
  handler: StreamHandler;
  readonly #socket: Socket;
  readonly #turn: LoopTurn;
  readonly #local: LocalEnd | undefined;
  /** The turn of the event loop in which it last gave data. */
  #dataTurn = -1;
  #reading: 'not-begun' | 'flowing' | 'careful' = 'not-begun';
  #isPaused = true;
  #isPullScheduled = false;
  #awaitsDrain = false;
  /** The end came while it was paused: Node tells of it nevertheless. */
  #holdsEnd = false;
  /** By `reset` or `destroy`: the handler hears only of the close. */
  #isAbandoned = false;

  constructor(socket: OwnedSocket, turn: LoopTurn, handler: StreamHandler, local?: LocalEnd) {
    this.#socket = socket;
    this.#turn = turn;
    this.#local = local;
    this.handler = handler;
    socket[STREAM] = this;
    socket.on('error', onError);
    socket.on('close', onClose);
  }

  get waitingBytes(): number {
    return this.#socket.writableLength;
  }

  write(chunk: Uint8Array): boolean {
    this.#socket.write(chunk);
    if (this.#socket.writableLength < BUFFER_LIMIT_BYTES) return true;
    this.notifyDrained();
    return false;
  }

  notifyDrained(): void {
    if (this.#awaitsDrain) return;
    this.#awaitsDrain = true;
    // Listened to only while it matters: every write that has to wait for the kernel ends in one of these.
    this.#socket.on('drain', onDrain);
    this.#socket.on('finish', onDrain);
  }

  pause(): void {
    this.#isPaused = true;
    if (this.#reading === 'flowing') this.#socket.pause();
  }

  resume(): void {
    this.#isPaused = false;
    if (this.#holdsEnd) {
      this.#holdsEnd = false;
      process.nextTick(tellEnd, this);
      return;
    }
    if (this.#reading === 'careful') {
      this.#schedulePull();
      return;
    }
    if (this.#reading === 'not-begun') {
      this.#reading = 'flowing';
      this.#socket.on('data', onData);
      this.#socket.on('end', onEnd);
    }
    this.#socket.resume();
  }

  shutdown(): void {
    this.#socket.end();
    this.#readCarefully();
  }

  reset(): void {
    this.#isAbandoned = true;
    resetSocket(this.#socket);
  }

  destroy(): void {
    this.#isAbandoned = true;
    this.#socket.destroy();
  }

  setNoDelay(): void {
    this.#socket.setNoDelay(true);
  }

  setKeepAlive(idleMs: number): void {
    this.#socket.setKeepAlive(true, idleMs);
  }

  localEndpoint(): StreamEndpoint | undefined {
    return endpointOf(this.#socket.localAddress, this.#socket.localPort);
  }

  remoteEndpoint(): StreamEndpoint | undefined {
    return endpointOf(this.#socket.remoteAddress, this.#socket.remotePort);
  }

  // From here on, what its socket's listeners call.

  connected(): void {
    if (!this.#isAbandoned) this.handler.onConnect(this);
  }

  received(chunk: Buffer): void {
    if (this.#isAbandoned) return;
    this.#dataTurn = this.#turn.now();
    this.handler.onData(this, chunk);
  }

  /**
   * An end in the same poll as data may be a FIN, or an RST that libuv took for one (uv__stream_io calls a partial read
   * followed by a hang-up the end of the stream): writing nothing tells. On a connection that was reset it fails, with
   * ECONNRESET or EPIPE, and the socket emits `error`. An end in a poll of its own was read from the socket: it is FIN.
   */
  ended(): void {
    if (this.#socket.writableEnded || this.#dataTurn !== this.#turn.now()) this.tellEnd();
    else
      this.#socket.write(NOTHING, (error) => {
        if (error === undefined || error === null) this.tellEnd();
      });
  }

  drained(): void {
    this.#awaitsDrain = false;
    this.#socket.off('drain', onDrain);
    this.#socket.off('finish', onDrain);
    if (!this.#isAbandoned) this.handler.onDrain(this);
  }

  readable(): void {
    if (!this.#isPaused) this.#schedulePull();
  }

  pull(): void {
    this.#isPullScheduled = false;
    while (!this.#isPaused && !this.#isAbandoned) {
      const chunk = this.#socket.read() as Buffer | null;
      if (chunk === null) return;
      this.received(chunk);
    }
  }

  failed(error: Error): void {
    if (!this.#isAbandoned) this.handler.onError(this, error);
  }

  closed(): void {
    this.#local?.release();
    this.handler.onClose(this);
  }

  tellEnd(): void {
    if (this.#isPaused) this.#holdsEnd = true;
    else if (!this.#isAbandoned) this.handler.onEnd(this);
  }

  /**
   * For a socket that has been sent FIN. libuv reports data followed by RST in one poll as data and a clean end, unless
   * reading is stopped between the two; and once FIN has been sent there is no write left that could find the error out
   * (see `ended`). So from here on nothing flows by itself: each chunk lands in the (one byte) buffer, which stops the
   * reading, and is fetched in a later turn of the event loop. The RST is then met by the next read.
   */
  #readCarefully(): void {
    if (this.#reading !== 'flowing' || this.#socket.readableEnded) return;
    this.#reading = 'careful';
    this.#socket.off('data', onData);
    this.#socket.pause();
    this.#socket.on('readable', onReadable);
  }

  #schedulePull(): void {
    if (this.#isPullScheduled) return;
    this.#isPullScheduled = true;
    setImmediate(pull, this);
  }
}

function onConnect(this: OwnedSocket): void {
  this[STREAM]?.connected();
}

function onData(this: OwnedSocket, chunk: Buffer): void {
  this[STREAM]?.received(chunk);
}

function onEnd(this: OwnedSocket): void {
  this[STREAM]?.ended();
}

function onReadable(this: OwnedSocket): void {
  this[STREAM]?.readable();
}

function onDrain(this: OwnedSocket): void {
  this[STREAM]?.drained();
}

function onError(this: OwnedSocket, error: Error): void {
  this[STREAM]?.failed(error);
}

function onClose(this: OwnedSocket): void {
  this[STREAM]?.closed();
}

function tellEnd(stream: NetStream): void {
  stream.tellEnd();
}

function pull(stream: NetStream): void {
  stream.pull();
}

function ignore(): void {
  // No one is interested.
}

function endpointOf(address: string | undefined, port: number | undefined): StreamEndpoint | undefined {
  return address === undefined || port === undefined ? undefined : { address, port };
}

/**
 * Numbers the turns of the event loop, as far as anyone asks: what happens in one poll of libuv gets one number. Costs
 * one setImmediate for all who ask within a turn.
 */
class LoopTurn {
  #number = 0;
  #isScheduled = false;
  readonly #next = (): void => {
    this.#isScheduled = false;
    this.#number++;
  };

  /** The number of this turn. */
  now(): number {
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      setImmediate(this.#next);
    }
    return this.#number;
  }
}

/** Ends a connection with RST. One that is still connecting is dropped; one that is gone is left alone. */
function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting) {
    socket.destroy();
    return;
  }
  // While shutdown() waits for its turn in the event loop libuv refuses to reset (uv_tcp_close_reset, EINVAL), and Node
  // then loses the handle: the connection would stay for ever.
  const isShuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (isShuttingDown) socket.once('finish', () => resetSocket(socket));
  else socket.resetAndDestroy();
}

/**
 * Whether this process could listen on a TCP port: undefined, or why not (`EADDRINUSE`, `EACCES` ...). It listens for
 * less than a turn of the event loop and accepts no one: a client in that moment is refused as it was before.
 */
export function tryTcpPort(address: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error) => resolve(errorCode(error) ?? errorMessage(error)));
    server.once('listening', () => server.close(() => resolve(undefined)));
    server.listen({ host: address, port, backlog: 1, ipv6Only: true });
  });
}
