import type { Socket } from 'node:net';
import type { Flow } from '../../../flows/flow.js';
import type { Clock } from '../../../runtime/clock.js';

/** A side whose peer takes no more has this much waiting before the other side is no longer read. Each way. */
const BUFFER_LIMIT_BYTES = 64 * 1024;

/**
 * Sockets under a splice must be made with this `highWaterMark`. Splices keep back-pressure by their own limit; what
 * this does is to make Node stop reading, inside the very read, when nobody takes the chunk at once (see
 * OneWay.readCarefully), and to have `drain` emitted after every wait.
 */
export const SPLICE_HIGH_WATER_MARK = 1;

const NOTHING = new Uint8Array(0);

/** Where a socket finds the directions it is part of: listeners are shared functions, not closures for each flow. */
const READ_BY = Symbol('readBy');
const WRITTEN_BY = Symbol('writtenBy');

type SplicedSocket = Socket & { [READ_BY]?: OneWay; [WRITTEN_BY]?: OneWay };

export interface SpliceDeps {
  readonly clock: Clock;
  /** One for all splices of a worker. */
  readonly turn: LoopTurn;
}

export interface SpliceOwner {
  /** A direction has ended, and its FIN has been passed on. */
  finPassed(): void;
}

/**
 * Joins two connected, paused sockets: bytes, back-pressure and FIN in both directions. Counts on the flow. Errors and
 * the closing of the sockets are their owner's business: a socket that was reset emits `error`, never a clean end.
 */
export class Splice {
  readonly #toBackend: OneWay;
  readonly #toClient: OneWay;
  readonly #owner: SpliceOwner;

  constructor(client: Socket, backend: Socket, flow: Flow, deps: SpliceDeps, owner: SpliceOwner) {
    this.#owner = owner;
    this.#toBackend = new OneWay(this, client, backend, deps, flow, 'to-backend');
    this.#toClient = new OneWay(this, backend, client, deps, flow, 'to-client');
  }

  start(): void {
    this.#toBackend.start();
    this.#toClient.start();
  }

  /** Moves nothing any more. The sockets stay as they are. */
  stop(): void {
    this.#toBackend.stop();
    this.#toClient.stop();
  }

  /** A direction has passed its FIN on. */
  ended(direction: OneWay): void {
    const reverse = direction === this.#toBackend ? this.#toClient : this.#toBackend;
    reverse.readCarefully();
    this.#owner.finPassed();
  }
}

/** One direction. */
class OneWay {
  readonly #splice: Splice;
  readonly #from: SplicedSocket;
  readonly #to: SplicedSocket;
  readonly #deps: SpliceDeps;
  readonly #flow: Flow;
  readonly #direction: 'to-backend' | 'to-client';
  /** The turn of the event loop in which `from` last gave data. */
  #dataTurn = -1;
  #mode: 'flowing' | 'careful' | 'stopped' = 'flowing';
  /** The other side takes no more for now. */
  #held = false;
  #pullScheduled = false;

  constructor(
    splice: Splice,
    from: Socket,
    to: Socket,
    deps: SpliceDeps,
    flow: Flow,
    direction: 'to-backend' | 'to-client',
  ) {
    this.#splice = splice;
    this.#from = from;
    this.#to = to;
    this.#deps = deps;
    this.#flow = flow;
    this.#direction = direction;
  }

  start(): void {
    this.#from[READ_BY] = this;
    this.#to[WRITTEN_BY] = this;
    this.#from.on('data', onData);
    this.#from.on('end', onEnd);
    this.#from.resume();
  }

  stop(): void {
    this.#mode = 'stopped';
    this.#from.off('data', onData);
    this.#from.off('readable', onReadable);
    this.#from.off('end', onEnd);
    this.#to.off('drain', onDrain);
    this.#from.pause();
  }

