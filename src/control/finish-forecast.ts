/** Readings kept; the oldest is what the rate is measured from. */
const READINGS = 240;

interface Reading {
  readonly atMs: number;
  readonly flows: number;
}

/**
 * Predicts when a population that gets no newcomers will be gone, from how it has shrunk. Flows that finish at random,
 * each alike (an exponential lifetime), leave N(t) = N0 * e^(-rt): the rate comes from the readings, and the last one
 * is expected to go when N has fallen to a half.
 */
export class FinishForecast {
  #readings: Reading[];

  constructor(flows: number, atMs: number) {
    this.#readings = [{ atMs, flows }];
  }

  observe(flows: number, atMs: number): void {
    this.#readings = [...this.#readings, { atMs, flows }].slice(-READINGS);
  }

  /** 0 when nobody is left; undefined while nobody has finished. */
  finishInMs(nowMs: number): number | undefined {
    const first = this.#readings[0];
    const last = this.#readings.at(-1);
    if (first === undefined || last === undefined) return undefined;
    if (last.flows === 0) return 0;
    const elapsedMs = last.atMs - first.atMs;
    if (elapsedMs <= 0 || last.flows >= first.flows) return undefined;
    const ratePerMs = Math.log(first.flows / last.flows) / elapsedMs;
    return Math.max(0, Math.log(2 * last.flows) / ratePerMs - (nowMs - last.atMs));
  }
}
