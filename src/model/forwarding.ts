import type {
  AdminState,
  Backend,
  BackendPool,
  Configuration,
  HealthState,
  HealthTransition,
  Probe,
  ProbeResult,
  Rule,
} from './configuration.js';

/** How far a drain has gone, as far as forwarding is concerned. */
export type DrainStage = { readonly ending: false } | { readonly ending: true; readonly spreadMs: number };

/** What an operator has set on a backend, over the configuration. What is absent is as configured. */
export interface BackendOverride {
  readonly adminState?: AdminState;
  /** 0-256; also outranks the weight that a probe's header gives. */
  readonly weight?: number;
  readonly drain?: DrainStage;
}

export type WeightOrigin = 'configured' | 'operator' | 'probe-header';

/** Why a backend gets no new flows. */
export type Exclusion =
  'probe-down' | 'probe-unknown' | 'admin-down' | 'draining' | 'weight-zero' | 'standby';

/** A backend as one pool view sees it at one revision. */
export interface BackendState {
  readonly backend: Backend;
  readonly health: HealthState;
  readonly adminState: AdminState;
  /** The operator's weight, the probe header's or the configured one. */
  readonly wantedWeight: number;
  readonly weightOrigin: WeightOrigin;
  /** How much of that it gets; below 100 in slow start. */
  readonly rampPercent: number;
  /**
   * What the table was built with: `wantedWeight`; while a member of the view is in slow start, that times `rampPercent`,
   * so that a part of weight 1 is a whole number too. Only proportions count.
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
  readonly pool: BackendPool;
  readonly probe?: Probe;
  readonly backends: readonly BackendState[];
  readonly table: Uint16Array;
  /** Priority of the group that serves. */
  readonly servingPriority?: number;
  /** Only while `table` is empty: all members but those switched down, for `allDown: fail-open`. */
  readonly failOpenTable?: Uint16Array;
}

/** The key of the view that a rule sees its pool through. */
export function viewKey({ pool, probe }: Pick<Rule, 'pool' | 'probe'>): string {
  return `${pool.name}|${probe?.name ?? ''}`;
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

/** What an operator asks of a drain. */
export interface DrainRequest {
  /** From the start until flows that are left meet `then`. */
  readonly deadlineMs: number;
  /** `reset`: the flow policy for `drain-deadline` of each flow's rule. `leave`: they stay; only new flows go elsewhere. */
  readonly then: 'reset' | 'leave';
  /** After the deadline, ends are spread evenly over this time, so that clients do not come back all at once. */
  readonly spreadMs: number;
}

/** `draining`: before the deadline. `ending`: flows are being ended. `done`: no flow is left, or they are left alone. */
export type DrainPhase = 'draining' | 'ending' | 'done';

/** A moment on both clocks: the monotonic one for arithmetic, the wall clock for people. */
export interface Instant {
  /** Milliseconds since some fixed point; never jumps back. */
  readonly monotonicMs: number;
  /** Milliseconds since the epoch; may jump. */
  readonly wallMs: number;
}

/** What is known about one probe target: one backend address seen through one probe definition. Plain data. */
export interface BackendHealth {
  /** After flap damping: what the forwarding state goes by. */
  readonly state: HealthState;
  /** Before flap damping: `up` while an up is being held back, else the same as `state`. */
  readonly measured: HealthState;
  /** Length of the current run of successes; 0 if the last counted result was a failure. */
  readonly consecutiveSuccesses: number;
  /** Length of the current run of failures; 0 if the last counted result was a success. */
  readonly consecutiveFailures: number;
  /** Changes of `state` so far, those that `history` has forgotten included. */
  readonly transitions: number;
  /** The last changes of `state`, oldest first, at most 16. */
  readonly history: readonly HealthTransition[];
  /** Monotonic times of the last changes of `measured` between up and down: what flap damping counts. */
  readonly recentChangesMs: readonly number[];
  /** Monotonic: before this, flap damping allows no up. Absent: nothing is held. */
  readonly heldUntilMs?: number | undefined;
  /** The weight in the last success's probe header (`weightFromProbeHeader`); absent: the configured one. */
  readonly weight?: number | undefined;
  /** The last result, inconclusive ones included. */
  readonly last?: ProbeResult;
}
