import type { Backend, AdminState, Configuration } from './configuration.js';
import type { HealthState } from './probe.js';

/** Why a backend gets no new flows. */
export type Exclusion =
  'probe-down' | 'probe-unknown' | 'admin-down' | 'draining' | 'weight-zero' | 'standby';

/** A backend as one pool view sees it at one revision. */
export interface BackendState {
  readonly backend: Backend;
  readonly health: HealthState;
  readonly adminState: AdminState;
  /**
   * What the table was built with: the operator's weight, the probe header's or the configured one; while a member of
   * the view is in slow start, a hundred times that, less what a starting member does not get yet. Only proportions count.
   */
  readonly effectiveWeight: number;
  /** May get new flows if its priority group serves. */
  readonly eligible: boolean;
  /** May keep existing flows. Where false, `invalidBecause` picks the flow policy. */
  readonly valid: boolean;
  readonly invalidBecause?: 'probe-down' | 'admin-down' | 'drain-deadline';
  /** Only with `drain-deadline`: its flows are ended one after another, evenly over this time. */
  readonly endSpreadMs?: number;
  /** In the table: eligible, in the serving priority group. */
  readonly serving: boolean;
  /** Set whenever `serving` is false. */
  readonly exclusion?: Exclusion;
}

/** Slot value that stands for no backend. */
export const NO_BACKEND = 0xffff;

/**
 * A pool as seen through one probe: rules that share both share the view. `table` maps a slot to an index into
 * `backends`; it is empty (length 0) when no backend serves.
 */
export interface PoolView {
  /** `pool|probe`, or `pool|` without a probe. */
  readonly key: string;
  readonly pool: string;
  readonly probe?: string;
  readonly backends: readonly BackendState[];
  readonly table: Uint16Array;
  /** Priority of the group that serves. */
  readonly servingPriority?: number;
  /** Only while `table` is empty: all members but those switched down, for `allDown: fail-open`. */
  readonly failOpenTable?: Uint16Array;
}

/**
 * The immutable result of configuration, health and admin state, swapped whole. Survives structured clone.
 * `revision` is the epoch of the flow log: it grows by one with every change and never repeats in a process.
 */
export interface ForwardingState {
  readonly revision: number;
  readonly configuration: Configuration;
  readonly views: readonly PoolView[];
  /** For each rule of `configuration.rules`, by index: its view in `views`. */
  readonly viewOfRule: readonly number[];
}
