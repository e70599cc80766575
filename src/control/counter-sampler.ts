import type { DataPlane, PlaneCounters } from '../dataplane/data-plane.js';
import type { Clock } from '../runtime/clock.js';
import { inTime } from './in-time.js';

/** How long `fresh` waits for the plane. */
const ANSWER_MS = 1000;

export interface CounterSample {
  /** Monotonic: when the plane answered. */
  readonly atMs: number;
  readonly counters: PlaneCounters;
}

/** A sample, and an earlier one to measure rates from. */
export interface CounterSamples {
  readonly latest: CounterSample;
  /** Absent: none yet that is old enough. */
  readonly previous?: CounterSample;
}

interface Reading {
  readonly begunAtMs: number;
  readonly sample: Promise<CounterSample>;
}

/**
 * Reads the plane's counters at regular intervals, for rates and for whoever watches them. One read is under way at a
 * time: a slow one stands for those that fall due meanwhile, and a failed one is left out.
 */
export class CounterSampler {
  readonly #clock: Clock;
  readonly #plane: Pick<DataPlane, 'counters'>;
  readonly #intervalMs: number;
  readonly #listeners = new Set<(sample: CounterSample) => void>();
  #latest: CounterSample | undefined;
  #previous: CounterSample | undefined;
  #reading: Reading | undefined;
  /** The last read that was answered, whoever asked for it. */
  #newest: { readonly begunAtMs: number; readonly sample: CounterSample } | undefined;
  #sampling = false;
  #cancel: (() => void) | undefined;

  /** `intervalMs` is 1000 by default. */
  constructor(
    deps: { readonly clock: Clock; readonly plane: Pick<DataPlane, 'counters'> },
    options: { readonly intervalMs?: number } = {},
  ) {
    this.#clock = deps.clock;
    this.#plane = deps.plane;
    this.#intervalMs = options.intervalMs ?? 1000;
  }

  /** The last regular sample. */
  get latest(): CounterSample | undefined {
    return this.#latest;
  }

  /** The regular sample before that. */
  get previous(): CounterSample | undefined {
    return this.#previous;
  }

  /** Takes the first sample now. Idempotent. Does not keep the process alive. */
  start(): void {
    if (this.#cancel === undefined) this.#tick();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Calls the listener after each regular sample until the returned function is called. */
  subscribe(listener: (sample: CounterSample) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Counters not older than this, read anew if need be. Rejects where the plane fails, or does not answer in a second. */
  async fresh(maxAgeMs: number): Promise<CounterSample> {
    const notBeforeMs = this.#clock.monotonicMs() - maxAgeMs;
    if (this.#newest !== undefined && this.#newest.begunAtMs >= notBeforeMs) return this.#newest.sample;
    return inTime(this.#readSince(notBeforeMs), ANSWER_MS, this.#clock);
  }

  /** As fresh, with an earlier sample for rates. */
  async samples(maxAgeMs: number): Promise<CounterSamples> {
    const latest = await this.fresh(maxAgeMs);
    // Over too short a time a rate says little.
    const previous = [this.#latest, this.#previous].find(
      (sample) => sample !== undefined && latest.atMs - sample.atMs >= this.#intervalMs / 4,
    );
    return { latest, ...(previous === undefined ? {} : { previous }) };
  }

  #tick(): void {
    this.#cancel = this.#clock.setTimer(this.#intervalMs, () => this.#tick(), { unref: true });
    if (!this.#sampling) void this.#sample();
  }

  async #sample(): Promise<void> {
    this.#sampling = true;
    // A worker that is being replaced has no answer now; the next sample has.
    const sample = await (this.#reading ?? this.#begin()).sample.catch(() => undefined);
    this.#sampling = false;
    if (sample === undefined || this.#cancel === undefined) return;
    this.#previous = this.#latest;
    this.#latest = sample;
    for (const listener of this.#listeners) listener(sample);
  }

  async #readSince(notBeforeMs: number): Promise<CounterSample> {
    const early = this.#reading;
    if (early !== undefined && early.begunAtMs < notBeforeMs) await early.sample.catch(() => undefined);
    return (this.#reading ?? this.#begin()).sample;
  }

  #begin(): Reading {
    const begunAtMs = this.#clock.monotonicMs();
    this.#reading = { begunAtMs, sample: this.#read(begunAtMs) };
    return this.#reading;
  }

  async #read(begunAtMs: number): Promise<CounterSample> {
    try {
      const counters = await this.#plane.counters();
      const sample = { atMs: this.#clock.monotonicMs(), counters };
      this.#newest = { begunAtMs, sample };
      return sample;
    } finally {
      this.#reading = undefined;
    }
  }
}
