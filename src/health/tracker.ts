import type { Backend, Configuration, HealthTransition, LocalCause, Probe } from '../model/configuration.js';
import type { BackendHealth } from '../model/forwarding.js';
import type { Hindrances } from './hindrances.js';
import { probeKey, type ProbeScheduler } from './scheduler.js';
import { initialHealth } from './thresholds.js';

/** A probe's result changed what is known of a backend. */
export interface HealthChange {
  readonly pool: string;
  readonly backend: Backend;
  readonly probe: string;
  /** Absent if only the weight changed. */
  readonly transition?: HealthTransition | undefined;
}

/** Where the control loop learns how backends are. */
export type HealthSource = Pick<
  ProbeHealth,
  'watch' | 'healthOf' | 'onChange' | 'firstVerdicts' | 'hasten' | 'stop'
>;

/** One member of one pool, seen through one probe: several may share a probe target. */
export interface ProbedMember {
  readonly pool: string;
  readonly backend: Backend;
  readonly probe: Probe;
  readonly key: string;
}

/** Since the start: changes of state by what it changed to, and results by verdict. */
export type ProbeTally = Record<'up' | 'down' | 'success' | 'failure', number>;

/** Since the start: probes that could not leave this machine, by cause. */
export type InconclusiveTally = Partial<Record<LocalCause, number>>;

const UNKNOWN = initialHealth();

/** Health from active probes: translates between pools and backends here, and probe targets in the scheduler. */
export class ProbeHealth {
  readonly #scheduler: ProbeScheduler;
  readonly #hindrances: Hindrances | undefined;
  readonly #tallies = new Map<string, ProbeTally>();
  readonly #inconclusive = new Map<string, InconclusiveTally>();
  #members: readonly ProbedMember[] = [];
  #keyOf = new Map<string, string>();
  #waiting = new Set<string>();
  #allHeard: () => void = () => undefined;
  #firstVerdicts: Promise<void> = Promise.resolve();

  /** `hindrances` hear of every result, and of what is probed no more. */
  constructor(scheduler: ProbeScheduler, hindrances?: Hindrances) {
    this.#scheduler = scheduler;
    this.#hindrances = hindrances;
    scheduler.onHealth((key, { last }) => {
      if (last === undefined) return;
      if (last.inconclusive !== undefined) this.#countInconclusive(key, last.inconclusive);
      hindrances?.observe(key, last);
    });
  }

  /** Probes what these configurations name, and nothing else. Probes that are running already are not disturbed. */
  watch(configurations: readonly Configuration[]): void {
    this.#members = probedMembers(configurations);
    this.#keyOf = new Map(
      this.#members.map(({ backend, probe, key }) => [memberKey(backend, probe.name), key]),
    );
    this.#scheduler.update(this.#members.map(({ backend, probe }) => ({ address: backend.address, probe })));
    this.#hindrances?.keep(new Set(this.#members.map(({ key }) => key)));
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

  healthOf(backend: Backend, probe: string): Pick<BackendHealth, 'state' | 'weight'> {
    const key = this.#keyOf.get(memberKey(backend, probe)) ?? '';
    const { state, weight } = this.#scheduler.health(key) ?? UNKNOWN;
    return { state, weight };
  }

  onChange(listener: (change: HealthChange) => void): void {
    const weights = new Map<string, number | undefined>();
    this.#scheduler.onHealth((key, health, transition) => {
      // A probe that never left this machine is no verdict.
      if (health.last?.inconclusive !== undefined) return;
      this.#heard(key);
      const sameWeight = weights.get(key) === health.weight;
      weights.set(key, health.weight);
      this.#tally(key, health, transition);
      if (transition === undefined && sameWeight) return;
      for (const { pool, backend, probe } of this.#members.filter((member) => member.key === key)) {
        listener({ pool, backend, probe: probe.name, transition });
      }
    });
  }

  /** Resolves once every backend watched by now has had a verdict from each of its probes. */
  firstVerdicts(): Promise<void> {
    return this.#firstVerdicts;
  }

  /** Traffic failed: probe this backend now. */
  hasten(backendId: string): void {
    const member = this.#members.find(({ backend }) => backend.id === backendId);
    if (member !== undefined) this.#scheduler.hasten(member.backend.address);
  }

  stop(): void {
    this.#hindrances?.stop();
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

  /** Probes of a target that could not leave this machine, since the start. */
  inconclusiveOf(key: string): InconclusiveTally {
    return this.#inconclusive.get(key) ?? {};
  }

  #countInconclusive(key: string, cause: LocalCause): void {
    const tally = this.inconclusiveOf(key);
    this.#inconclusive.set(key, { ...tally, [cause]: (tally[cause] ?? 0) + 1 });
  }

  #tally(key: string, { last }: BackendHealth, transition: HealthTransition | undefined): void {
    const tally = this.tallyOf(key);
    if (last !== undefined) tally[last.verdict]++;
    if (transition !== undefined && transition.to !== 'unknown') tally[transition.to]++;
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
