import type { IpAddress } from '../model/address.js';
import type { BackendHealth, Instant } from '../model/backend-health.js';
import type { HealthTransition, Probe, ProbeResult } from '../model/probe.js';
import type { Clock } from '../runtime/clock.js';
import type { ProbeRunner } from './probe-runner.js';

/** Passive failures bring the next probe forward at most this often. */
export const HASTEN_SPACING_MS = 500;

/** Probes that fall due together, at the start or after a freeze, are spread over at most this long. */
export const MAX_JITTER_MS = 1000;

/** A timer this many intervals late means that this process stood still. */
const FROZEN_INTERVALS = 2;

/** The reducer that turns results into health; see pool/health-tracker. */
export interface HealthTracker {
  initialHealth(): BackendHealth;
  observe(
    health: BackendHealth,
    probe: Probe,
    result: ProbeResult,
    at: Instant,
  ): { readonly health: BackendHealth; readonly transition?: HealthTransition };
}

export interface ProbeLoopDeps {
  readonly clock: Clock;
  readonly runner: ProbeRunner;
  readonly tracker: HealthTracker;
  /** 0 <= x < 1. */
  readonly random: () => number;
}

/** One backend address seen through one probe definition. */
export interface ProbeTarget {
  readonly address: IpAddress;
  readonly probe: Probe;
}

interface Flight {
  readonly controller: AbortController;
  readonly done: Promise<void>;
}

/**
 * Probes one target until stopped: a probe every interval, counted from the start of the one before, and never two
 * at a time. A probe that was under way while this process stood still (suspended, stopped, starved) is thrown away:
 * the silence was ours. Only the monotonic clock counts.
 */
export class ProbeLoop {
  #target: ProbeTarget;
  readonly #deps: ProbeLoopDeps;
  readonly #onHealth: (health: BackendHealth, transition: HealthTransition | undefined) => void;
  #health: BackendHealth;
  #cancelTimer: () => void = () => undefined;
  #flight: Flight | undefined;
  #startedMs = 0;
  #hastenedMs = -Infinity;
  #hurry = false;
  #stopped = false;

  /** Does nothing before `start`. `onHealth` is called after every result that counts. */
  constructor(
    deps: ProbeLoopDeps,
    target: ProbeTarget,
    health: BackendHealth,
    onHealth: (health: BackendHealth, transition: HealthTransition | undefined) => void,
  ) {
    this.#deps = deps;
    this.#target = target;
    this.#health = health;
    this.#onHealth = onHealth;
  }

  get target(): ProbeTarget {
    return this.#target;
  }

  /** Takes over the name of an otherwise equal target. */
  relabel(target: ProbeTarget): void {
    this.#target = target;
  }

  get health(): BackendHealth {
    return this.#health;
  }

  /** First probe now (on the next turn of the event loop), or some time within `withinMs`, by chance. */
  start(withinMs: number): void {
    this.#schedule(this.#deps.random() * withinMs);
  }

  /** Next probe now, or as soon as the one under way has ended. At most once per 500 ms. */
  hasten(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    if (this.#stopped || nowMs - this.#hastenedMs < HASTEN_SPACING_MS) return;
    this.#hastenedMs = nowMs;
    if (this.#flight === undefined) this.#schedule(0);
    else this.#hurry = true;
  }

  /** Aborts the probe under way and resolves when its sockets are gone. No call of `onHealth` comes after. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelTimer();
    this.#flight?.controller.abort();
    await this.#flight?.done;
  }

  #schedule(delayMs: number): void {
    const { clock, random } = this.#deps;
    const dueMs = clock.monotonicMs() + delayMs;
    this.#setTimer(delayMs, () => {
      if (!this.#wasFrozen(dueMs)) {
        this.#launch();
        return;
      }
      // After a freeze every target is overdue: do not ask them all at once.
      const spreadMs = Math.min(this.#target.probe.intervalMs, MAX_JITTER_MS);
      this.#setTimer(random() * spreadMs, () => this.#launch());
    });
  }

  #setTimer(delayMs: number, callback: () => void): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#deps.clock.setTimer(delayMs, callback);
  }

  #launch(): void {
    const controller = new AbortController();
    this.#hurry = false;
    this.#startedMs = this.#deps.clock.monotonicMs();
    this.#flight = { controller, done: this.#probe(controller) };
  }

  async #probe(controller: AbortController): Promise<void> {
    const { clock, runner, tracker } = this.#deps;
    const { address, probe } = this.#target;
    const deadlineMs = this.#startedMs + probe.timeoutMs;
    const cancelTimeout = clock.setTimer(probe.timeoutMs, () => controller.abort());
    const result = await runner.run(probe, address, controller.signal);
    cancelTimeout();
    this.#flight = undefined;
    if (this.#stopped) return;

    const frozen = this.#wasFrozen(deadlineMs);
    const sinceStartMs = clock.monotonicMs() - this.#startedMs;
    this.#schedule(this.#hurry ? 0 : Math.max(0, probe.intervalMs - sinceStartMs));
    if (frozen) return;
    const at = { monotonicMs: clock.monotonicMs(), wallMs: clock.wallMs() };
    const { health, transition } = tracker.observe(this.#health, probe, result, at);
    this.#health = health;
    this.#onHealth(health, transition);
  }

  #wasFrozen(dueMs: number): boolean {
    return this.#deps.clock.monotonicMs() - dueMs > FROZEN_INTERVALS * this.#target.probe.intervalMs;
  }
}
