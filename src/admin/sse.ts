import type { FeedEvent } from '../api/views.js';
import type { Clock } from '../runtime/clock.js';

/** Events as they happen, with a short memory. */
export interface EventFeedSource {
  /** Remembered events with an id above this one, oldest first. */
  since(id: number): readonly FeedEvent[];
  /** Calls the listener with each event until the returned function is called. */
  subscribe(listener: (event: FeedEvent) => void): () => void;
}

export interface EventStreamsDependencies {
  readonly feed: EventFeedSource;
  readonly clock: Clock;
}

export interface EventStreamsOptions {
  /** Between two signs of life. @default 15000 */
  readonly heartbeatMs?: number;
  /** What may wait for one reader, besides what it asked to be told again. @default 262144 */
  readonly maxQueuedBytes?: number;
  /** At a time. @default 32 */
  readonly maxStreams?: number;
}

export interface EventStreamRequest {
  /** Tells events above this id first; undefined: only what happens from now on. */
  readonly sinceId?: number;
  /** Ends the connection, whatever is still to be sent. */
  readonly cut: () => void;
}

/** Told to the browser: how long to wait before it connects again. */
const RETRY_MS = 2000;

/**
 * Events as server-sent events (HTML Living Standard, 9.2). A reader that falls behind is cut off, never buffered for
 * without end; it comes back with the id of the last event that it has seen. All streams end with `closeAll`.
 */
export class EventStreams {
  readonly #deps: EventStreamsDependencies;
  readonly #heartbeatMs: number;
  readonly #maxQueuedBytes: number;
  readonly #maxStreams: number;
  readonly #open = new Set<() => void>();

  constructor(deps: EventStreamsDependencies, options: EventStreamsOptions = {}) {
    this.#deps = deps;
    this.#heartbeatMs = options.heartbeatMs ?? 15_000;
    this.#maxQueuedBytes = options.maxQueuedBytes ?? 262_144;
    this.#maxStreams = options.maxStreams ?? 32;
  }

  get size(): number {
    return this.#open.size;
  }

  /** A stream of UTF-8 text. Undefined where too many are open. */
  open({ sinceId, cut }: EventStreamRequest): ReadableStream<Uint8Array> | undefined {
    if (this.#open.size >= this.#maxStreams) return undefined;
    const { clock, feed } = this.#deps;
    const again = sinceId === undefined ? [] : feed.since(sinceId);
    const opening = utf8(`retry: ${RETRY_MS}\n\n${again.map(eventFrame).join('')}`);
    const highWaterMark = this.#maxQueuedBytes + opening.byteLength;
    // Set when the stream starts, which it does at once.
    let forget = (): void => undefined;

    const start = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
      let sent = 0;
      let takenAtBeat = -1;
      let cancelBeat = (): void => undefined;
      const room = (): number => controller.desiredSize ?? 0;
      const enqueue = (frame: Uint8Array): void => {
        sent += frame.byteLength;
        controller.enqueue(frame);
      };
      const end = (): void => {
        forget();
        controller.close();
      };
      const drop = (): void => {
        cut();
        end();
      };
      const send = (frame: Uint8Array): void => {
        if (frame.byteLength > room()) drop();
        else enqueue(frame);
      };
      const beat = (): void => {
        const waiting = highWaterMark - room();
        const taken = sent - waiting;
        // A whole interval, and nothing of what is waiting was taken.
        if (waiting > 0 && taken === takenAtBeat) {
          drop();
          return;
        }
        takenAtBeat = taken;
        cancelBeat = clock.setTimer(this.#heartbeatMs, beat, { unref: true });
        send(utf8(': \n\n'));
      };
      enqueue(opening);
      const unsubscribe = feed.subscribe((event) => send(utf8(eventFrame(event))));
      cancelBeat = clock.setTimer(this.#heartbeatMs, beat, { unref: true });
      this.#open.add(end);
      forget = () => {
        this.#open.delete(end);
        unsubscribe();
        cancelBeat();
      };
    };
    return new ReadableStream<Uint8Array>(
      { start, cancel: () => forget() },
      new ByteLengthQueuingStrategy({ highWaterMark }),
    );
  }

  /** Ends every stream after what is queued. */
  closeAll(): void {
    for (const end of this.#open) end();
  }
}

function eventFrame(event: FeedEvent): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
