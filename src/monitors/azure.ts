import type { HealthEventName, PlaneEvent } from '../model/events.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
import type { PlaneCounters, SourcePortUse } from '../planes/contract.js';
import type { Finding, Monitor, MonitorSample } from './alerts.js';

/*
 * Thresholds and the window of a minute: Azure, load-balancer-health-event-logs.
 */
const WARNING_AVAILABILITY = 0.9;
const CRITICAL_AVAILABILITY = 0.25;
const HIGH_PORT_USAGE = 0.75;

/** Below this, usage is no longer high: the gap keeps the event from coming and going (see source-ports.ts). */
const NORMAL_PORT_USAGE = 0.7;

/** Ports can run out and come back between two samples: the event holds for so long. */
const EXHAUSTION_HOLD_MS = 60_000;

/** Azure's five health events, from what haports measures in their place; see docs/health-events.md. */
export class AzureHealthEvents implements Monitor {
  readonly names: readonly HealthEventName[] = [
    'DataPathAvailabilityWarning',
    'DataPathAvailabilityCritical',
    'NoHealthyBackends',
    'HighSnatPortUsage',
    'SnatPortExhaustion',
  ];
  readonly #availability = new AvailabilityWindow();
  /** Backend ids told as exhausted since the last sample. */
  readonly #justExhausted = new Set<string>();
  /** By backend id: monotonic time of the sample after it. */
  readonly #exhaustedAtMs = new Map<string, number>();

  /** Takes what the data plane tells between samples. */
  plane(events: readonly PlaneEvent[]): void {
    for (const event of events) {
      if (event.type === 'source-port-pressure' && event.level === 'exhausted') {
        this.#justExhausted.add(event.backendId);
      }
    }
  }

  observe({ atMs, counters }: MonitorSample, state: ForwardingState): readonly Finding[] {
    return [
      ...this.#dataPath(atMs, counters, state),
      ...state.views.map(healthyBackends),
      ...this.#sourcePorts(atMs, counters?.sourcePorts ?? []),
    ];
  }

  #dataPath(atMs: number, counters: PlaneCounters | undefined, state: ForwardingState): readonly Finding[] {
    const frontends = new Set(state.configuration.rules.map(({ frontend }) => frontend.name));
    return this.#availability.observe(atMs, counters?.listeners, frontends).flatMap((frontend) => {
      const { name: subject, average, isWhole } = frontend;
      const evidence = `${percent(average)} % of the wanted ports were listened on over the last minute`;
      const status = (limit: number) => (average >= limit ? 'fine' : isWhole ? 'bad' : 'unclear');
      return [
        { name: 'DataPathAvailabilityWarning', subject, status: status(WARNING_AVAILABILITY), evidence },
        { name: 'DataPathAvailabilityCritical', subject, status: status(CRITICAL_AVAILABILITY), evidence },
      ] as const;
    });
  }

  #sourcePorts(atMs: number, uses: readonly SourcePortUse[]): readonly Finding[] {
    for (const id of this.#justExhausted) this.#exhaustedAtMs.set(id, atMs);
    this.#justExhausted.clear();
    for (const [id, sinceMs] of this.#exhaustedAtMs) {
      if (atMs - sinceMs >= EXHAUSTION_HOLD_MS) this.#exhaustedAtMs.delete(id);
    }
    const inUse = uses.filter(({ available }) => available > 0);
    const held = [...this.#exhaustedAtMs.keys()].map((subject): Finding => {
      return {
        name: 'SnatPortExhaustion',
        subject,
        status: 'bad',
        evidence: 'No local port was left within the last minute',
      };
    });
    return [...inUse.flatMap(portUse), ...held];
  }
}

function portUse({
  backendId: subject,
  protocol,
  sourceAddress,
  used,
  available,
}: SourcePortUse): readonly Finding[] {
  const share = used / available;
  const evidence = `${used} of ${available} local ports (${percent(share)} %) from ${sourceAddress} are in use for ${protocol.toUpperCase()}`;
  const high = share > HIGH_PORT_USAGE ? 'bad' : share < NORMAL_PORT_USAGE ? 'fine' : 'unclear';
  return [
    { name: 'HighSnatPortUsage', subject, status: high, evidence },
    { name: 'SnatPortExhaustion', subject, status: used >= available ? 'bad' : 'fine', evidence },
  ];
}

/** While a backend waits for its first verdict, nobody knows. */
function healthyBackends({ pool, probe, backends }: PoolView): Finding {
  const eligible = backends.filter((member) => member.eligible).length;
  const isWaiting = backends.some(({ exclusion }) => exclusion === 'probe-unknown');
  const by = probe === undefined ? '' : ` by probe "${probe.name}"`;
  return {
    name: 'NoHealthyBackends',
    subject: pool.name,
    status: eligible > 0 ? 'fine' : isWaiting ? 'unclear' : 'bad',
    evidence: `${eligible} of ${backends.length} backends may get new flows${by}${reasons(backends)}`,
  };
}

function reasons(backends: PoolView['backends']): string {
  const counts = new Map<string, number>();
  for (const { eligible, exclusion } of backends) {
    if (!eligible && exclusion !== undefined) counts.set(exclusion, (counts.get(exclusion) ?? 0) + 1);
  }
  if (counts.size === 0) return '';
  return `: ${[...counts].map(([exclusion, count]) => `${count} ${exclusion}`).join(', ')}`;
}

/** Rounded down: 89.99 % is not 90 %. */
function percent(share: number): number {
  return Math.floor(share * 1000) / 10;
}

/** Azure's detection window of data path availability. */
const WINDOW_MS = 60_000;

interface Reading {
  readonly atMs: number;
  readonly ratio: number;
}

export interface FrontendAvailability {
  readonly name: string;
  /** Share of wanted sockets that were open, 0 to 1. */
  readonly average: number;
  /** The window is as long as it should be. */
  readonly isWhole: boolean;
}

/** Listeners open of those wanted, by frontend, on average over the last minute. */
export class AvailabilityWindow {
  readonly #readings = new Map<string, { readonly firstAtMs: number; list: readonly Reading[] }>();

  /**
   * `listeners` undefined, or without a frontend that had some: nobody serves it now. Frontends that never had any to
   * open are left out, and those that no rule names are forgotten.
   */
  observe(
    atMs: number,
    listeners: PlaneCounters['listeners'] | undefined,
    frontends: ReadonlySet<string>,
  ): readonly FrontendAvailability[] {
    const uses = new Map(Object.entries(listeners ?? {}));
    for (const name of this.#readings.keys()) if (!frontends.has(name)) this.#readings.delete(name);
    const found: FrontendAvailability[] = [];
    for (const name of frontends) {
      const { open, wanted } = uses.get(name) ?? { open: 0, wanted: 0 };
      const before = this.#readings.get(name);
      if (wanted === 0 && (uses.has(name) || before === undefined)) continue;
      const entry = before ?? { firstAtMs: atMs, list: [] };
      this.#readings.set(name, entry);
      entry.list = [
        ...entry.list.filter((reading) => reading.atMs > atMs - WINDOW_MS),
        { atMs, ratio: wanted === 0 ? 0 : open / wanted },
      ];
      const sum = entry.list.reduce((total, { ratio }) => total + ratio, 0);
      found.push({
        name,
        // Sixty times 0.9 is a little less than 54 in floating point, and 90 % are not less than 90 %.
        average: Number((sum / entry.list.length).toFixed(9)),
        isWhole: atMs - entry.firstAtMs >= WINDOW_MS,
      });
    }
    return found;
  }
}
