import { EventBatches } from '../../flow/event-batches.js';
import type { DropReason, PlaneEvent } from '../../model/events.js';
import type { Clock } from '../../runtime/clock.js';

/** An overload has ended when its reason has not come up for this long. */
const OVERLOAD_QUIET_MS = 1000;

/** Reasons that mean a budget was hit, rather than that somebody sent what is not wanted. */
const OVERLOAD_REASONS: ReadonlySet<DropReason> = new Set<DropReason>([
  'table-full',
  'embryonic-full',
  'source-cap',
  'backends-full',
  'descriptors-exhausted',
  'ports-exhausted',
]);

/** Collects a worker's events and hands them on in batches; turns repeated drops into overload started / ended. */
export class EventQueue {
  readonly #clock: Clock;
  readonly #batches: EventBatches;
  readonly #overloads = new Map<DropReason, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#batches = new EventBatches(clock);
  }

  subscribe(listener: (events: readonly PlaneEvent[]) => void): () => void {
    return this.#batches.subscribe(listener);
  }

  push(event: PlaneEvent): void {
    this.#batches.push(event);
  }

  /** Notes a drop; the first of an overload reason starts an overload. */
  dropped(reason: DropReason): void {
    if (!OVERLOAD_REASONS.has(reason)) return;
    const known = this.#overloads.has(reason);
    this.#overloads.set(reason, this.#clock.monotonicMs());
    if (!known) this.push({ type: 'overload', atMs: this.#clock.wallMs(), phase: 'started', reason });
  }

  /** Ends overloads that have been quiet; called with every tick of the idle wheel. */
  tick(): void {
    for (const [reason, lastMs] of this.#overloads) {
      if (this.#clock.monotonicMs() - lastMs < OVERLOAD_QUIET_MS) continue;
      this.#overloads.delete(reason);
      this.push({ type: 'overload', atMs: this.#clock.wallMs(), phase: 'ended', reason });
    }
  }

  /** Hands on what is there now. */
  flush(): void {
    this.#batches.flush();
  }
}
