import type { HealthState, HealthTransition, Probe, ProbeResult } from '../model/configuration.js';
import type { BackendHealth, Instant } from '../model/forwarding.js';

/** How many transitions a target's history keeps. */
export const HISTORY_LENGTH = 16;

/** What one probe result made of a target's health. */
export interface Observation {
  readonly health: BackendHealth;
  /** Set if `state` changed; also the last entry of `health.history`. */
  readonly transition?: HealthTransition;
}

/** A target that was not probed yet: `unknown`, which gets no new flows. */
export function initialHealth(): BackendHealth {
  return {
    state: 'unknown',
    measured: 'unknown',
    consecutiveSuccesses: 0,
    consecutiveFailures: 0,
    transitions: 0,
    history: [],
    recentChangesMs: [],
  };
}

/**
 * Takes one probe result into account. Pure. Only consecutive results count: a result that agrees with the state
 * ends the run of those that do not. Azure's rules (custom-probe-overview, "Probe threshold"): TCP needs the
 * threshold both ways; HTTP with `explicitAnswerFlips` follows an explicit answer at once and counts only missing
 * ones; the first success of an unknown target brings it up. A result that is `inconclusive` changes nothing but
 * `last`.
 */
export function observe(health: BackendHealth, probe: Probe, result: ProbeResult, at: Instant): Observation {
  if (result.inconclusive !== undefined) return { health: { ...health, last: result } };
  const success = result.verdict === 'success';
  const consecutiveSuccesses = success ? health.consecutiveSuccesses + 1 : 0;
  const consecutiveFailures = success ? 0 : health.consecutiveFailures + 1;
  const measured = measure(health.measured, probe, result, consecutiveSuccesses, consecutiveFailures);
  const damped = damp(health, measured, probe, success, at.monotonicMs);

  const { state, recentChangesMs, heldUntilMs } = damped;
  const counted: BackendHealth = {
    ...{ state, measured, consecutiveSuccesses, consecutiveFailures, recentChangesMs, heldUntilMs },
    ...{ weight: success ? result.weight : health.weight, last: result },
    ...{ transitions: health.transitions, history: health.history },
  };
  if (state === health.state) return { health: counted };

  const evidence = damped.released ? `${result.evidence} (was held back for flapping)` : result.evidence;
  const transition: HealthTransition = { atMs: at.wallMs, from: health.state, to: state, evidence };
  const history = [...health.history, transition].slice(-HISTORY_LENGTH);
  return { health: { ...counted, transitions: health.transitions + 1, history }, transition };
}

/** The state by thresholds alone. */
function measure(
  current: HealthState,
  probe: Probe,
  result: ProbeResult,
  successes: number,
  failures: number,
): HealthState {
  const decisive = probe.protocol !== 'tcp' && probe.explicitAnswerFlips && result.answer === 'explicit';
  if (result.verdict === 'success') {
    return decisive || current === 'unknown' || successes >= probe.upThreshold ? 'up' : current;
  }
  return decisive || failures >= probe.downThreshold ? 'down' : current;
}

interface Damped {
  readonly state: HealthState;
  readonly recentChangesMs: readonly number[];
  readonly heldUntilMs?: number | undefined;
  readonly released: boolean;
}

/**
 * Holds back an up that comes after too many changes. Counts changes of the measured state, so that a target that
 * keeps flapping while held does not look calm. A measured down ends the hold; the next up starts a new one.
 */
function damp(
  health: BackendHealth,
  measured: HealthState,
  probe: Probe,
  success: boolean,
  nowMs: number,
): Damped {
  const damping = probe.flapDamping;
  if (damping === undefined) return { state: measured, recentChangesMs: [], released: false };

  const recent = health.recentChangesMs.filter((changedMs) => nowMs - changedMs < damping.windowMs);
  // Leaving `unknown` is a start, not a flap. Only the last `transitions` changes can ever matter.
  const changed = measured !== health.measured && health.measured !== 'unknown';
  const recentChangesMs = changed ? [...recent, nowMs].slice(-damping.transitions) : recent;

  if (measured !== 'up') return { state: measured, recentChangesMs, released: false };
  if (changed && recent.length >= damping.transitions) {
    return { state: health.state, recentChangesMs, heldUntilMs: nowMs + damping.holdMs, released: false };
  }
  const { heldUntilMs } = health;
  if (heldUntilMs === undefined) return { state: measured, recentChangesMs, released: false };
  // A lone failure within the threshold leaves the measured state up, but is no moment to let traffic back.
  if (nowMs >= heldUntilMs && success) return { state: 'up', recentChangesMs, released: true };
  return { state: health.state, recentChangesMs, heldUntilMs, released: false };
}
