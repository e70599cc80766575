import type { EventOf, HealthEvent, HealthEventName } from '../model/events.js';
import type { ForwardingState } from '../model/forwarding.js';
import type { PlaneCounters } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';

/** The data plane's counters at one moment; about one a second. */
export interface MonitorSample {
  /** Monotonic. */
  readonly atMs: number;
  /** Undefined: the data plane did not answer. */
  readonly counters: PlaneCounters | undefined;
}

/** Compares the numbers of the data plane with what the control plane believes. Changes nothing. */
export interface Monitor {
  /** What it can find. */
  readonly names: readonly HealthEventName[];
  /** `state` is what the data plane had when the sample was taken. Undefined: it cannot tell from this sample. */
  observe(sample: MonitorSample, state: ForwardingState): readonly MonitorReading[] | undefined;
  /** Takes what the data plane reports between samples. */
  portPressure?(event: EventOf<'source-port-pressure'>): void;
}

/** `unclear`: too little to go by, or between the two thresholds. An alert that is raised then stays so for a while. */
export type ReadingStatus = 'bad' | 'unclear' | 'fine';

/** What a monitor sees of one subject at one moment. */
export interface MonitorReading {
  readonly name: HealthEventName;
  readonly subject: string;
  readonly status: ReadingStatus;
  /** For people: what was measured, and against what. */
  readonly evidence: string;
  /** How long it must be bad before it is reported. @default 0 */
  readonly holdMs?: number;
}

/** A data plane that gives no sample for so long counts as not answering, and again every second from then on. */
const SILENCE_MS = 3000;
const SILENT_SAMPLE_MS = 1000;

/**
 * All monitors together: feed them a sample of the counters about once a second, and the plane's events. They watch
 * and report; they change nothing.
 */
export class Monitors {
  readonly #clock: Clock;
  readonly #monitors: readonly Monitor[];
  readonly #alerts: AlertTracker;
  #cancel: () => void = () => undefined;

  /** `onEvent` is called for every alert that is raised, repeated or resolved. */
  constructor(
    deps: { readonly clock: Clock; readonly onEvent: (event: HealthEvent) => void },
    monitors: readonly Monitor[],
  ) {
    this.#clock = deps.clock;
    this.#monitors = monitors;
    this.#alerts = new AlertTracker(deps);
  }

  /** The last event of each alert that is raised. */
  get active(): readonly HealthEvent[] {
    return this.#alerts.active();
  }

