/** What can lie on a wheel: the links are the wheel's own. */
export interface WheelEntry {
  wheelNext: WheelEntry | undefined;
  wheelPrevious: WheelEntry | undefined;
  /** -1: not on the wheel. */
  wheelSlot: number;
}

/** 512 ticks of half a second: due times up to four minutes ahead are filed exactly, longer ones in stages. */
const SLOTS = 512;

/** Accuracy of every idle timeout: it fires up to one tick late, never early. */
export const WHEEL_TICK_MS = 500;

/**
 * A coarse hashed timer wheel (Varghese and Lauck, SOSP 1987, scheme 6). Activity costs nothing here: an entry is
 * filed once, and only when its slot comes round is its due time asked for; if that has moved on, it is filed again.
 * Links run through the entries, so filing and cancelling allocate nothing.
 */
export class IdleWheel<T extends WheelEntry> {
  readonly #slots: (WheelEntry | undefined)[] = new Array<WheelEntry | undefined>(SLOTS).fill(undefined);
  readonly #dueMs: (entry: T) => number;
  #tick: number;
  #size = 0;

  /** `dueMs` gives the monotonic time at which an entry expires, as things stand when it is asked. */
  constructor(nowMs: number, dueMs: (entry: T) => number) {
    this.#tick = Math.floor(nowMs / WHEEL_TICK_MS);
    this.#dueMs = dueMs;
  }

  get size(): number {
    return this.#size;
  }

  /** Files an entry, or files it anew if its due time came nearer. */
  schedule(entry: T): void {
    this.cancel(entry);
    this.#file(entry);
  }

  cancel(entry: T): void {
    if (entry.wheelSlot < 0) return;
    if (entry.wheelPrevious === undefined) this.#slots[entry.wheelSlot] = entry.wheelNext;
    else entry.wheelPrevious.wheelNext = entry.wheelNext;
    if (entry.wheelNext !== undefined) entry.wheelNext.wheelPrevious = entry.wheelPrevious;
    entry.wheelNext = undefined;
    entry.wheelPrevious = undefined;
    entry.wheelSlot = -1;
    this.#size--;
  }

  /** Takes off all that is due at nowMs, calling `onDue` for each once it is off the wheel. */
  advance(nowMs: number, onDue: (entry: T) => void): void {
    const nowTick = Math.floor(nowMs / WHEEL_TICK_MS);
    // After a long stop of the process one turn visits every slot; more turns would find the same.
    const firstTick = Math.max(this.#tick + 1, nowTick - SLOTS + 1);
    for (let tick = firstTick; tick <= nowTick; tick++) {
      const slot = tick % SLOTS;
      let next = this.#slots[slot];
      this.#slots[slot] = undefined;
      this.#tick = tick;
      // The list is cut off first, so that what is filed again into this slot is not met twice.
      const due: T[] = [];
      while (next !== undefined) {
        const entry = next as T;
        next = entry.wheelNext;
        entry.wheelNext = undefined;
        entry.wheelPrevious = undefined;
        entry.wheelSlot = -1;
        this.#size--;
        if (this.#dueMs(entry) <= nowMs) due.push(entry);
        else this.#file(entry);
      }
      for (const entry of due) onDue(entry);
    }
    this.#tick = Math.max(this.#tick, nowTick);
  }

  #file(entry: T): void {
    // Rounded up, and at least the next tick, so that nothing fires early.
    const dueTick = Math.ceil(this.#dueMs(entry) / WHEEL_TICK_MS);
    const tick = Math.min(Math.max(dueTick, this.#tick + 1), this.#tick + SLOTS - 1);
    const slot = tick % SLOTS;
    const head = this.#slots[slot];
    entry.wheelSlot = slot;
    entry.wheelNext = head;
    if (head !== undefined) head.wheelPrevious = entry;
    this.#slots[slot] = entry;
    this.#size++;
  }
}
