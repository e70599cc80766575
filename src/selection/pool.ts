import type { AdminState, Backend, BackendPool, HealthState } from '../model/configuration.js';
import type { BackendState, WeightOrigin } from '../model/forwarding.js';

/** What is known about one backend of a pool, apart from its configuration. */
export interface BackendInputs {
  /** `up` where no probe asks. */
  readonly health: HealthState;
  readonly adminState: AdminState;
  /** Being drained: no new flows, existing ones stay. */
  readonly draining: boolean;
  /** In its share of a table; 0: none. */
  readonly weight: number;
  /** Whose weight that is. @default 'configured' */
  readonly weightOrigin?: WeightOrigin;
  /** How much of its weight a backend in slow start gets, 1-100. @default 100 */
  readonly rampPercent?: number;
  /** The drain's deadline has passed: flows are ended over this time. Only where `draining`. */
  readonly endSpreadMs?: number | undefined;
}

export interface PoolEvaluation {
  /** In the order of the configuration. */
  readonly backends: readonly BackendState[];
  /** Undefined where no member is eligible. */
  readonly servingPriority: number | undefined;
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
  { backends, minimumHealthy }: Pick<BackendPool, 'backends' | 'minimumHealthy'>,
  inputs: (backend: Backend) => BackendInputs,
): PoolEvaluation {
  const asked = backends.map((backend) => [backend, inputs(backend)] as const);
  const ramps = asked.some(([, { rampPercent = 100 }]) => rampPercent < 100);
  const members = asked.map(([backend, input]) => evaluateMember(backend, input, ramps));
  const servingPriority = choosePriority(members, minimumHealthy);
  return {
    backends: members.map((member): BackendState => {
      if (!member.eligible) return member;
      const serving = member.backend.priority === servingPriority;
      return serving ? { ...member, serving } : { ...member, exclusion: 'standby' };
    }),
    servingPriority,
  };
}

function evaluateMember(backend: Backend, inputs: BackendInputs, ramps: boolean): BackendState {
  const { health, adminState, draining, weight: wantedWeight, endSpreadMs } = inputs;
  const { weightOrigin = 'configured', rampPercent = 100 } = inputs;
  const effectiveWeight = ramps ? wantedWeight * rampPercent : wantedWeight;
  const weights = { wantedWeight, weightOrigin, rampPercent, effectiveWeight };
  const standing = eligibilityOf(health, adminState);
  const state = { backend, health, adminState, ...weights, serving: false, ...standing };
  if (draining && standing.exclusion !== 'admin-down') {
    const drained = { ...state, eligible: false, exclusion: 'draining' } as const;
    if (endSpreadMs === undefined || !standing.valid) return drained;
    return { ...drained, valid: false, invalidBecause: 'drain-deadline', endSpreadMs };
  }
  if (!standing.eligible || effectiveWeight > 0) return state;
  return { ...state, eligible: false, exclusion: 'weight-zero' };
}

function choosePriority(members: readonly BackendState[], minimumHealthy: number): number | undefined {
  const eligible = members.filter((member) => member.eligible).map(({ backend }) => backend.priority);
  const priorities = [...new Set(eligible)].sort((a, b) => a - b);
  const isEnough = (priority: number): boolean =>
    eligible.filter((other) => other === priority).length >= minimumHealthy;
  return priorities.find(isEnough) ?? priorities[0];
}

/**
 * The operator's switch over the probe's verdict (Azure: manage-admin-state-how-to). `up` and `down` win over the
 * probe; `none` follows it. Without a probe a backend counts as up, and the switch still works, which in Azure it
 * does not (V11). A backend that was not probed yet gets no new flows but keeps the ones it has.
 */
export function eligibilityOf(
  health: HealthState,
  adminState: AdminState,
): Pick<BackendState, 'eligible' | 'valid' | 'exclusion' | 'invalidBecause'> {
  if (adminState === 'down') {
    return { eligible: false, valid: false, exclusion: 'admin-down', invalidBecause: 'admin-down' };
  }
  if (adminState === 'up' || health === 'up') return { eligible: true, valid: true };
  if (health === 'unknown') return { eligible: false, valid: true, exclusion: 'probe-unknown' };
  return { eligible: false, valid: false, exclusion: 'probe-down', invalidBecause: 'probe-down' };
}
