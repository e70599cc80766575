import type { AdminState } from '../model/configuration.js';
import type { Exclusion } from '../model/forwarding-state.js';
import type { HealthState } from '../model/probe.js';

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
 * does not (V11). A backend nobody has probed yet gets no new flows but keeps the ones it has.
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
