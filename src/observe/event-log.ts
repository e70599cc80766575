import type { AppliedReport, ControlEvent, PoolServingChanged } from '../model/control-events.js';
import type { PlaneEvent } from '../model/events.js';
import type { Clock } from '../runtime/clock.js';
import type { Logger } from '../runtime/logger.js';
import { logControlEvent } from './control-lines.js';
import { logKernelChanged } from './kernel-lines.js';
import { groupListenFailures } from './listen-failures.js';
import type { TrafficEntry } from './listening-words.js';
import { PassiveFailureLog } from './passive-failure-log.js';
import {
  logListeningChanged,
  logOverload,
  logSourcePortPressure,
  logTablePressure,
  logWorkerLost,
} from './plane-lines.js';

export interface EventLogDependencies {
  readonly logger: Logger;
  readonly clock: Clock;
}

export interface EventLogOptions {
  /** How often passive failures are summed up at info. @default 10000 */
  readonly summaryIntervalMs?: number;
  /** @default 'port-sockets' */
  readonly entry?: TrafficEntry;
}

/**
 * Turns facts into log lines. Each line has a stable `event` field to search for. Flow events are not logged here:
 * they belong in the flow log.
 */
export class EventLog {
  readonly #logger: Logger;
  readonly #entry: TrafficEntry;
  readonly #passiveFailures: PassiveFailureLog;
  /** Pool views that nobody serves, by `pool|probe`, so that a recovery can be told from a first serving. */
  readonly #downPools = new Set<string>();
  /** Of the last revision, as grouped for its line. */
  #listenFailures = '';

  constructor(deps: EventLogDependencies, options: EventLogOptions = {}) {
    this.#logger = deps.logger;
    this.#entry = options.entry ?? 'port-sockets';
    this.#passiveFailures = new PassiveFailureLog(deps, options.summaryIntervalMs ?? 10_000);
  }

  control(event: ControlEvent): void {
    logControlEvent(this.#logger, event, {
      poolWasDown: event.type === 'pool-serving-changed' && this.#wasDown(event),
      entry: this.#entry,
      failuresAreNew: event.type === 'applied' && this.#areNew(event.report.failures),
    });
  }

  plane(events: readonly PlaneEvent[]): void {
    for (const event of events) this.#planeEvent(event);
  }

  /** Writes what is still summed up. */
  stop(): void {
    this.#passiveFailures.stop();
  }

  #wasDown({ pool, probe, eligible }: PoolServingChanged): boolean {
    const key = `${pool}|${probe ?? ''}`;
    const wasDown = this.#downPools.has(key);
    if (eligible === 0) this.#downPools.add(key);
    else this.#downPools.delete(key);
    return wasDown;
  }

  /** Every revision brings the failures along; they are news once. */
  #areNew(failures: AppliedReport['failures']): boolean {
    const groups = JSON.stringify(groupListenFailures(failures));
    const areNew = groups !== this.#listenFailures;
    this.#listenFailures = groups;
    return areNew;
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
      case 'table-pressure':
        logTablePressure(this.#logger, event);
        break;
      case 'listening-changed':
        logListeningChanged(this.#logger, event, this.#entry);
        break;
      case 'kernel-changed':
        logKernelChanged(this.#logger, event);
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
