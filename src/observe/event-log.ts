import type { ControlEvent } from '../model/control-events.js';
import type { PlaneEvent } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';
import { logControlEvent } from './control-lines.js';
import { PassiveFailureLog } from './passive-failure-log.js';
import { logOverload, logSourcePortPressure, logWorkerLost } from './plane-lines.js';

export interface EventLogDependencies {
  readonly logger: Logger;
  readonly clock: Clock;
}

export interface EventLogOptions {
  /** How often passive failures are summed up at info. @default 10000 */
  readonly summaryIntervalMs: number;
}

/**
 * Turns facts into log lines. Each line has a stable `event` field to search for. Flow events are not logged here:
 * they belong in the flow log.
 */
export class EventLog {
  readonly #logger: Logger;
  readonly #passiveFailures: PassiveFailureLog;
  /** Pool views that nobody serves, by `pool|probe`, so that a recovery can be told from a first serving. */
  readonly #downPools = new Set<string>();

  constructor(deps: EventLogDependencies, options: EventLogOptions = { summaryIntervalMs: 10_000 }) {
    this.#logger = deps.logger;
    this.#passiveFailures = new PassiveFailureLog(deps, options.summaryIntervalMs);
  }

  control(event: ControlEvent): void {
    if (event.type === 'pool-serving-changed') {
      const key = `${event.pool}|${event.probe ?? ''}`;
      const wasDown = this.#downPools.has(key);
      if (event.eligible === 0) this.#downPools.add(key);
      else this.#downPools.delete(key);
      logControlEvent(this.#logger, event, { poolWasDown: wasDown });
      return;
    }
    logControlEvent(this.#logger, event, { poolWasDown: false });
  }

  plane(events: readonly PlaneEvent[]): void {
    for (const event of events) this.#planeEvent(event);
  }

  /** Writes what is still summed up. */
  stop(): void {
    this.#passiveFailures.stop();
  }

  #planeEvent(event: PlaneEvent): void {
    switch (event.type) {
      case 'passive-failure':
        this.#passiveFailures.observe(event);
        break;
      case 'overload':
        logOverload(this.#logger, event);
        break;
      case 'source-port-pressure':
        logSourcePortPressure(this.#logger, event);
        break;
      case 'worker-lost':
        logWorkerLost(this.#logger, event);
        break;
      case 'flow-started':
      case 'flow-ended':
      case 'flow-moved':
        break;
    }
  }
}
