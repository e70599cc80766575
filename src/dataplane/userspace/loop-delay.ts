import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Clock } from '../../runtime/clock.js';

const WINDOW_MS = 15_000;
const NANOSECONDS = 1e9;

/** How late this process's event loop runs: the worst of the present window and the one before, whoever asks how often. */
export class LoopDelay {
  readonly #clock: Clock;
  readonly #histogram = monitorEventLoopDelay({ resolution: 20 });
  #previousWorst = 0;
  #cancel: () => void = () => undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  start(): void {
    this.#histogram.enable();
    this.#nextWindow();
  }

  stop(): void {
    this.#cancel();
    this.#histogram.disable();
  }

  worstSeconds(): number {
    return Math.max(this.#previousWorst, this.#histogram.max) / NANOSECONDS;
  }

  #nextWindow(): void {
    this.#cancel = this.#clock.setTimer(
      WINDOW_MS,
      () => {
        this.#previousWorst = this.#histogram.max;
        this.#histogram.reset();
        this.#nextWindow();
      },
      { unref: true },
    );
  }
}
