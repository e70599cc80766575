import type { Clock } from '../../../runtime/clock.js';

/** Nobody who watches needs it more often. */
const LEAST_INTERVAL_MS = 1000;

/** Of its time, the share that reading may take: a large table is read less often. */
const MOST_SHARE = 1 / 20;

/** Reads something that takes time: one reading at a time, and not again before the last one is old. */
export class Refresh {
  readonly #clock: Clock;
  readonly #read: () => Promise<boolean>;
  #reading: Promise<boolean> | undefined;
  /** One that has yet to begin: for whom the one under way has begun too early. */
  #next: Promise<boolean> | undefined;
  #dueAtMs = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | undefined;
  #stopped = false;

  /** `read` tells whether it succeeded, and does not reject. */
  constructor(clock: Clock, read: () => Promise<boolean>) {
    this.#clock = clock;
    this.#read = read;
  }

  /** Resolves when what is known is a second old, or a little more where reading takes long. */
  async soon(): Promise<void> {
    if (this.#stopped) return;
    if (this.#reading !== undefined) await this.#reading;
    else if (this.#clock.monotonicMs() >= this.#dueAtMs) await this.#begin();
  }

  /** Reads anew, whatever is known. */
  now(): Promise<boolean> {
    if (this.#stopped) return Promise.resolve(false);
    if (this.#reading === undefined) return this.#begin();
    this.#next ??= this.#reading.then(() => {
      this.#next = undefined;
      return this.#stopped ? false : this.#begin();
    });
    return this.#next;
  }

  /** What is known is wrong: reads anew, but not more often than for whoever asks. Resolves at once. */
  outdated(): void {
    if (this.#stopped || this.#cancel !== undefined) return;
    const waitMs = Math.max(0, this.#dueAtMs - this.#clock.monotonicMs());
    const read = (): void => {
      this.#cancel = undefined;
      void this.now();
    };
    this.#cancel = this.#clock.setTimer(waitMs, read, { unref: true });
  }

  /** The one under way ends; no other begins. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  #begin(): Promise<boolean> {
    const begunAtMs = this.#clock.monotonicMs();
    this.#reading = this.#read().finally(() => {
      this.#reading = undefined;
      const tookMs = this.#clock.monotonicMs() - begunAtMs;
      this.#dueAtMs = begunAtMs + Math.max(LEAST_INTERVAL_MS, tookMs / MOST_SHARE);
    });
    return this.#reading;
  }
}
