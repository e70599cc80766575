import type { HealthEvent, PlaneEvent } from '../model/events.js';
import type { ForwardingState } from '../model/forwarding.js';
import type { Clock } from '../runtime/clock.js';
import { AlarmBook, type Monitor, type MonitorSample } from './alerts.js';
import { AzureHealthEvents } from './azure.js';
import { ProbeTruthMonitor } from './probe-truth.js';
import { SkewAdvisor } from './skew.js';

export interface MonitorsDeps {
  readonly clock: Clock;
  /** Told of every alarm that is raised, told again or resolved. */
  readonly onEvent: (event: HealthEvent) => void;
}

/** A data plane that gives no sample for so long counts as not answering, and again every second from then on. */
const SILENCE_MS = 3000;
const SILENT_SAMPLE_MS = 1000;

/**
 * All monitors together: feed them a sample of the counters about once a second, and the plane's events. They watch
 * and tell, and change nothing.
 */
export class Monitors {
  readonly #clock: Clock;
  readonly #book: AlarmBook;
  readonly #azure = new AzureHealthEvents();
  readonly #monitors: readonly Monitor[];
  #cancel: () => void = () => undefined;

  constructor(deps: MonitorsDeps) {
    this.#clock = deps.clock;
    this.#book = new AlarmBook(deps);
    this.#monitors = [this.#azure, new ProbeTruthMonitor(), new SkewAdvisor()];
  }

  /** The last event of each alarm that is raised. */
  get active(): readonly HealthEvent[] {
    return this.#book.active();
  }

  /** `state` is what the data plane had when the sample was taken. */
  observe(sample: MonitorSample, state: ForwardingState): void {
    for (const monitor of this.#monitors) {
      const findings = monitor.observe(sample, state);
      if (findings !== undefined) this.#book.observe(monitor.names, findings, sample.atMs);
    }
    this.#watch(sample.counters === undefined ? SILENT_SAMPLE_MS : SILENCE_MS, state);
  }

  /** Takes what the data plane tells between samples. */
  plane(events: readonly PlaneEvent[]): void {
    this.#azure.plane(events);
  }

  /** No more events from a silent data plane. Idempotent. */
  stop(): void {
    this.#cancel();
  }

  #watch(delayMs: number, state: ForwardingState): void {
    this.#cancel();
    const silent = (): void => this.observe({ atMs: this.#clock.monotonicMs(), counters: undefined }, state);
    this.#cancel = this.#clock.setTimer(delayMs, silent, { unref: true });
  }
}
