import type { HealthState, HealthTransition, ProbeResult } from './probe.js';

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
  readonly heldUntilMs?: number;
  /** The weight in the last success's probe header (`weightFromProbeHeader`); absent: the configured one. */
  readonly weight?: number;
  /** The last result, inconclusive ones included. */
  readonly last?: ProbeResult;
}
