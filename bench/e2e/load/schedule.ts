import { percentile } from '../statistics.js';

/** Sleep between looks at clock and sockets. With the timer's slack of 0.05 ms it is what a latency is rounded to. */
const NAP_MS = 0.1;

/**
 * Calls something at a fixed rate with the moment at which each call was due, late or not: an open loop without
 * coordinated omission. Between turns it naps for a tenth of a millisecond; timers of an event loop are ten times as
 * coarse, and spinning would take the core from the backends on it.
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
          Atomics.wait(this.#cell, 0, 0, NAP_MS);
          setImmediate(turn);
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      };
      turn();
    });
  }

  /** 99th percentile of how late calls were, those before the `from`-th left out. */
  lagP99Ms(from: number): number {
    return percentile(this.#lags.slice(from).sort(), 0.99);
  }
}
