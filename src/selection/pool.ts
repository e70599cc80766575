import type { AdminState, Backend, BackendPool, HealthState } from '../model/configuration.js';
import type { BackendState, Exclusion, WeightOrigin } from '../model/forwarding.js';

/** What is known about one backend of a pool, apart from its configuration. */
export interface BackendInputs {
  /** Ignored for a pool without probe. */
  readonly health: HealthState;
  readonly adminState: AdminState;
  /** Being drained: no new flows, existing ones stay. */
  readonly draining: boolean;
  /** In place of the configured weight, and whose it is. */
  readonly weight?: number;
  readonly weightOrigin?: WeightOrigin;
  /** How much of its weight a backend in slow start gets, 1-100. @default 100 */
  readonly rampPercent?: number;
  /** The drain's deadline has passed: flows are ended over this time. Only where `draining`. */
  readonly endSpreadMs?: number;
}

export interface PoolEvaluation {
  /** In the order of the configuration. */
  readonly backends: readonly BackendState[];
  /** Absent if no member serves. */
  readonly servingPriority?: number;
  /** No member is eligible; true for an empty pool. */
  readonly allDown: boolean;
}

/**
 * Decides which members of a pool get new flows and which keep existing ones. Pure. Reasons rank: switched down,
 * draining, probe down, probe unknown, weight 0, standby. Weight 0 also keeps out a backend that is switched up:
 * it has no share in a table.
 *
 * The best priority group (lowest number) with at least `minimumHealthy` eligible members serves; if no group has
 * that many, the best one with any. The other eligible members are on standby.
 */
export function evaluatePool(
  pool: BackendPool,
  inputs: (backend: Backend) => BackendInputs,
  hasProbe: boolean,
): PoolEvaluation {
  const asked = pool.backends.map((backend) => [backend, inputs(backend)] as const);
  const ramps = asked.some(([, { rampPercent = 100 }]) => rampPercent < 100);
  const members = asked.map(([backend, input]) => evaluateMember(backend, input, { hasProbe, ramps }));
  const servingPriority = choosePriority(members, pool.minimumHealthy);
  return {
    backends: members.map((member): BackendState => {
      if (!member.eligible) return member;
      const serving = member.backend.priority === servingPriority;
      return serving ? { ...member, serving } : { ...member, exclusion: 'standby' };
    }),
    ...(servingPriority === undefined ? {} : { servingPriority }),
    allDown: servingPriority === undefined,
  };
}

function evaluateMember(
  backend: Backend,
  inputs: BackendInputs,
  { hasProbe, ramps }: { readonly hasProbe: boolean; readonly ramps: boolean },
): BackendState {
  const { adminState, draining, weightOrigin = 'configured', rampPercent = 100 } = inputs;
  const health = hasProbe ? inputs.health : 'up';
  const { eligible, valid, exclusion, invalidBecause } = effectiveEligibility(health, adminState, hasProbe);
  const wantedWeight = inputs.weight ?? backend.weight;
  const effectiveWeight = ramps ? wantedWeight * rampPercent : wantedWeight;
  const state = {
    backend,
    health,
    adminState,
    ...{ wantedWeight, weightOrigin, rampPercent, effectiveWeight },
    valid,
    ...(invalidBecause === undefined ? {} : { invalidBecause }),
    serving: false,
  };
  if (draining && exclusion !== 'admin-down') {
    const { endSpreadMs } = inputs;
    const drained = { ...state, eligible: false, exclusion: 'draining' } as const;
    if (endSpreadMs === undefined || !valid) return drained;
    return { ...drained, valid: false, invalidBecause: 'drain-deadline', endSpreadMs };
  }
  if (exclusion !== undefined) return { ...state, eligible, exclusion };
  if (effectiveWeight === 0) return { ...state, eligible: false, exclusion: 'weight-zero' };
  return { ...state, eligible };
}

function choosePriority(members: readonly BackendState[], minimumHealthy: number): number | undefined {
  const eligibleByPriority = new Map<number, number>();
  for (const { eligible, backend } of members) {
    if (eligible)
      eligibleByPriority.set(backend.priority, (eligibleByPriority.get(backend.priority) ?? 0) + 1);
  }
  const priorities = [...eligibleByPriority.keys()].sort((a, b) => a - b);
  return (
    priorities.find((priority) => (eligibleByPriority.get(priority) ?? 0) >= minimumHealthy) ?? priorities[0]
  );
}

/** What probe and operator together allow a backend: new flows (`eligible`) and existing ones (`valid`). */
export interface Eligibility {
  readonly eligible: boolean;
  readonly valid: boolean;
  /** Set if not eligible. */
  readonly exclusion?: Extract<Exclusion, 'probe-down' | 'probe-unknown' | 'admin-down'>;
  /** Set if not valid. */
  readonly invalidBecause?: 'probe-down' | 'admin-down';
}

/**
 * The operator's switch over the probe's verdict (Azure: manage-admin-state-how-to). `up` and `down` win over the
 * probe; `none` follows it. Without a probe a backend counts as up, and the switch still works, which in Azure it
 * does not (V11). A backend that was not probed yet gets no new flows but keeps the ones it has.
 */
export function effectiveEligibility(
  health: HealthState,
  adminState: AdminState,
  hasProbe: boolean,
): Eligibility {
  if (adminState === 'down') {
    return { eligible: false, valid: false, exclusion: 'admin-down', invalidBecause: 'admin-down' };
  }
  if (adminState === 'up' || !hasProbe || health === 'up') return { eligible: true, valid: true };
  if (health === 'unknown') return { eligible: false, valid: true, exclusion: 'probe-unknown' };
  return { eligible: false, valid: false, exclusion: 'probe-down', invalidBecause: 'probe-down' };
}
