import type {
  Backend,
  Configuration,
  HealthState,
  HealthTransition,
  Probe,
  ProbeResult,
} from '../model/configuration.js';
import type { BackendHealth, Instant } from '../model/forwarding.js';
import { probeKey, type ProbeScheduler, type ProbeTarget } from './scheduler.js';

/** How many transitions a target's history keeps. */
export const HISTORY_LENGTH = 16;

/** What one probe result made of a target's health. */
export interface Observation {
  readonly health: BackendHealth;
  /** Set if `state` changed; also the last entry of `health.history`. */
  readonly transition?: HealthTransition;
}

/** A target nobody has probed yet: `unknown`, which gets no new flows. */
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
 * ones; the first success of an unknown target brings it up. A result marked `inconclusive` changes nothing but
 * `last`.
 */
export function observe(health: BackendHealth, probe: Probe, result: ProbeResult, at: Instant): Observation {
  if (result.inconclusive === true) return { health: { ...health, last: result } };
  const success = result.verdict === 'success';
  const consecutiveSuccesses = success ? health.consecutiveSuccesses + 1 : 0;
  const consecutiveFailures = success ? 0 : health.consecutiveFailures + 1;
  const measured = measure(health.measured, probe, result, consecutiveSuccesses, consecutiveFailures);
  const damped = damp(health, measured, probe, success, at.monotonicMs);

  const weight = success ? result.weight : health.weight;
  const counted = {
    measured,
    consecutiveSuccesses,
    consecutiveFailures,
    recentChangesMs: damped.recentChangesMs,
    last: result,
    ...(damped.heldUntilMs === undefined ? {} : { heldUntilMs: damped.heldUntilMs }),
    ...(weight === undefined ? {} : { weight }),
  };
  const { state, transitions, history } = health;
  if (damped.state === state) return { health: { ...counted, state, transitions, history } };

  const evidence = damped.released ? `${result.evidence} (was held back for flapping)` : result.evidence;
  const transition: HealthTransition = { atMs: at.wallMs, from: state, to: damped.state, evidence };
  return {
    health: {
      ...counted,
      state: damped.state,
      transitions: transitions + 1,
      history: [...history, transition].slice(-HISTORY_LENGTH),
    },
    transition,
  };
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
  readonly heldUntilMs?: number;
  readonly released: boolean;
}

/**
 * Holds back an up that comes after too many changes. Counts changes of the measured state, so that a target that
 * goes on flapping while held does not look calm. A measured down ends the hold; the next up starts a new one.
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

/** One member of one pool, seen through one probe: several may share a probe target. */
export interface ProbedMember {
  readonly pool: string;
  readonly backend: Backend;
  readonly probe: Probe;
  readonly key: string;
}

/** Since the start: changes of state by what it changed to, and results by verdict. */
export type ProbeTally = Record<'up' | 'down' | 'success' | 'failure', number>;

const UNKNOWN: { readonly state: HealthState } = { state: 'unknown' };

/** Health from active probes: translates between pools and backends here, and probe targets in the scheduler. */
export class ProbeHealth implements HealthSource {
  readonly #scheduler: ProbeScheduler;
  readonly #tallies = new Map<string, ProbeTally>();
  #members: readonly ProbedMember[] = [];
  #keyOf = new Map<string, string>();
  #waiting = new Set<string>();
  #allHeard: () => void = () => undefined;
  #firstVerdicts: Promise<void> = Promise.resolve();

  constructor(scheduler: ProbeScheduler) {
    this.#scheduler = scheduler;
  }

