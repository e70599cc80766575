import type { HealthEvent, HealthEventName } from '../model/events.js';
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
  /** All that it finds now; undefined: it cannot tell from this sample. */
  observe(sample: MonitorSample, state: ForwardingState): readonly Finding[] | undefined;
}

/** `unclear`: too little to go by, or between the two thresholds. An alarm that is raised then stays so for a while. */
export type FindingStatus = 'bad' | 'unclear' | 'fine';

/** What a monitor sees of one subject at one moment. */
export interface Finding {
  readonly name: HealthEventName;
  readonly subject: string;
  readonly status: FindingStatus;
  /** For people: what was measured, and against what. */
  readonly evidence: string;
  /** How long it must be bad before it is told. @default 0 */
  readonly holdMs?: number;
}

interface AlarmRule {
  readonly severity: HealthEvent['severity'];
  /** From one telling to the next while it lasts. */
  readonly againMs: number;
}

const MINUTE_MS = 60_000;

/**
 * The first five as Azure has them (load-balancer-health-event-logs: severity and re-detection interval). Skew is
 * advice: once an hour is enough.
 */
export const ALARM_RULES: Readonly<Record<HealthEventName, AlarmRule>> = {
  DataPathAvailabilityWarning: { severity: 'warning', againMs: 5 * MINUTE_MS },
  DataPathAvailabilityCritical: { severity: 'critical', againMs: 5 * MINUTE_MS },
  NoHealthyBackends: { severity: 'critical', againMs: 60 * MINUTE_MS },
  HighSnatPortUsage: { severity: 'warning', againMs: 5 * MINUTE_MS },
  SnatPortExhaustion: { severity: 'critical', againMs: 5 * MINUTE_MS },
  ProbeUpTrafficFailing: { severity: 'critical', againMs: 5 * MINUTE_MS },
  ProbeDownTrafficFine: { severity: 'warning', againMs: 5 * MINUTE_MS },
  SourceAffinitySkew: { severity: 'warning', againMs: 60 * MINUTE_MS },
};

const NO_LONGER = 'It no longer applies: the configuration or the traffic is another';

const RANK: Readonly<Record<FindingStatus, number>> = { fine: 0, unclear: 1, bad: 2 };

/** Times without a note are monotonic. */
interface Alarm {
  readonly badSinceMs: number;
  /** What was told last; absent: nothing yet. */
  told?: HealthEvent;
  toldAtMs: number;
  unclearSinceMs: number | undefined;
}

/**
 * Turns what monitors find, time and again, into events: raised once, told again while it lasts, resolved once. What
 * is unclear for as long as an event takes to be told again is resolved too.
 */
export class AlarmBook {
  readonly #clock: Clock;
  readonly #onEvent: (event: HealthEvent) => void;
  readonly #alarms = new Map<string, Alarm>();

  constructor(deps: { readonly clock: Clock; readonly onEvent: (event: HealthEvent) => void }) {
    this.#clock = deps.clock;
    this.#onEvent = deps.onEvent;
  }

  /** The last event of each alarm that is raised, in no particular order. */
  active(): readonly HealthEvent[] {
    return [...this.#alarms.values()].flatMap(({ told }) => (told === undefined ? [] : [told]));
  }

  /**
   * Takes what is found now under these names: all of it, for a subject that is missing is over. Of several findings
   * with the same name and subject the worst counts. `nowMs` is monotonic.
   */
  observe(names: readonly HealthEventName[], findings: readonly Finding[], nowMs: number): void {
    const worst = new Map<string, Finding>();
    for (const finding of findings) {
      const key = keyOf(finding);
      const other = worst.get(key);
      if (other === undefined || RANK[finding.status] > RANK[other.status]) worst.set(key, finding);
    }
    for (const [key, finding] of worst) this.#judge(key, finding, nowMs);
    for (const [key, { told }] of this.#alarms) {
      if (worst.has(key) || told === undefined || !names.includes(told.name)) continue;
      this.#resolve(key, NO_LONGER);
    }
    // What was never told needs no resolving.
    for (const [key, { told }] of this.#alarms) {
      if (told === undefined && !worst.has(key) && names.some((name) => key.startsWith(`${name} `))) {
        this.#alarms.delete(key);
      }
    }
  }

  #judge(key: string, finding: Finding, nowMs: number): void {
    const { status, evidence } = finding;
    switch (status) {
      case 'bad':
        this.#bad(key, finding, nowMs);
        break;
      case 'unclear':
        this.#unclear(key, finding, nowMs);
        break;
      case 'fine':
        this.#resolve(key, evidence);
        break;
    }
  }

  #bad(key: string, finding: Finding, nowMs: number): void {
    const { name, subject, evidence, holdMs = 0 } = finding;
    let alarm = this.#alarms.get(key);
    if (alarm === undefined) {
      alarm = { badSinceMs: nowMs, toldAtMs: nowMs, unclearSinceMs: undefined };
      this.#alarms.set(key, alarm);
    }
    alarm.unclearSinceMs = undefined;
    const { severity, againMs } = ALARM_RULES[name];
    if (alarm.told === undefined ? nowMs - alarm.badSinceMs < holdMs : nowMs - alarm.toldAtMs < againMs)
      return;
    const phase = alarm.told === undefined ? 'raised' : 'again';
    const atMs = this.#clock.wallMs();
    alarm.told = { type: 'health-event', name, severity, phase, subject, evidence, atMs };
    alarm.toldAtMs = nowMs;
    this.#onEvent(alarm.told);
  }

  #unclear(key: string, { name, evidence }: Finding, nowMs: number): void {
    const alarm = this.#alarms.get(key);
    if (alarm === undefined) return;
    if (alarm.told === undefined) {
      this.#alarms.delete(key);
      return;
    }
    alarm.unclearSinceMs ??= nowMs;
    if (nowMs - alarm.unclearSinceMs >= ALARM_RULES[name].againMs) this.#resolve(key, evidence);
  }

  #resolve(key: string, evidence: string): void {
    const told = this.#alarms.get(key)?.told;
    this.#alarms.delete(key);
    if (told !== undefined) {
      this.#onEvent({ ...told, phase: 'resolved', evidence, atMs: this.#clock.wallMs() });
    }
  }
}

function keyOf({ name, subject }: Finding): string {
  return `${name} ${subject}`;
}
