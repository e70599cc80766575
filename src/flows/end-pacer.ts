import type { Clock } from '../runtime/clock.js';

/** Flows end in batches this far apart. */
const STEP_MS = 100;

export interface EndPacerOptions<T> {
  /**
   * Ends a batch of a backend; what is in it may be gone by then. The next batch waits until this has settled, and
   * takes in all that came due meanwhile. Must not reject.
   */
  endBatch(batch: readonly T[], backendId: string): void | Promise<void>;
  /** An unsigned number that follows from the item and is as good as random: the order in which items end. */
  rank(item: T): number;
  /** Called once when a backend's time is over and its last batch has ended. */
  onOver?(backendId: string): void;
}

/** What is to end on one drained backend. */
export interface Ending<T> {
  /** 0: at once. */
  readonly spreadMs: number;
  readonly items: readonly T[];
}

interface Due<T> {
  readonly item: T;
  readonly dueMs: number;
}

interface Schedule<T extends object> {
  readonly spreadMs: number;
  readonly untilMs: number;
  /** The next is the last. */
  queue: Due<T>[];
  /** Every item that was ever in the queue: what stays in spite of its end, as UDP that is to move, had its turn. */
  readonly known: WeakSet<T>;
  cancelTimer: () => void;
  /** A batch is on its way. */
  isEnding: boolean;
  isOver: boolean;
}

/**
 * Ends the flows of drained backends evenly over the time asked for, so that their clients do not all come back at once.
 * A late timer or a slow batch delays nothing for good: each batch holds all that is due.
 */
export class EndPacer<T extends object> {
  readonly #clock: Clock;
  readonly #options: EndPacerOptions<T>;
  readonly #schedules = new Map<string, Schedule<T>>();
  #stopped = false;

  constructor(clock: Clock, options: EndPacerOptions<T>) {
    this.#clock = clock;
    this.#options = options;
  }

  /**
   * What is to end, by backend id. A backend that was there before keeps its schedule and gets the items that are new;
   * one that is missing, or has another spread, has its schedule cancelled.
   */
  replace(endings: ReadonlyMap<string, Ending<T>>): void {
    for (const [id, schedule] of this.#schedules) {
      if (endings.get(id)?.spreadMs === schedule.spreadMs) continue;
      schedule.cancelTimer();
      this.#schedules.delete(id);
    }
    if (this.#stopped) return;
    for (const [id, { spreadMs, items }] of endings) {
      if (!this.#schedules.has(id)) this.#schedules.set(id, this.#newSchedule(spreadMs));
      this.add(id, items);
    }
  }

  /** More items of a backend, spread over the time that is left. Ignored where the backend has no schedule. */
  add(backendId: string, items: readonly T[]): void {
    const schedule = this.#schedules.get(backendId);
    if (schedule === undefined) return;
    const added = items.filter((item) => !schedule.known.has(item));
    for (const item of added) schedule.known.add(item);
    const nowMs = this.#clock.monotonicMs();
    const leftMs = Math.max(0, schedule.untilMs - nowMs);
    added.sort((a, b) => this.#options.rank(a) - this.#options.rank(b));
    const dues = added.map((item, index) => ({
      item,
      dueMs: nowMs + (leftMs * (index + 0.5)) / added.length,
    }));
    schedule.queue = [...schedule.queue, ...dues].sort((a, b) => b.dueMs - a.dueMs);
    this.#advance(backendId, schedule);
  }

  /** Cancels all schedules, for good. */
  stop(): void {
    this.#stopped = true;
    this.replace(new Map());
  }

  #newSchedule(spreadMs: number): Schedule<T> {
    return {
      spreadMs,
      untilMs: this.#clock.monotonicMs() + spreadMs,
      queue: [],
      known: new WeakSet(),
      cancelTimer: () => undefined,
      isEnding: false,
      isOver: false,
    };
  }

  #advance(backendId: string, schedule: Schedule<T>): void {
    if (schedule.isEnding || this.#schedules.get(backendId) !== schedule) return;
    schedule.cancelTimer();
    const { queue, untilMs } = schedule;
    const nowMs = this.#clock.monotonicMs();
    const batch: T[] = [];
    for (let due = queue.at(-1); due !== undefined && due.dueMs <= nowMs; due = queue.at(-1)) {
      batch.push(due.item);
      queue.pop();
    }
    const ending = batch.length === 0 ? undefined : this.#options.endBatch(batch, backendId);
    if (ending !== undefined) {
      schedule.isEnding = true;
      void ending.then(() => {
        schedule.isEnding = false;
        this.#advance(backendId, schedule);
      });
      return;
    }
    const next = queue.at(-1);
    if (next === undefined && nowMs >= untilMs) {
      if (!schedule.isOver) this.#options.onOver?.(backendId);
      schedule.isOver = true;
      return;
    }
    const delayMs = Math.max((next?.dueMs ?? untilMs) - nowMs, Math.min(STEP_MS, untilMs - nowMs));
    schedule.cancelTimer = this.#clock.setTimer(delayMs, () => this.#advance(backendId, schedule));
  }
}