  watch(configurations: readonly Configuration[]): void {
    this.#members = probedMembers(configurations);
    this.#keyOf = new Map(
      this.#members.map(({ backend, probe, key }) => [memberKey(backend, probe.name), key]),
    );
    const targets = this.#members.map(({ backend, probe }): ProbeTarget => ({
      address: backend.address,
      probe,
    }));
    this.#scheduler.update(targets);
    const silent = this.#members.filter(({ key }) => this.#scheduler.health(key)?.last === undefined);
    this.#allHeard();
    this.#waiting = new Set(silent.map(({ key }) => key));
    this.#firstVerdicts = new Promise((resolve) => (this.#allHeard = resolve));
    if (this.#waiting.size === 0) this.#allHeard();
  }

  /** Before `watch`: what another process knew of these probe targets, by probe key. */
  inherit(known: ReadonlyMap<string, BackendHealth>): void {
    this.#scheduler.inherit(known);
  }

  healthOf(backend: Backend, probe: string): { readonly state: HealthState; readonly weight?: number } {
    const health = this.#healthOfMember(memberKey(backend, probe));
    if (health === undefined) return UNKNOWN;
    return health.weight === undefined
      ? { state: health.state }
      : { state: health.state, weight: health.weight };
  }

  onChange(listener: (change: HealthChange) => void): void {
    const weights = new Map<string, number | undefined>();
    this.#scheduler.onHealth((key, health, transition) => {
      // A probe that never left this process is no verdict on anybody.
      if (health.last?.inconclusive === true) return;
      this.#heard(key);
      const sameWeight = weights.get(key) === health.weight;
      weights.set(key, health.weight);
      this.#tally(key, health, transition);
      if (transition === undefined && sameWeight) return;
      for (const { pool, backend, probe } of this.#members.filter((member) => member.key === key)) {
        listener({ pool, backend, probe: probe.name, ...(transition === undefined ? {} : { transition }) });
      }
    });
  }

  firstVerdicts(): Promise<void> {
    return this.#firstVerdicts;
  }

  hasten(backendId: string): void {
    const member = this.#members.find(({ backend }) => backend.id === backendId);
    if (member !== undefined) this.#scheduler.hasten(member.backend.address);
  }

  stop(): void {
    void this.#scheduler.stop();
  }

  /** Every member with what is known of it, for metrics and status pages. */
  statuses(): readonly (ProbedMember & { readonly health: BackendHealth | undefined })[] {
    return this.#members.map((member) => ({ ...member, health: this.#scheduler.health(member.key) }));
  }

  /** Results and changes of state of a probe target since the start. */
  tallyOf(key: string): ProbeTally {
    let tally = this.#tallies.get(key);
    if (tally === undefined) {
      tally = { up: 0, down: 0, success: 0, failure: 0 };
      this.#tallies.set(key, tally);
    }
    return tally;
  }

  #tally(key: string, { last }: BackendHealth, transition: HealthTransition | undefined): void {
    const tally = this.tallyOf(key);
    if (last !== undefined) tally[last.verdict]++;
    if (transition !== undefined && transition.to !== 'unknown') tally[transition.to]++;
  }

  #healthOfMember(key: string): BackendHealth | undefined {
    const target = this.#keyOf.get(key);
    return target === undefined ? undefined : this.#scheduler.health(target);
  }

  /** A result came; the start waits for one from each target, whatever it said. */
  #heard(key: string): void {
    if (this.#waiting.delete(key) && this.#waiting.size === 0) this.#allHeard();
  }
}

function memberKey(backend: Backend, probe: string): string {
  return `${backend.id} ${probe}`;
}

/** Every backend of every pool, once for each probe that a rule sees the pool through. The last configuration wins. */
function probedMembers(configurations: readonly Configuration[]): readonly ProbedMember[] {
  const members = new Map<string, ProbedMember>();
  for (const configuration of configurations) {
    for (const { pool, probe } of configuration.rules) {
      if (probe === undefined) continue;
      for (const backend of pool.backends) {
        const key = probeKey(backend.address, probe);
        members.set(`${memberKey(backend, probe.name)} ${key}`, { pool: pool.name, backend, probe, key });
      }
    }
  }
  return [...members.values()];
}

/** A probe's result changed what is known of a backend. */
export interface HealthChange {
  readonly pool: string;
  readonly backend: Backend;
  readonly probe: string;
  /** Absent if only the weight changed. */
  readonly transition?: HealthTransition;
}

/** Where the control loop learns how backends are. */
export interface HealthSource {
  /** Probes what these configurations name, and nothing else. What is known already goes on undisturbed. */
  watch(configurations: readonly Configuration[]): void;
  healthOf(backend: Backend, probe: string): { readonly state: HealthState; readonly weight?: number };
  onChange(listener: (change: HealthChange) => void): void;
  /** Resolves once every backend watched by now has had a verdict from each of its probes. */
  firstVerdicts(): Promise<void>;
  /** Traffic failed: probe this backend now. */
  hasten(backendId: string): void;
  stop(): void;
}
