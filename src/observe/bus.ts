import type { FeedEvent } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';
import { plainFields } from './event-text.js';

export interface EventFeedOptions {
  /** Events remembered. @default 1000 */
  readonly capacity: number;
}

/**
 * What is logged, as events with an id, and a short memory of them. It hears everything from info upwards, whatever
 * level the log itself is written at.
 */
export class EventFeed {
  readonly #clock: Clock;
  readonly #capacity: number;
  readonly #listeners = new Set<(event: FeedEvent) => void>();
  /** Oldest first. Cut back now and then, to at most twice the capacity. */
  #events: FeedEvent[] = [];
  #nextId = 1;

  constructor(deps: { readonly clock: Clock }, options: EventFeedOptions = { capacity: 1000 }) {
    this.#clock = deps.clock;
    this.#capacity = options.capacity;
  }

  /** A logger that says everything on, and tells the feed of it. */
  wrap(logger: Logger): Logger {
    return {
      debug: (fields, message) => logger.debug(fields, message),
      info: (fields, message) => {
        logger.info(fields, message);
        this.#add('info', fields, message);
      },
      warn: (fields, message) => {
        logger.warn(fields, message);
        this.#add('warn', fields, message);
      },
      error: (fields, message) => {
        logger.error(fields, message);
        this.#add('error', fields, message);
      },
    };
  }

  /** Remembered events with an id above this one, oldest first. */
  since(id: number): readonly FeedEvent[] {
    return this.#events.slice(-this.#capacity).filter((event) => event.id > id);
  }

  /** Calls the listener with each event until the returned function is called. One that throws harms nobody. */
  subscribe(listener: (event: FeedEvent) => void): () => void {
    // Two subscribers may bring the same function.
    const own = (event: FeedEvent): void => listener(event);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  #add(level: FeedEvent['level'], logged: object, message: string): void {
    const { event: name, ...fields } = plainFields(logged);
    const type = typeof name === 'string' ? name : 'log';
    const event = { id: this.#nextId++, atMs: this.#clock.wallMs(), level, type, message, fields };
    this.#events.push(event);
    if (this.#events.length >= 2 * this.#capacity) this.#events = this.#events.slice(-this.#capacity);
    for (const listener of [...this.#listeners]) {
      try {
        listener(event);
      } catch {
        // The others, and whoever logs, must not suffer from it.
      }
    }
  }
}
