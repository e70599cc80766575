import type { HealthState } from '../model/probe.js';
import type { ProbeHealth } from './probe-health.js';

/** One probe of one backend of one pool, as metrics show it. */
export interface ProbeStatusRow {
  readonly pool: string;
  readonly backendId: string;
  readonly probe: string;
  readonly health: HealthState;
  readonly transitions: Readonly<Record<'up' | 'down', number>>;
  readonly results: Readonly<Record<'success' | 'failure', number>>;
  readonly lastDurationMs?: number;
}

export function probeStatuses(probeHealth: ProbeHealth): readonly ProbeStatusRow[] {
  return probeHealth.statuses().map(({ pool, backend, probe, key, health }) => {
    const { up, down, success, failure } = probeHealth.tallyOf(key);
    return {
      pool,
      backendId: backend.id,
      probe: probe.name,
      health: health?.state ?? 'unknown',
      transitions: { up, down },
      results: { success, failure },
      ...(health?.last === undefined ? {} : { lastDurationMs: health.last.durationMs }),
    };
  });
}
