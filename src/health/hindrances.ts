import type { LocalCause, ProbeResult } from '../model/configuration.js';
import type { EventOf } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';

/** A cause is over once no probe has met it for so long: shortages come and go from one probe to the next. */
const QUIET_MS = 5000;

interface Hindrance {
  /** Probe targets whose last result it is. */
  readonly targets: Set<string>;
  /** Probes since it began. */
  probes: number;
  cancelEnd: () => void;
}

/**
 * Tells when probes cannot leave this machine, and when they can again: once for each cause, however many probes it
 * hinders. It is over when every target it hindered has been asked, or is probed no more, and five seconds have passed.
 */
export class Hindrances {
  readonly #deps: {
    readonly clock: Clock;
    readonly onEvent: (event: EventOf<'probes-hindered'>) => void;
  };
  readonly #hindrances = new Map<LocalCause, Hindrance>();

  constructor(deps: {
    readonly clock: Clock;
    readonly onEvent: (event: EventOf<'probes-hindered'>) => void;
  }) {
    this.#deps = deps;
  }

  /** Takes a probe's result; `target` is its probe key. */
  observe(target: string, { inconclusive, evidence }: ProbeResult): void {
    for (const [cause, hindrance] of this.#hindrances) {
      if (cause !== inconclusive) this.#freed(cause, hindrance, target);
    }
    if (inconclusive === undefined) return;
    let hindrance = this.#hindrances.get(inconclusive);
    if (hindrance === undefined) {
      hindrance = { targets: new Set(), probes: 0, cancelEnd: () => undefined };
      this.#hindrances.set(inconclusive, hindrance);
      this.#deps.onEvent({ type: 'probes-hindered', phase: 'started', cause: inconclusive, evidence });
    }
    hindrance.cancelEnd();
    hindrance.targets.add(target);
    hindrance.probes++;
  }

  /** Targets other than these are probed no more. */
  keep(targets: ReadonlySet<string>): void {
    for (const [cause, hindrance] of this.#hindrances) {
      for (const target of hindrance.targets) {
        if (!targets.has(target)) this.#freed(cause, hindrance, target);
      }
    }
  }

  /** Ends all hindrances without an event. */
  stop(): void {
    for (const { cancelEnd } of this.#hindrances.values()) cancelEnd();
    this.#hindrances.clear();
  }

  #freed(cause: LocalCause, hindrance: Hindrance, target: string): void {
    if (!hindrance.targets.delete(target) || hindrance.targets.size > 0) return;
    const end = (): void => {
      this.#hindrances.delete(cause);
      const { probes } = hindrance;
      this.#deps.onEvent({ type: 'probes-hindered', phase: 'ended', cause, probes });
    };
    hindrance.cancelEnd = this.#deps.clock.setTimer(QUIET_MS, end, { unref: true });
  }
}
