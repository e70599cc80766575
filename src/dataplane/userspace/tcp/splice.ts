import type { Socket } from 'node:net';
import type { Flow } from '../../../flow/flow.js';
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

/**
 * Joins two connected, paused sockets: bytes, back-pressure and FIN in both directions. Counts on the flow. Errors and
 * the closing of the sockets are their owner's business: a socket that was reset emits `error`, never a clean end.
 */
export class Splice {
  readonly #toBackend: OneWay;
  readonly #toClient: OneWay;
  readonly #onFin: () => void;

  /** `onFin` is called for each direction that has ended, when its FIN is passed on. */
  constructor(client: Socket, backend: Socket, flow: Flow, clock: Clock, onFin: () => void) {
    this.#onFin = onFin;
    this.#toBackend = new OneWay(client, backend, clock, flow, 'to-backend', () => this.#fin(this.#toClient));
    this.#toClient = new OneWay(backend, client, clock, flow, 'to-client', () => this.#fin(this.#toBackend));
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

  #fin(reverse: OneWay): void {
    reverse.readCarefully();
    this.#onFin();
  }
}

/** One direction. */
class OneWay {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #clock: Clock;
  readonly #flow: Flow;
  readonly #direction: 'to-backend' | 'to-client';
  readonly #onFin: () => void;
  #mode: 'flowing' | 'careful' | 'stopped' = 'flowing';
  /** The other side takes no more for now. */
  #held = false;
  #pullScheduled = false;

  constructor(
    from: Socket,
    to: Socket,
    clock: Clock,
    flow: Flow,
    direction: 'to-backend' | 'to-client',
    onFin: () => void,
  ) {
    this.#from = from;
    this.#to = to;
    this.#clock = clock;
    this.#flow = flow;
    this.#direction = direction;
    this.#onFin = onFin;
  }

  start(): void {
    this.#from.on('data', this.#forward);
    this.#from.on('end', this.#ended);
    this.#to.on('drain', this.#drained);
    this.#from.resume();
  }

  stop(): void {
    this.#mode = 'stopped';
    this.#from.off('data', this.#forward);
    this.#from.off('readable', this.#readable);
    this.#from.off('end', this.#ended);
    this.#to.off('drain', this.#drained);
    this.#from.pause();
  }

  /**
   * For a `from` that has been sent FIN. libuv reports data followed by RST in one poll as data and a clean end, unless
   * reading is stopped between the two; and once FIN has been sent there is no write left that could find the error out
   * (see #ended). So from here on nothing flows by itself: each chunk lands in the (one byte) buffer, which stops the
   * reading, and is fetched in a later turn of the event loop. The RST is then met by the next read.
   */
  readCarefully(): void {
    if (this.#mode !== 'flowing' || this.#from.readableEnded) return;
    this.#mode = 'careful';
    this.#from.off('data', this.#forward);
    this.#from.pause();
    this.#from.on('readable', this.#readable);
  }

  readonly #forward = (chunk: Buffer): void => {
    const flow = this.#flow;
    if (this.#direction === 'to-backend') {
      flow.bytesToBackend += chunk.length;
      flow.packetsToBackend++;
    } else {
      flow.bytesToClient += chunk.length;
      flow.packetsToClient++;
    }
    flow.lastActivityMs = this.#clock.monotonicMs();
    this.#to.write(chunk);
    if (this.#to.writableLength < BUFFER_LIMIT_BYTES) return;
    this.#held = true;
    if (this.#mode === 'flowing') this.#from.pause();
  };

  readonly #drained = (): void => {
    if (!this.#held) return;
    this.#held = false;
    this.#flow.lastActivityMs = this.#clock.monotonicMs();
    if (this.#mode === 'flowing') this.#from.resume();
    else if (this.#mode === 'careful') this.#schedulePull();
  };

  readonly #readable = (): void => {
    if (!this.#held) this.#schedulePull();
  };

  #schedulePull(): void {
    if (this.#pullScheduled) return;
    this.#pullScheduled = true;
    setImmediate(this.#pull);
  }

  readonly #pull = (): void => {
    this.#pullScheduled = false;
    while (this.#mode === 'careful' && !this.#held) {
      const chunk = this.#from.read() as Buffer | null;
      if (chunk === null) return;
      this.#forward(chunk);
    }
  };

  /**
   * The end may be a FIN, or an RST that libuv took for one (see readCarefully): writing nothing tells. On a connection
   * that was reset it fails, with ECONNRESET or EPIPE, and the socket emits `error`.
   */
  readonly #ended = (): void => {
    if (this.#from.writableEnded) this.#passFin();
    else this.#from.write(NOTHING, this.#judged);
  };

  readonly #judged = (error?: Error | null): void => {
    if (this.#mode !== 'stopped' && (error === undefined || error === null)) this.#passFin();
  };

  #passFin(): void {
    // Writing nothing first, for the same reason: if an RST has come in the meantime, this is the last write. Once
    // this side's own FIN has been passed on too, there is nobody left to tell of an RST.
    if (this.#to.readableEnded) this.#to.end();
    else this.#to.end(NOTHING);
    this.#onFin();
  }
}
