import { monitorEventLoopDelay, type IntervalHistogram } from 'node:perf_hooks';
import type { Clock } from '../../runtime/clock.js';
import type { LatencyHistogram } from '../contract.js';

/** Half a millisecond (same rack) to five seconds (the default connect timeout). */
const BOUNDS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

interface Tally {
  readonly counts: number[];
  count: number;
  sumSeconds: number;
}

/** Time from the first connect attempt of a TCP flow to its upstream being connected, by backend. */
export class ConnectLatency {
  readonly #tallies = new Map<string, Tally>();

  observe(backendId: string, seconds: number): void {
    let tally = this.#tallies.get(backendId);
    if (tally === undefined) {
      tally = { counts: BOUNDS_SECONDS.map(() => 0), count: 0, sumSeconds: 0 };
      this.#tallies.set(backendId, tally);
    }
    tally.count++;
    tally.sumSeconds += seconds;
    const bucket = BOUNDS_SECONDS.findIndex((bound) => seconds <= bound);
    if (bucket >= 0) tally.counts[bucket] = (tally.counts[bucket] ?? 0) + 1;
  }

  snapshot(): Record<string, LatencyHistogram> {
    const histograms: Record<string, LatencyHistogram> = {};
    for (const [backendId, { counts, count, sumSeconds }] of this.#tallies) {
      let below = 0;
      const cumulative = counts.map((inBucket) => (below += inBucket));
      histograms[backendId] = { boundsSeconds: BOUNDS_SECONDS, counts: cumulative, count, sumSeconds };
    }
    return histograms;
  }
}

const WINDOW_MS = 15_000;
const NANOSECONDS = 1e9;

/** How often the loop is asked to come by, in milliseconds. The histogram holds the whole time between two visits. */
const VISIT_MS = 20;

type LoopHistogram = Pick<IntervalHistogram, 'enable' | 'disable' | 'reset' | 'max'>;

/** How late this process's event loop runs: the worst of the present window and the one before, however often it is read. */
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
