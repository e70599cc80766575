import { createHash } from 'node:crypto';
import { compareAddresses, type IpAddress } from '../model/address.js';
import type { HealthTransition, Probe } from '../model/configuration.js';
import type { BackendHealth } from '../model/forwarding.js';
import type { Clock } from '../runtime/clock.js';
import type { ProbeRunner } from './probes.js';
import { initialHealth, observe } from './thresholds.js';

/** Called after every probe result that counts, with a transition if it changed the state. */
type OnHealth = (key: string, health: BackendHealth, transition: HealthTransition | undefined) => void;

/** New targets of one update that are probed without delay; the others are spread out. */
export const IMMEDIATE_STARTS = 16;

/**
 * Runs one probe loop for every distinct target, however many rules and pools share it. Health is kept by
 * `probeKey`, so re-ordering, renaming and unrelated edits lose nothing.
 */
export class ProbeScheduler {
  readonly #deps: ProbeLoopDeps;
  readonly #listeners: OnHealth[] = [];
  readonly #stopping = new Set<Promise<void>>();
  #loops = new Map<string, ProbeLoop>();
  /** What another process knew, by probe key. */
  #inherited: ReadonlyMap<string, BackendHealth> = new Map();
  #stopped = false;

  constructor(deps: ProbeLoopDeps) {
    this.#deps = deps;
  }

  /** Targets of the next update start with what is known here, by probe key. */
  inherit(known: ReadonlyMap<string, BackendHealth>): void {
    this.#inherited = known;
  }

  /**
   * Takes over a new set of targets; equal ones are merged. Targets that stay are not disturbed; those that go are
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
      let loop = this.#loops.get(key);
      if (loop === undefined) {
        const past = this.#inherited.get(key) ?? known.get(questionKey(target.address, target.probe));
        loop = new ProbeLoop(this.#deps, key, target, past ?? initialHealth(), this.#told);
        loop.start(started++ < IMMEDIATE_STARTS ? 0 : Math.min(target.probe.intervalMs, MAX_JITTER_MS));
      }
      loops.set(key, loop);
    }
    for (const [key, loop] of this.#loops) if (!loops.has(key)) this.#retire(loop);
    this.#loops = loops;
    this.#inherited = new Map();
  }

  /** The health of the target with this `probeKey`; undefined if there is none. */
  health(key: string): BackendHealth | undefined {
    return this.#loops.get(key)?.health;
  }

  /** Traffic failed to reach this address: every target there is probed now, at most once per 500 ms. */
  hasten(address: IpAddress): void {
    for (const loop of this.#loops.values()) {
      if (compareAddresses(loop.target.address, address) === 0) loop.hasten();
    }
  }

  onHealth(listener: OnHealth): void {
    this.#listeners.push(listener);
  }

  /** Aborts all probes and resolves when no socket or timer is left. No listener is called after. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const loop of this.#loops.values()) this.#retire(loop);
    this.#loops = new Map();
    await Promise.all(this.#stopping);
  }

  readonly #told: OnHealth = (key, health, transition) => {
    for (const listener of this.#listeners) listener(key, health, transition);
  };

  #retire(loop: ProbeLoop): void {
    const stopping = loop.stop().finally(() => this.#stopping.delete(stopping));
    this.#stopping.add(stopping);
  }
}

/** Passive failures bring the next probe forward at most this often. */
const HASTEN_SPACING_MS = 500;

/** Probes that fall due together, at the start or after a freeze, are spread over at most this long. */
const MAX_JITTER_MS = 1000;

/** A timer this many intervals late means that this process stood still. */
const FROZEN_INTERVALS = 2;

interface ProbeLoopDeps {
  readonly clock: Clock;
  readonly runner: ProbeRunner;
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
class ProbeLoop {
  readonly target: ProbeTarget;
  readonly #deps: ProbeLoopDeps;
  readonly #key: string;
  readonly #onHealth: OnHealth;
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
    key: string,
    target: ProbeTarget,
    health: BackendHealth,
    onHealth: OnHealth,
  ) {
    this.#deps = deps;
    this.#key = key;
    this.target = target;
    this.#health = health;
    this.#onHealth = onHealth;
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
      const spreadMs = Math.min(this.target.probe.intervalMs, MAX_JITTER_MS);
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
    const { clock, runner } = this.#deps;
    const { address, probe } = this.target;
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
    const { health, transition } = observe(this.#health, probe, result, at);
    this.#health = health;
    this.#onHealth(this.#key, health, transition);
  }

  #wasFrozen(dueMs: number): boolean {
    return this.#deps.clock.monotonicMs() - dueMs > FROZEN_INTERVALS * this.target.probe.intervalMs;
  }
}

/** A label: no part of what is asked. */
const LABEL: readonly (keyof Probe)[] = ['name'];

/** How often and how patiently is asked, as opposed to what. */
const PACING: readonly (keyof Probe)[] = [
  'intervalMs',
  'timeoutMs',
  'upThreshold',
  'downThreshold',
  'flapDamping',
];

/**
 * Identity of a probe target: the backend's address and all of the probe's definition but its name. Rules, pools
 * and probes that agree in both share one target. Short, stable over restarts, fit for logs:
 * `127.0.0.11 http:9000 5c1f0e6a93d2b7c4`.
 */
export function probeKey(address: IpAddress, probe: Probe): string {
  return keyWithout(LABEL, address, probe);
}

/**
 * As probeKey, less interval, timeout, thresholds and damping: targets with equal keys ask the same question, so one
 * may start with what the other knows when only the pacing is edited.
 */
export function questionKey(address: IpAddress, probe: Probe): string {
  return keyWithout([...LABEL, ...PACING], address, probe);
}

function keyWithout(left: readonly string[], address: IpAddress, probe: Probe): string {
  const definition = Object.fromEntries(Object.entries(probe).filter(([field]) => !left.includes(field)));
  const digest = createHash('sha256').update(canonicalJson(definition)).digest('hex').slice(0, 16);
  return `${address.text} ${probe.protocol}:${probe.port} ${digest}`;
}

/** JSON with sorted keys, so that the order in which a definition was written never matters. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_field, part: unknown) => {
    if (typeof part !== 'object' || part === null || Array.isArray(part)) return part;
    // An address is its text; its bytes would be the same again.
    if ('bytes' in part && 'text' in part) return part.text;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
