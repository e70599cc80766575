import { percentile } from '../statistics.js';

/** Longest sleep between looks at the sockets: what the generator adds to a latency at most, and the timer's slack. */
const NAP_MS = 0.1;

/**
 * Calls something at a fixed rate with the moment at which each call was due, late or not: an open loop without
 * coordinated omission. Between calls it naps for a tenth of a millisecond at most; timers of an event loop are ten
 * times as coarse, and spinning would take the core from the backends on it.
 */
export class Schedule {
  readonly #everyMs: number;
  readonly #total: number;
  readonly #lags: Float64Array;
  readonly #cell = new Int32Array(new SharedArrayBuffer(4));

  constructor(perSecond: number, total: number) {
    this.#everyMs = 1000 / perSecond;
    this.#total = total;
    this.#lags = new Float64Array(total);
  }

  /** Resolves when `done` says so, at the latest `giveUpMs` after the last call was due. */
  run(call: (number: number, dueMs: number) => void, done: () => boolean, giveUpMs: number): Promise<void> {
    const startMs = performance.now() + 50;
    const endMs = startMs + this.#total * this.#everyMs + giveUpMs;
    let next = 0;
    return new Promise((resolve, reject) => {
      const turn = (): void => {
        try {
          const nowMs = performance.now();
          for (let dueMs = startMs + next * this.#everyMs; dueMs <= nowMs && next < this.#total;) {
            this.#lags[next] = nowMs - dueMs;
            call(next, dueMs);
            next++;
            dueMs = startMs + next * this.#everyMs;
          }
          if (done() || nowMs > endMs) {
            resolve();
            return;
          }
          const waitMs = next < this.#total ? startMs + next * this.#everyMs - performance.now() : NAP_MS;
          if (waitMs > NAP_MS / 4) Atomics.wait(this.#cell, 0, 0, Math.min(waitMs, NAP_MS));
          setImmediate(turn);
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      };
      turn();
    });
  }

  lagP99Ms(): number {
    return percentile(this.#lags.slice().sort(), 0.99);
  }
}
