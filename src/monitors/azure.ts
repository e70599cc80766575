import type { EventOf, HealthEventName } from '../model/events.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
import type { PlaneCounters, SourcePortUse } from '../planes/contract.js';
import type { Monitor, MonitorReading, MonitorSample } from './alerts.js';

/*
 * Thresholds and the window of a minute: Azure, load-balancer-health-event-logs.
 */
const WARNING_AVAILABILITY = 0.9;
const CRITICAL_AVAILABILITY = 0.25;
const HIGH_PORT_USAGE = 0.75;
const WINDOW_MS = 60_000;

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
  /** By frontend: the share of its wanted sockets that were open, over the last minute. */
  readonly #availability = new Map<string, AvailabilityWindow>();
  /** Backend ids reported as exhausted since the last sample. */
  readonly #justExhausted = new Set<string>();
  /** By backend id: monotonic time of the sample after it. */
  readonly #exhaustedAtMs = new Map<string, number>();

  portPressure({ pressure, backendId }: EventOf<'source-port-pressure'>): void {
    if (pressure === 'exhausted') this.#justExhausted.add(backendId);
  }

  observe({ atMs, counters }: MonitorSample, state: ForwardingState): readonly MonitorReading[] {
    const frontends = new Set(state.configuration.rules.map(({ frontend }) => frontend.name));
    for (const name of this.#availability.keys()) if (!frontends.has(name)) this.#availability.delete(name);
    const listeners = new Map(Object.entries(counters?.listeners ?? {}));
    return [
      ...[...frontends].flatMap((frontend) => this.#dataPath(frontend, listeners.get(frontend), atMs)),
      ...state.views.map(healthyBackends),
      ...this.#sourcePorts(atMs, counters?.sourcePorts ?? []),
    ];
  }

  /** `use` undefined for a frontend that had listeners: nothing is available now. */
  #dataPath(
    frontend: string,
    use: PlaneCounters['listeners'][string] | undefined,
    atMs: number,
  ): readonly MonitorReading[] {
    const wanted = use?.wanted ?? 0;
    const before = this.#availability.get(frontend);
    // It never had any to open.
    if (wanted === 0 && (use !== undefined || before === undefined)) return [];
    const window = before ?? { firstAtMs: atMs, readings: [] };
    window.readings = window.readings.filter((reading) => reading.atMs > atMs - WINDOW_MS);
    window.readings.push({ atMs, ratio: use === undefined || wanted === 0 ? 0 : use.open / wanted });
    this.#availability.set(frontend, window);
    const sum = window.readings.reduce((total, { ratio }) => total + ratio, 0);
    // Sixty times 0.9 is a little less than 54 in floating point, and 90 % are not less than 90 %.
    const average = Number((sum / window.readings.length).toFixed(9));
    const isWhole = atMs - window.firstAtMs >= WINDOW_MS;
    const evidence = `${percent(average)} % of the wanted ports were listened on over the last minute`;
    const status = (limit: number) => (average >= limit ? 'fine' : isWhole ? 'bad' : 'unclear');
    const subject = frontend;
    return [
      { name: 'DataPathAvailabilityWarning', subject, status: status(WARNING_AVAILABILITY), evidence },
      { name: 'DataPathAvailabilityCritical', subject, status: status(CRITICAL_AVAILABILITY), evidence },
    ];
  }

  #sourcePorts(atMs: number, uses: readonly SourcePortUse[]): readonly MonitorReading[] {
    for (const id of this.#justExhausted) this.#exhaustedAtMs.set(id, atMs);
    this.#justExhausted.clear();
    for (const [id, sinceMs] of this.#exhaustedAtMs) {
      if (atMs - sinceMs >= EXHAUSTION_HOLD_MS) this.#exhaustedAtMs.delete(id);
    }
    const evidence = 'No source port was left within the last minute';
    const held = [...this.#exhaustedAtMs.keys()].map((subject) => {
      return { name: 'SnatPortExhaustion', subject, status: 'bad', evidence } as const;
    });
    return [...uses.filter(({ available }) => available > 0).flatMap(portUse), ...held];
  }
}

interface AvailabilityWindow {
  readonly firstAtMs: number;
  readings: { readonly atMs: number; readonly ratio: number }[];
}

function portUse(use: SourcePortUse): readonly MonitorReading[] {
  const { backendId: subject, protocol, sourceAddress, used, available } = use;
  const share = used / available;
  const evidence = `${used} of ${available} source ports (${percent(share)} %) from ${sourceAddress} are in use for ${protocol.toUpperCase()}`;
  const high = share > HIGH_PORT_USAGE ? 'bad' : share < NORMAL_PORT_USAGE ? 'fine' : 'unclear';
  return [
    { name: 'HighSnatPortUsage', subject, status: high, evidence },
    { name: 'SnatPortExhaustion', subject, status: used >= available ? 'bad' : 'fine', evidence },
  ];
}

/** Unclear while a backend waits for its first verdict. */
function healthyBackends({ pool, probe, backends }: PoolView): MonitorReading {
  const eligible = backends.filter((member) => member.eligible).length;
  const isWaiting = backends.some(({ exclusion }) => exclusion === 'probe-unknown');
  const by = probe === undefined ? '' : ` by probe "${probe.name}"`;
  const counts = new Map<string, number>();
  for (const { eligible: isEligible, exclusion } of backends) {
    if (!isEligible && exclusion !== undefined) counts.set(exclusion, (counts.get(exclusion) ?? 0) + 1);
  }
  const reasons = [...counts].map(([exclusion, count]) => `${count} ${exclusion}`).join(', ');
  return {
    name: 'NoHealthyBackends',
    subject: pool.name,
    status: eligible > 0 ? 'fine' : isWaiting ? 'unclear' : 'bad',
    evidence: `${eligible} of ${backends.length} backends may get new flows${by}${reasons && `: ${reasons}`}`,
  };
}

/** Rounded down: 89.99 % is not 90 %. */
function percent(share: number): number {
  return Math.floor(share * 1000) / 10;
}
