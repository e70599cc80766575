import type { BackendHealth } from '../model/backend-health.js';
import type { Clock } from '../runtime/clock.js';
import type { DrainRecord, Drains } from './drains.js';
import type { OperatorRecord, OperatorState } from './operator-state.js';
import type { ProbeHealth } from './probe-health.js';

/** What a control process knows that its configuration does not say, for its successor. Plain data. */
export interface Legacy {
  /** The old process's monotonic clock at that moment: times in `health` count from the same point. */
  readonly monotonicMs: number;
  readonly operator: OperatorRecord;
  readonly drains: readonly DrainRecord[];
  /** By probe key. */
  readonly health: ReadonlyMap<string, BackendHealth>;
}

export interface LegacyParts {
  readonly clock: Clock;
  readonly operator: OperatorState;
  readonly drains: Drains;
  readonly health: ProbeHealth;
}

export function takeLegacy({ clock, operator, drains, health }: LegacyParts): Legacy {
  const known = new Map<string, BackendHealth>();
  for (const { key, health: one } of health.statuses()) if (one !== undefined) known.set(key, one);
  return {
    monotonicMs: clock.monotonicMs(),
    operator: operator.record(),
    drains: drains.records(),
    health: known,
  };
}

/** To be called before the balancer starts; its drains are resumed after. */
export function adoptLegacy({ monotonicMs, operator, health }: Legacy, parts: LegacyParts): void {
  parts.operator.restore(operator);
  const shiftMs = parts.clock.monotonicMs() - monotonicMs;
  parts.health.inherit(new Map([...health].map(([key, one]) => [key, shifted(one, shiftMs)])));
}

/** As another process's monotonic clock has it. */
export function shifted(health: BackendHealth, shiftMs: number): BackendHealth {
  return {
    ...health,
    recentChangesMs: health.recentChangesMs.map((atMs) => atMs + shiftMs),
    ...(health.heldUntilMs === undefined ? {} : { heldUntilMs: health.heldUntilMs + shiftMs }),
  };
}
