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
