import type { Clock } from '../../src/runtime/clock.js';

interface Pending {
  readonly dueMs: number;
  readonly callback: () => void;
}

/** A clock that only moves when told. Timers due at the same time fire in the order they were set. */
export class FakeClock implements Clock {
  #nowMs = 0;
  #pending: Pending[] = [];
  /** Added to wallMs only: a jump of the machine's clock. */
  wallOffsetMs = 1_700_000_000_000;

  wallMs(): number {
    return this.#nowMs + this.wallOffsetMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  setTimer(delayMs: number, callback: () => void): () => void {
    const entry: Pending = { dueMs: this.#nowMs + Math.max(0, delayMs), callback };
    this.#pending.push(entry);
    return () => {
      this.#pending = this.#pending.filter((other) => other !== entry);
    };
  }

  get pendingTimers(): number {
    return this.#pending.length;
  }

  /** Moves time on, firing what falls due, in order of due time. */
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      let next: Pending | undefined;
      for (const entry of this.#pending) {
        if (entry.dueMs <= untilMs && (next === undefined || entry.dueMs < next.dueMs)) next = entry;
      }
      if (next === undefined) break;
      const due = next;
      this.#pending = this.#pending.filter((entry) => entry !== due);
      this.#nowMs = due.dueMs;
      due.callback();
    }
    // A callback may have moved time further.
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  /** As advance, letting promise callbacks run between steps of stepMs. */
  async advanceAsync(byMs: number, stepMs = byMs): Promise<void> {
    for (let doneMs = 0; doneMs < byMs; doneMs += stepMs) {
      this.advance(Math.min(stepMs, byMs - doneMs));
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
