import type { FeedEvent } from '../api/views.js';
import type { Clock } from '../runtime/clock.js';

/** Events as they happen, and the last ones again. */
export interface EventFeedSource {
  /** Remembered events with an id above this one, oldest first. */
  since(id: number): readonly FeedEvent[];
  /** Calls the listener with each event until the returned function is called. */
  subscribe(listener: (event: FeedEvent) => void): () => void;
}

export interface EventStreamsDependencies {
  readonly events: EventFeedSource;
  readonly clock: Clock;
}

export interface EventStreamsOptions {
  /** Interval of heartbeats. @default 15000 */
  readonly heartbeatMs?: number;
  /** Bytes that may be queued for one reader, besides the events that it asked for by `sinceId`. @default 262144 */
  readonly maxQueuedBytes?: number;
  /** At a time. @default 32 */
  readonly maxStreams?: number;
}

export interface EventStreamRequest {
  /** First sends the remembered events above this id; undefined: only what happens from now on. */
  readonly sinceId?: number;
  /** Ends the connection at once, with what is still queued. */
  readonly cut: () => void;
}

/** How long a browser is to wait before it reconnects. */
const RETRY_MS = 2000;

/**
 * Events as server-sent events (HTML Living Standard, 9.2). A reader that falls behind is cut off, so that what is
 * queued stays bounded; it reconnects with the id of the last event that it has seen. All streams end with `closeAll`.
 */
export class EventStreams {
  readonly #deps: EventStreamsDependencies;
  readonly #options: Required<EventStreamsOptions>;
  readonly #open = new Set<() => void>();

  constructor({ events, clock }: EventStreamsDependencies, options: EventStreamsOptions = {}) {
    this.#deps = { events, clock };
    this.#options = { heartbeatMs: 15_000, maxQueuedBytes: 262_144, maxStreams: 32, ...options };
  }

  get size(): number {
    return this.#open.size;
  }

  /** A stream of UTF-8 text. Undefined where too many are open. */
  open({ sinceId, cut }: EventStreamRequest): ReadableStream<Uint8Array> | undefined {
    const { heartbeatMs, maxQueuedBytes, maxStreams } = this.#options;
    if (this.#open.size >= maxStreams) return undefined;
    const { clock, events } = this.#deps;
    const missed = sinceId === undefined ? [] : events.since(sinceId);
    const opening = utf8(`retry: ${RETRY_MS}\n\n${missed.map(eventFrame).join('')}`);
    const highWaterMark = maxQueuedBytes + opening.byteLength;
    // Set when the stream starts, which it does at once.
    let forget = (): void => undefined;

    const start = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
      let sent = 0;
      let takenAtBeat = -1;
      let cancelBeat = (): void => undefined;
      const room = (): number => controller.desiredSize ?? 0;
      const end = (): void => {
        forget();
        controller.close();
      };
      const drop = (): void => {
        cut();
        end();
      };
      const send = (frame: Uint8Array): void => {
        if (frame.byteLength > room()) {
          drop();
          return;
        }
        sent += frame.byteLength;
        controller.enqueue(frame);
      };
      const waitForBeat = (): void => {
        cancelBeat = clock.setTimer(heartbeatMs, beat, { unref: true });
      };
      const beat = (): void => {
        const queued = highWaterMark - room();
        // The reader took nothing of what was queued for a whole interval.
        if (queued > 0 && sent - queued === takenAtBeat) {
          drop();
          return;
        }
        takenAtBeat = sent - queued;
        waitForBeat();
        send(utf8(': \n\n'));
      };
      send(opening);
      const unsubscribe = events.subscribe((event) => send(utf8(eventFrame(event))));
      waitForBeat();
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
