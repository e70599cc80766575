import { monitorEventLoopDelay, type IntervalHistogram } from 'node:perf_hooks';
import type { Clock } from '../../runtime/clock.js';

const WINDOW_MS = 15_000;
const NANOSECONDS = 1e9;

/** How often the loop is asked to come by, in milliseconds. The histogram holds the whole time between two visits. */
const VISIT_MS = 20;

type LoopHistogram = Pick<IntervalHistogram, 'enable' | 'disable' | 'reset' | 'max'>;

/** How late this process's event loop runs: the worst of the present window and the one before, whoever asks how often. */
export class LoopDelay {
  readonly #clock: Clock;
  readonly #histogram: LoopHistogram;
  #previousWorst = 0;
  #cancel: () => void = () => undefined;

  constructor(clock: Clock, histogram: LoopHistogram = monitorEventLoopDelay({ resolution: VISIT_MS })) {
    this.#clock = clock;
    this.#histogram = histogram;
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
    const betweenVisits = Math.max(this.#previousWorst, this.#histogram.max) / NANOSECONDS;
    return Math.max(0, betweenVisits - VISIT_MS / 1000);
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
