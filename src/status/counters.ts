import type { TrafficView } from '../api/views.js';
import type { FlowRecord } from '../model/flow.js';
import type { DataPlane, PlaneCounters, TrafficCounters } from '../planes/contract.js';
import { inTime, type Clock } from '../runtime/clock.js';

/** Between two regular samples. */
const INTERVAL_MS = 1000;

/** How long `fresh` waits for the plane. */
const ANSWER_MS = 1000;

export interface CounterSample {
  /** Monotonic: when the plane answered. */
  readonly atMs: number;
  readonly counters: PlaneCounters;
}

/** What views are made from. */
export interface ViewSamples {
  /** Absent: the plane has not answered yet. */
  readonly latest?: CounterSample | undefined;
  /** Earlier: rates are measured from it. Absent: none yet that is old enough. */
  readonly previous?: CounterSample | undefined;
}

interface Reading {
  readonly begunAtMs: number;
  readonly sample: Promise<CounterSample>;
}

/**
 * Reads the plane's counters at regular intervals, for rates and for subscribers. One read is under way at a
 * time: a slow one stands for those that fall due meanwhile, and a failed one is left out.
 */
export class CounterSampler {
  readonly #clock: Clock;
  readonly #plane: Pick<DataPlane, 'counters'>;
  readonly #listeners = new Set<(sample: CounterSample) => void>();
  #latest: CounterSample | undefined;
  #previous: CounterSample | undefined;
  #reading: Reading | undefined;
  /** The last read that was answered. */
  #newest: { readonly begunAtMs: number; readonly sample: CounterSample } | undefined;
  #sampling = false;
  #cancel: (() => void) | undefined;

  constructor({ clock, plane }: { readonly clock: Clock; readonly plane: Pick<DataPlane, 'counters'> }) {
    this.#clock = clock;
    this.#plane = plane;
  }

  /** The last regular sample. */
  get latest(): CounterSample | undefined {
    return this.#latest;
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
  async samples(maxAgeMs: number): Promise<ViewSamples> {
    const latest = await this.fresh(maxAgeMs);
    // Over too short a time a rate says little.
    const previous = [this.#latest, this.#previous].find(
      (sample) => sample !== undefined && latest.atMs - sample.atMs >= INTERVAL_MS / 4,
    );
    return { latest, previous };
  }

  #tick(): void {
    this.#cancel = this.#clock.setTimer(INTERVAL_MS, () => this.#tick(), { unref: true });
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

/** Flows remembered; of more, those met first. */
const REMEMBERED = 100_000;

/** What was last seen so long ago is forgotten. */
const FORGET_MS = 30_000;

/** Over a shorter time a rate says little: who looks that often gets the last one again. */
const SHORTEST_MS = 250;

interface Sighting {
  readonly atMs: number;
  readonly bytes: number;
  readonly bitsPerSecond?: number;
}

/** Rates of single flows, from what they had carried when they were looked at before. */
export class FlowRates {
  readonly #clock: Clock;
  /** By flow id; those seen longest ago come first. */
  readonly #sightings = new Map<number, Sighting>();
  #cancelForget: () => void = () => undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Call before flows are looked at: makes room, and drops what belongs to no flow. */
  begin(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [id, { atMs }] of this.#sightings) {
      if (nowMs - atMs < FORGET_MS) break;
      this.#sightings.delete(id);
    }
    this.#cancelForget();
    this.#cancelForget = this.#clock.setTimer(FORGET_MS, () => this.#sightings.clear(), { unref: true });
  }

  /** Bits a second, both directions, since the flow was last looked at; undefined: not known yet. */
  look(flow: Pick<FlowRecord, 'id' | 'idleMs' | 'bytesToBackend' | 'bytesToClient'>): number | undefined {
    const before = this.#sightings.get(flow.id);
    // A flow that has been silent all the time needs no memory.
    if (flow.idleMs >= FORGET_MS) {
      this.#sightings.delete(flow.id);
      return 0;
    }
    const atMs = this.#clock.monotonicMs();
    const bytes = flow.bytesToBackend + flow.bytesToClient;
    if (before === undefined) {
      if (this.#sightings.size < REMEMBERED) this.#sightings.set(flow.id, { atMs, bytes });
      return undefined;
    }
    const elapsedMs = atMs - before.atMs;
    if (elapsedMs < SHORTEST_MS) return before.bitsPerSecond;
    const bitsPerSecond = (Math.max(0, bytes - before.bytes) * 8000) / elapsedMs;
    this.#sightings.delete(flow.id);
    this.#sightings.set(flow.id, { atMs, bytes, bitsPerSecond });
    return bitsPerSecond;
  }

  get size(): number {
    return this.#sightings.size;
  }
}

const NO_TOTALS = {
  flowsActive: 0,
  flowsOpened: 0,
  bytesToBackend: 0,
  bytesToClient: 0,
  connectFailures: 0,
  resets: 0,
};

type Totals = typeof NO_TOTALS;

const SUMMED = Object.keys(NO_TOTALS) as (keyof Totals)[];

/** Of something that has had no flow yet. */
export const NO_TRAFFIC: TrafficView = {
  ...NO_TOTALS,
  newFlowsPerSecond: 0,
  bitsToBackendPerSecond: 0,
  bitsToClientPerSecond: 0,
};

/** Of a row of counters, what it is counted under; undefined: it is left out. */
type TrafficKey = (row: TrafficCounters) => string | undefined;

/**
 * Traffic by key. Rates are 0 where there is nothing to measure them from, and where totals fell because a worker's
 * were lost: never negative.
 */
export function trafficBy(
  { latest, previous }: ViewSamples,
  keyOf: TrafficKey,
): ReadonlyMap<string, TrafficView> {
  if (latest === undefined) return new Map();
  const before = previous === undefined ? undefined : totalsBy(previous.counters, keyOf);
  const seconds = previous === undefined ? 0 : (latest.atMs - previous.atMs) / 1000;
  return new Map(
    [...totalsBy(latest.counters, keyOf)].map(([key, totals]) => [
      key,
      trafficView(totals, before?.get(key), seconds),
    ]),
  );
}

/** All traffic in one. */
export function wholeTraffic(samples: ViewSamples): TrafficView {
  return trafficBy(samples, () => 'all').get('all') ?? NO_TRAFFIC;
}

function trafficView(now: Totals, before: Totals | undefined, seconds: number): TrafficView {
  const rate = (key: keyof Totals): number =>
    before === undefined || seconds <= 0 ? 0 : Math.max(0, now[key] - before[key]) / seconds;
  return {
    ...now,
    newFlowsPerSecond: rate('flowsOpened'),
    bitsToBackendPerSecond: 8 * rate('bytesToBackend'),
    bitsToClientPerSecond: 8 * rate('bytesToClient'),
  };
}

function totalsBy({ traffic }: PlaneCounters, keyOf: TrafficKey): Map<string, Totals> {
  const sums = new Map<string, Totals>();
  for (const row of traffic) {
    const key = keyOf(row);
    if (key === undefined) continue;
    const sum = sums.get(key) ?? { ...NO_TOTALS };
    sums.set(key, sum);
    for (const field of SUMMED) sum[field] += row[field];
  }
  return sums;
}
