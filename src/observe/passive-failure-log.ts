import type { PassiveFailure } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';

interface Tally {
  count: number;
  evidence: string;
}

/**
 * Passive failures come as fast as clients do. Each is a debug line; the first of a quiet time is an info line at
 * once, the ones after it are summed up by backend, one info line a backend and interval.
 */
export class PassiveFailureLog {
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #intervalMs: number;
  /** A backend stays as long as its last interval had failures, so this is bounded by the backends there are. */
  readonly #tallies = new Map<string, Tally>();
  #cancelTimer: (() => void) | undefined;

  constructor(deps: { readonly logger: Logger; readonly clock: Clock }, intervalMs: number) {
    this.#logger = deps.logger;
    this.#clock = deps.clock;
    this.#intervalMs = intervalMs;
  }

  observe(failure: PassiveFailure): void {
    const { backendId, evidence } = failure;
    this.#logger.debug(
      { event: 'passive-failure', backendId, evidence },
      'Traffic could not reach a backend',
    );
    const tally = this.#tallies.get(backendId);
    if (tally === undefined) {
      this.#tallies.set(backendId, { count: 0, evidence });
      this.#logger.info(
        { event: 'passive-failures', backendId, evidence, count: 1 },
        `Traffic could not reach backend "${backendId}": ${evidence}`,
      );
    } else {
      tally.count++;
      tally.evidence = evidence;
    }
    this.#cancelTimer ??= this.#clock.setTimer(this.#intervalMs, () => this.#intervalOver(), { unref: true });
  }

  stop(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#summarise();
    this.#tallies.clear();
  }

  #intervalOver(): void {
    this.#cancelTimer = undefined;
    this.#summarise();
    if (this.#tallies.size === 0) return;
    this.#cancelTimer = this.#clock.setTimer(this.#intervalMs, () => this.#intervalOver(), { unref: true });
  }

  #summarise(): void {
    for (const [backendId, tally] of this.#tallies) {
      if (tally.count === 0) {
        this.#tallies.delete(backendId);
        continue;
      }
      const { count, evidence } = tally;
      tally.count = 0;
      this.#logger.info(
        { event: 'passive-failures', backendId, evidence, count, intervalMs: this.#intervalMs },
        `Traffic could not reach backend "${backendId}" ${count} more times, last: ${evidence}`,
      );
    }
  }
}
