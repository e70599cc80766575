import type { PlaneEvent } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';

/** Events are handed on at least this often. */
const FLUSH_MS = 100;

/** A batch this full goes at once, so that memory stays bounded. */
const MOST_EVENTS = 1024;

/** Collects events and hands them on in batches. */
export class EventBatches {
  readonly #clock: Clock;
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  #batch: PlaneEvent[] = [];
  #cancel: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  push(event: PlaneEvent): void {
    this.#batch.push(event);
    if (this.#batch.length >= MOST_EVENTS) this.flush();
    else this.#cancel ??= this.#clock.setTimer(FLUSH_MS, () => this.flush(), { unref: true });
  }

  /** Hands on what is there now. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    for (const listener of this.#listeners) listener(batch);
  }
}
