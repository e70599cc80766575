import type { HealthState } from '../model/probe.js';
import type { ProbeHealth } from './probe-health.js';

/** One probe of one backend of one pool, as metrics show it. */
export interface ProbeStatusRow {
  readonly pool: string;
  readonly backendId: string;
  readonly probe: string;
  readonly health: HealthState;
  readonly transitions: Readonly<Record<'up' | 'down', number>>;
  readonly lastDurationMs?: number;
}

export function probeStatuses(probeHealth: ProbeHealth): readonly ProbeStatusRow[] {
  return probeHealth.statuses().map(({ pool, backend, probe, key, health }) => ({
    pool,
    backendId: backend.id,
    probe: probe.name,
    health: health?.state ?? 'unknown',
    transitions: { ...probeHealth.transitionsOf(key) },
    ...(health?.last === undefined ? {} : { lastDurationMs: health.last.durationMs }),
  }));
}