  /**
   * For a `from` that has been sent FIN. libuv reports data followed by RST in one poll as data and a clean end, unless
   * reading is stopped between the two; and once FIN has been sent there is no write left that could find the error out
   * (see fromEnded). So from here on nothing flows by itself: each chunk lands in the (one byte) buffer, which stops the
   * reading, and is fetched in a later turn of the event loop. The RST is then met by the next read.
   */
  readCarefully(): void {
    if (this.#mode !== 'flowing' || this.#from.readableEnded) return;
    this.#mode = 'careful';
    this.#from.off('data', onData);
    this.#from.pause();
    this.#from.on('readable', onReadable);
  }

  forward(chunk: Buffer): void {
    const flow = this.#flow;
    if (this.#direction === 'to-backend') {
      flow.bytesToBackend += chunk.length;
      flow.packetsToBackend++;
    } else {
      flow.bytesToClient += chunk.length;
      flow.packetsToClient++;
    }
    flow.lastActivityMs = this.#deps.clock.monotonicMs();
    this.#dataTurn = this.#deps.turn.now();
    this.#to.write(chunk);
    if (this.#to.writableLength < BUFFER_LIMIT_BYTES) return;
    this.#held = true;
    // Listened to only while it matters: every write that has to wait for the kernel ends in a `drain`.
    this.#to.on('drain', onDrain);
    if (this.#mode === 'flowing') this.#from.pause();
  }

  toDrained(): void {
    this.#held = false;
    this.#to.off('drain', onDrain);
    this.#flow.lastActivityMs = this.#deps.clock.monotonicMs();
    if (this.#mode === 'flowing') this.#from.resume();
    else if (this.#mode === 'careful') this.#schedulePull();
  }

  fromReadable(): void {
    if (!this.#held) this.#schedulePull();
  }

  /**
   * An end in the same poll as data may be a FIN, or an RST that libuv took for one (uv__stream_io calls a partial read
   * followed by a hang-up the end of the stream): writing nothing tells. On a connection that was reset it fails, with
   * ECONNRESET or EPIPE, and the socket emits `error`. An end in a poll of its own was read from the socket: it is FIN.
   */
  fromEnded(): void {
    if (this.#from.writableEnded || this.#dataTurn !== this.#deps.turn.now()) this.#passFin();
    else this.#from.write(NOTHING, (error) => this.#judged(error));
  }

  #schedulePull(): void {
    if (this.#pullScheduled) return;
    this.#pullScheduled = true;
    setImmediate(pull, this);
  }

  pull(): void {
    this.#pullScheduled = false;
    while (this.#mode === 'careful' && !this.#held) {
      const chunk = this.#from.read() as Buffer | null;
      if (chunk === null) return;
      this.forward(chunk);
    }
  }

  #judged(error: Error | null | undefined): void {
    if (this.#mode !== 'stopped' && (error === undefined || error === null)) this.#passFin();
  }

  #passFin(): void {
    this.#to.end();
    this.#splice.ended(this);
  }
}

function onData(this: SplicedSocket, chunk: Buffer): void {
  this[READ_BY]?.forward(chunk);
}

function onEnd(this: SplicedSocket): void {
  this[READ_BY]?.fromEnded();
}

function onReadable(this: SplicedSocket): void {
  this[READ_BY]?.fromReadable();
}

function onDrain(this: SplicedSocket): void {
  this[WRITTEN_BY]?.toDrained();
}

function pull(direction: OneWay): void {
  direction.pull();
}

/** How long what the other side sent before its RST may take to leave this process. */
const FLUSH_MS = 2_000;

/** Once it has left: a moment in which the kernel can send it, for a reset throws away what it still holds. */
const KERNEL_MS = 20;

/**
 * Waits until what was written to a socket that is about to be reset is on its way: bounded, and not longer than it
 * takes. Nothing more is read from it. Calls `done` once, unless the returned function cancels first.
 */
export function flushBeforeReset(socket: Socket, clock: Clock, done: () => void): () => void {
  let cancelTimer = clock.setTimer(FLUSH_MS, finish);

  function cancel(): void {
    cancelTimer();
    socket.off('drain', onFlushed);
    socket.off('finish', onFlushed);
  }
  function finish(): void {
    cancel();
    done();
  }
  function onFlushed(): void {
    cancel();
    cancelTimer = clock.setTimer(KERNEL_MS, finish);
  }

  socket.pause();
  if (socket.writableLength === 0) {
    onFlushed();
  } else {
    socket.on('drain', onFlushed);
    socket.on('finish', onFlushed);
  }
  return cancel;
}

/**
 * Numbers the turns of the event loop, as far as anybody asks: what happens in one poll of libuv gets one number. Costs
 * one setImmediate for all who ask within a turn.
 */
export class LoopTurn {
  #number = 0;
  #scheduled = false;
  readonly #next = (): void => {
    this.#scheduled = false;
    this.#number++;
  };

  /** The number of this turn. */
  now(): number {
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#next);
    }
    return this.#number;
  }
}

/** Ends a connection with RST. One that is still connecting is dropped; one that is gone is left alone. */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting) {
    socket.destroy();
    return;
  }
  // While shutdown() waits for its turn in the event loop libuv refuses to reset (uv_tcp_close_reset, EINVAL), and Node
  // then loses the handle: the connection would stay for ever.
  const shuttingDown = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (shuttingDown) socket.once('finish', () => resetSocket(socket));
  else socket.resetAndDestroy();
}
