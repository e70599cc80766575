import type { Backend, Configuration } from '../model/configuration.js';
import type { ForwardingState } from '../model/forwarding.js';
import type { Clock } from '../runtime/clock.js';

/** A ramp has so many steps: each is a revision, and a table to build. */
const STEPS = 10;

/**
 * Slow start: a backend that joins others who serve already gets a tenth of its weight, and a tenth more with each
 * tenth of its pool's `slowStart`. There is no ramp at the start of the process, nor where no other backend serves.
 */
export class SlowStart {
  readonly #clock: Clock;
  readonly #onStep: () => void;
  /** Backend id -> when it joined (monotonic). */
  readonly #joinedAtMs = new Map<string, number>();
  #pools = new Map<string, number>();
  #cancel: () => void = () => undefined;

  /** `onStep`: some backend's percentage has changed. */
  constructor(clock: Clock, onStep: () => void) {
    this.#clock = clock;
    this.#onStep = onStep;
  }

  /** 10 to 100, in tens. */
  percent({ id }: Pick<Backend, 'id'>): number {
    const joinedAtMs = this.#joinedAtMs.get(id);
    const durationMs = this.#durationOf(id);
    if (joinedAtMs === undefined || durationMs === undefined) return 100;
    const step = Math.floor(((this.#clock.monotonicMs() - joinedAtMs) / durationMs) * STEPS) + 1;
    return Math.min(100, step * (100 / STEPS));
  }

  /**
   * Compares what is to be served with what is served. True: a backend joined, so the state must be compiled again,
   * with the percentages of now.
   */
  observe(before: ForwardingState | undefined, after: ForwardingState): boolean {
    this.#pools = slowStarts(after.configuration);
    if (before === undefined || this.#pools.size === 0) return false;
    const served = servingIds(before);
    const serving = servingIds(after);
    for (const id of this.#joinedAtMs.keys()) if (!serving.has(id)) this.#joinedAtMs.delete(id);
    let joined = false;
    for (const id of serving) {
      if (served.has(id) || this.#joinedAtMs.has(id) || this.#durationOf(id) === undefined) continue;
      if (![...served].some((other) => poolOf(other) === poolOf(id) && serving.has(other))) continue;
      this.#joinedAtMs.set(id, this.#clock.monotonicMs());
      joined = true;
    }
    this.#schedule();
    return joined;
  }

  stop(): void {
    this.#cancel();
  }

  #schedule(): void {
    this.#cancel();
    let delayMs = Infinity;
    for (const [id, joinedAtMs] of this.#joinedAtMs) {
      const stepMs = (this.#durationOf(id) ?? 0) / STEPS;
      const elapsedMs = this.#clock.monotonicMs() - joinedAtMs;
      if (stepMs === 0 || elapsedMs >= stepMs * (STEPS - 1)) this.#joinedAtMs.delete(id);
      else delayMs = Math.min(delayMs, stepMs - (elapsedMs % stepMs));
    }
    if (delayMs === Infinity) return;
    this.#cancel = this.#clock.setTimer(delayMs, () => {
      this.#onStep();
      this.#schedule();
    });
  }

  #durationOf(id: string): number | undefined {
    return this.#pools.get(poolOf(id));
  }
}

function slowStarts({ backendPools }: Configuration): Map<string, number> {
  return new Map(
    backendPools.flatMap(({ name, slowStartMs }) => (slowStartMs === undefined ? [] : [[name, slowStartMs]])),
  );
}

function servingIds({ views }: ForwardingState): ReadonlySet<string> {
  return new Set(
    views.flatMap(({ backends }) =>
      backends.filter(({ serving }) => serving).map(({ backend }) => backend.id),
    ),
  );
}

/** An identity is `pool/address`, and no name of a pool has a slash. */
function poolOf(id: string): string {
  return id.slice(0, id.indexOf('/'));
}
