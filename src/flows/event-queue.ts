import type { DropReason, PlaneEvent } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';

/** Events are handed on at least this often. */
const FLUSH_MS = 100;

/** A batch this full goes at once, so that memory stays bounded. */
const MOST_EVENTS = 1024;

/** An overload has ended when its reason has not come up for this long. */
const OVERLOAD_QUIET_MS = 1000;

/** Reasons that mean a budget was hit, rather than that someone sent what is not wanted. */
const OVERLOAD_REASONS: ReadonlySet<DropReason> = new Set<DropReason>([
  'table-full',
  'embryonic-full',
  'source-cap',
  'backends-full',
  'descriptors-exhausted',
  'ports-exhausted',
]);

/** Collects a plane's events and hands them on in batches; turns repeated drops into overload started / ended. */
export class EventQueue {
  readonly #clock: Clock;
  readonly #listeners = new Set<(events: readonly PlaneEvent[]) => void>();
  readonly #overloads = new Map<DropReason, number>();
  #batch: PlaneEvent[] = [];
  #cancelFlush: (() => void) | undefined;

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
    else this.#cancelFlush ??= this.#clock.setTimer(FLUSH_MS, () => this.flush(), { unref: true });
  }

  /** Hands on what is there now. */
  flush(): void {
    this.#cancelFlush?.();
    this.#cancelFlush = undefined;
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    for (const listener of this.#listeners) listener(batch);
  }

  /** Notes a drop; the first of an overload reason starts an overload. */
  dropped(reason: DropReason): void {
    if (!OVERLOAD_REASONS.has(reason)) return;
    const isKnown = this.#overloads.has(reason);
    this.#overloads.set(reason, this.#clock.monotonicMs());
    if (!isKnown) this.push({ type: 'overload', atMs: this.#clock.wallMs(), phase: 'started', reason });
  }

  /** Ends overloads that have been quiet; to be called about twice a second. */
  tick(): void {
    for (const [reason, lastMs] of this.#overloads) {
      if (this.#clock.monotonicMs() - lastMs < OVERLOAD_QUIET_MS) continue;
      this.#overloads.delete(reason);
      this.push({ type: 'overload', atMs: this.#clock.wallMs(), phase: 'ended', reason });
    }
  }
}