  observe(sample: MonitorSample, state: ForwardingState): void {
    for (const monitor of this.#monitors) {
      const readings = monitor.observe(sample, state);
      if (readings !== undefined) this.#alerts.observe(monitor.names, readings, sample.atMs);
    }
    this.#cancel();
    const silent = (): void => this.observe({ atMs: this.#clock.monotonicMs(), counters: undefined }, state);
    const delayMs = sample.counters === undefined ? SILENT_SAMPLE_MS : SILENCE_MS;
    this.#cancel = this.#clock.setTimer(delayMs, silent, { unref: true });
  }

  portPressure(event: EventOf<'source-port-pressure'>): void {
    for (const monitor of this.#monitors) monitor.portPressure?.(event);
  }

  /** No more events from a silent data plane. Idempotent. */
  stop(): void {
    this.#cancel();
  }
}

const MINUTE_MS = 60_000;

/**
 * How bad each is, and how often it is repeated while it lasts. The first five as Azure has them
 * (load-balancer-health-event-logs: severity and re-detection interval).
 */
export const ALERT_RULES: Readonly<
  Record<HealthEventName, { readonly severity: HealthEvent['severity']; readonly againMs: number }>
> = {
  DataPathAvailabilityWarning: { severity: 'warning', againMs: 5 * MINUTE_MS },
  DataPathAvailabilityCritical: { severity: 'critical', againMs: 5 * MINUTE_MS },
  NoHealthyBackends: { severity: 'critical', againMs: 60 * MINUTE_MS },
  HighSnatPortUsage: { severity: 'warning', againMs: 5 * MINUTE_MS },
  SnatPortExhaustion: { severity: 'critical', againMs: 5 * MINUTE_MS },
  ProbeUpTrafficFailing: { severity: 'critical', againMs: 5 * MINUTE_MS },
  ProbeDownTrafficFine: { severity: 'warning', againMs: 5 * MINUTE_MS },
};

const RANK: Readonly<Record<ReadingStatus, number>> = { fine: 0, unclear: 1, bad: 2 };

/** Times are monotonic. */
interface Alert {
  readonly name: HealthEventName;
  readonly badSinceMs: number;
  /** The last event, and when it was emitted; undefined: none yet. */
  told: { readonly event: HealthEvent; readonly atMs: number } | undefined;
  unclearSinceMs: number | undefined;
}

/**
 * Turns the readings of monitors into events: raised once, repeated while it lasts, resolved once. What is unclear for
 * as long as an event takes to be repeated is resolved too.
 */
export class AlertTracker {
  readonly #clock: Clock;
  readonly #onEvent: (event: HealthEvent) => void;
  /** By name and subject. */
  readonly #alerts = new Map<string, Alert>();

  constructor(deps: { readonly clock: Clock; readonly onEvent: (event: HealthEvent) => void }) {
    this.#clock = deps.clock;
    this.#onEvent = deps.onEvent;
  }

  /** The last event of each alert that is raised, in no particular order. */
  active(): readonly HealthEvent[] {
    return [...this.#alerts.values()].flatMap(({ told }) => (told === undefined ? [] : [told.event]));
  }

  /**
   * Takes all readings of now under these names: a subject that is missing is over. Of several with the same name and
   * subject the worst counts. `nowMs` is monotonic.
   */
  observe(names: readonly HealthEventName[], readings: readonly MonitorReading[], nowMs: number): void {
    const worst = new Map<string, MonitorReading>();
    for (const reading of readings) {
      const key = `${reading.name} ${reading.subject}`;
      const other = worst.get(key);
      if (other === undefined || RANK[reading.status] > RANK[other.status]) worst.set(key, reading);
    }
    for (const [key, reading] of worst) this.#take(key, reading, nowMs);
    for (const [key, { name }] of this.#alerts) {
      if (worst.has(key) || !names.includes(name)) continue;
      this.#resolve(key, 'It no longer applies: the configuration or the traffic has changed');
    }
  }

  #take(key: string, reading: MonitorReading, nowMs: number): void {
    const { name, status, evidence } = reading;
    const alert = this.#alerts.get(key);
    if (status === 'bad') this.#bad(key, alert, reading, nowMs);
    else if (status === 'fine' || alert?.told === undefined) this.#resolve(key, evidence);
    else {
      alert.unclearSinceMs ??= nowMs;
      if (nowMs - alert.unclearSinceMs >= ALERT_RULES[name].againMs) this.#resolve(key, evidence);
    }
  }

  #bad(key: string, known: Alert | undefined, reading: MonitorReading, nowMs: number): void {
    const { name, subject, evidence, holdMs = 0 } = reading;
    const alert = known ?? { name, badSinceMs: nowMs, told: undefined, unclearSinceMs: undefined };
    this.#alerts.set(key, alert);
    alert.unclearSinceMs = undefined;
    const { severity, againMs } = ALERT_RULES[name];
    const { told, badSinceMs } = alert;
    if (told === undefined ? nowMs - badSinceMs < holdMs : nowMs - told.atMs < againMs) return;
    const phase = told === undefined ? 'raised' : 'again';
    const atMs = this.#clock.wallMs();
    const event = { type: 'health-event', name, severity, phase, subject, evidence, atMs } as const;
    alert.told = { event, atMs: nowMs };
    this.#onEvent(event);
  }

  /** One that was never raised is dropped silently. */
  #resolve(key: string, evidence: string): void {
    const told = this.#alerts.get(key)?.told;
    this.#alerts.delete(key);
    if (told === undefined) return;
    this.#onEvent({ ...told.event, phase: 'resolved', evidence, atMs: this.#clock.wallMs() });
  }
}
