import type { Clock } from '../../../runtime/clock.js';

/** How long a backend that turned a flow away is passed over, unless it answers before. */
const ROUND_MS = 1000;

/**
 * Backends that turned traffic away, for a round of a second from the first. So each is tried, and told of, at most
 * once a second, and one that comes back is found again.
 */
export class FailedBackends {
  readonly #clock: Clock;
  readonly #ids = new Set<string>();
  #roundStartedMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Those of the present round. The set changes with time and `add`. */
  present(): ReadonlySet<string> {
    if (this.#ids.size > 0 && this.#clock.monotonicMs() - this.#roundStartedMs >= ROUND_MS) this.#ids.clear();
    return this.#ids;
  }

  /** False: it has failed in this round already. */
  add(backendId: string): boolean {
    const present = this.present();
    if (present.has(backendId)) return false;
    if (present.size === 0) this.#roundStartedMs = this.#clock.monotonicMs();
    this.#ids.add(backendId);
    return true;
  }
}
