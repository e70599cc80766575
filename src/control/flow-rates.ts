import type { FlowRecord } from '../model/flow.js';
import type { Clock } from '../runtime/clock.js';

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

  /** Call before flows are looked at: makes room, and sees to it that nothing is kept for nobody. */
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
