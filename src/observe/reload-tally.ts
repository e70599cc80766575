import type { ControlEvent } from '../model/control-events.js';
import type { Clock } from '../runtime/clock.js';

/** How taking over configurations has gone since the start of the process. */
export interface ReloadStats {
  readonly succeeded: number;
  readonly failed: number;
  /** Wall clock: when the last one ended, the one at the start included; absent: none yet. */
  readonly lastAtMs?: number;
  /** How the last one ended. */
  readonly lastSucceeded: boolean;
}

/** Counts reloads by what the control plane tells. The configuration at the start counts as the first to succeed. */
export class ReloadTally {
  readonly #clock: Clock;
  #stats: ReloadStats = { succeeded: 0, failed: 0, lastSucceeded: true };

  constructor(deps: { readonly clock: Clock }) {
    this.#clock = deps.clock;
  }

  get stats(): ReloadStats {
    return this.#stats;
  }

  control(event: ControlEvent): void {
    const { succeeded, failed } = this.#stats;
    const lastAtMs = this.#clock.wallMs();
    if (event.type === 'config-loaded') {
      this.#stats = { ...this.#stats, lastAtMs, lastSucceeded: true };
    } else if (event.type === 'reloaded') {
      this.#stats = { succeeded: succeeded + 1, failed, lastAtMs, lastSucceeded: true };
    } else if (event.type === 'reload-failed') {
      this.#stats = { succeeded, failed: failed + 1, lastAtMs, lastSucceeded: false };
    }
  }
}
