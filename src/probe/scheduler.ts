import { compareAddresses, type IpAddress } from '../model/address.js';
import type { BackendHealth } from '../model/backend-health.js';
import type { HealthTransition } from '../model/probe.js';
import { MAX_JITTER_MS, ProbeLoop, type ProbeLoopDeps, type ProbeTarget } from './probe-loop.js';
import { probeKey, questionKey } from './probe-key.js';

/** Called after every probe result that counts, with a transition if it changed the state. */
export type HealthListener = (
  key: string,
  health: BackendHealth,
  transition: HealthTransition | undefined,
) => void;

export interface ProbeSchedulerOptions {
  /** New targets of one update that are probed without delay; the others are spread out. @default 16 */
  readonly immediateStarts?: number;
}

/** One target as it stands, for status pages and metrics. */
export interface ProbeStatus extends ProbeTarget {
  readonly key: string;
  readonly health: BackendHealth;
  /** How much longer flap damping holds back an up; absent: nothing is held. */
  readonly heldForMs?: number;
}

/**
 * Runs one probe loop for every distinct target, however many rules and pools share it. Health is kept by
 * `probeKey`, so re-ordering, renaming and unrelated edits lose nothing.
 */
export class ProbeScheduler {
  readonly #deps: ProbeLoopDeps;
  readonly #immediateStarts: number;
  readonly #listeners = new Set<HealthListener>();
  readonly #stopping = new Set<Promise<void>>();
  #loops = new Map<string, ProbeLoop>();
  /** What another process knew, by probe key. */
  #inherited: ReadonlyMap<string, BackendHealth> = new Map();
  #stopped = false;

  constructor(deps: ProbeLoopDeps, options: ProbeSchedulerOptions = {}) {
    this.#deps = deps;
    this.#immediateStarts = options.immediateStarts ?? 16;
  }

  /** Targets of the next update start with what is known here, by probe key. */
  inherit(known: ReadonlyMap<string, BackendHealth>): void {
    this.#inherited = known;
  }

  /**
   * Takes over a new set of targets; equal ones are merged. Targets that stay go on undisturbed; those that go are
   * aborted; new ones start at once, beyond the first few with jitter over min(interval, 1 s). A new target that
   * differs from an old one only in interval, timeout, thresholds or damping starts with the old one's health.
   */
  update(targets: readonly ProbeTarget[]): void {
    if (this.#stopped) return;
    const known = new Map<string, BackendHealth>();
    for (const { target, health } of this.#loops.values()) {
      known.set(questionKey(target.address, target.probe), health);
    }
    const loops = new Map<string, ProbeLoop>();
    let started = 0;
    for (const target of targets) {
      const key = probeKey(target.address, target.probe);
      if (loops.has(key)) continue;
      const running = this.#loops.get(key);
      if (running !== undefined) {
        running.relabel(target);
        loops.set(key, running);
        continue;
      }
      const past = this.#inherited.get(key) ?? known.get(questionKey(target.address, target.probe));
      const loop = this.#create(key, target, past);
      loops.set(key, loop);
      const spreadMs = Math.min(target.probe.intervalMs, MAX_JITTER_MS);
      loop.start(started++ < this.#immediateStarts ? 0 : spreadMs);
    }
    for (const [key, loop] of this.#loops) if (!loops.has(key)) this.#retire(loop);
    this.#loops = loops;
    this.#inherited = new Map();
  }

  /** The health of the target with this `probeKey`; undefined if there is none. */
  health(key: string): BackendHealth | undefined {
    return this.#loops.get(key)?.health;
  }

  /** All targets, in the order of the last update. */
  statuses(): readonly ProbeStatus[] {
    const nowMs = this.#deps.clock.monotonicMs();
    return [...this.#loops].map(([key, { target, health }]) => {
      const heldForMs = health.heldUntilMs === undefined ? 0 : health.heldUntilMs - nowMs;
      return { key, ...target, health, ...(heldForMs > 0 ? { heldForMs } : {}) };
    });
  }

  /** Traffic failed to reach this address: every target there is probed now, at most once per 500 ms. */
  hasten(address: IpAddress): void {
    for (const loop of this.#loops.values()) {
      if (compareAddresses(loop.target.address, address) === 0) loop.hasten();
    }
  }

  /** Calls the listener until the returned function is called. */
  onHealth(listener: HealthListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Aborts all probes and resolves when no socket or timer is left. No listener is called after. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const loop of this.#loops.values()) this.#retire(loop);
    this.#loops = new Map();
    await Promise.all(this.#stopping);
  }

  #create(key: string, target: ProbeTarget, health: BackendHealth | undefined): ProbeLoop {
    const { tracker } = this.#deps;
    return new ProbeLoop(this.#deps, target, health ?? tracker.initialHealth(), (after, transition) => {
      for (const listener of this.#listeners) listener(key, after, transition);
    });
  }

  #retire(loop: ProbeLoop): void {
    const stopping = loop.stop().finally(() => this.#stopping.delete(stopping));
    this.#stopping.add(stopping);
  }
}
