import type { ApplyReport, DataPlane, StopReport, UdpStop } from '../dataplane/data-plane.js';
import type { AdminState, Configuration } from '../model/configuration.js';
import type { ControlEvent } from '../model/control-events.js';
import type { PlaneEvent } from '../model/events.js';
import type { ForwardingState } from '../model/forwarding-state.js';
import type { Clock } from '../runtime/clock.js';
import type { ForwardingCompiler } from './forwarding-compiler.js';
import type { HealthSource } from './health-source.js';
import { servingChanges } from './serving-changes.js';

/** How long listening may wait for the first verdict on every backend, so that a start refuses nobody needlessly. */
const FIRST_VERDICT_GRACE_MS = 1000;

export interface BalancerDeps {
  readonly clock: Clock;
  readonly plane: DataPlane;
  readonly health: HealthSource;
  readonly compiler: ForwardingCompiler;
  /** Told of every fact of the control plane, in order. */
  readonly onEvent: (event: ControlEvent) => void;
  /** Told of every forwarding state before the plane gets it, so that no flow comes before its epoch. */
  readonly onState: (state: ForwardingState) => void;
}

/**
 * The control loop: health and admin state in, forwarding states out. One apply is under way at a time; changes that
 * come meanwhile make one more, so the plane always ends up with the newest state.
 */
export class Balancer {
  readonly #deps: BalancerDeps;
  #configuration: Configuration;
  #state: ForwardingState | undefined;
  #report: ApplyReport | undefined;
  #stopping = false;
  #stopped = false;
  #dirty = false;
  #applying: Promise<void> | undefined;

  constructor(deps: BalancerDeps, configuration: Configuration) {
    this.#deps = deps;
    this.#configuration = configuration;
  }

  /** The state that the plane has; undefined before the start. */
  get state(): ForwardingState | undefined {
    return this.#state;
  }

  /** What the plane said when it got that state, with the listeners of now; undefined before the start. */
  get report(): ApplyReport | undefined {
    return this.#report;
  }

  get stopping(): boolean {
    return this.#stopping;
  }

  /** Starts probing, waits shortly for first verdicts, starts the plane. Rejects if the plane cannot start. */
  async start(): Promise<ApplyReport> {
    const { plane, health, onEvent } = this.#deps;
    plane.subscribe((events) => this.#onPlaneEvents(events));
    health.onChange((change) => {
      if (change.transition !== undefined) {
        onEvent({
          type: 'health-changed',
          pool: change.pool,
          backendId: change.backend.id,
          backendName: change.backend.name,
          probe: change.probe,
          transition: change.transition,
        });
      }
      this.#changed();
    });
    health.start(this.#configuration);
    await this.#firstVerdicts();
    const state = this.#compile();
    this.#dirty = false;
    this.#deps.onState(state);
    // Changes from here on wait until the plane has started, and then make a second revision.
    this.#applying = Promise.resolve();
    const report = await plane.start(state);
    this.#applied(state, report);
    this.#applying = undefined;
    this.#applyIfDirty();
    return report;
  }

  /** Lets flows finish until the deadline; see DataPlane.stop. A second call may shorten it. */
  async stop(cause: string, deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    const { plane, health, onEvent } = this.#deps;
    this.#stopping = true;
    onEvent({ type: 'stopping', cause, deadlineMs });
    health.stop();
    const report = await plane.stop(deadlineMs, udp);
    if (!this.#stopped) onEvent({ type: 'stopped', report });
    this.#stopped = true;
    return report;
  }

  /** Resolves when no apply is under way: the sign of life of the control loop. */
  async settled(): Promise<void> {
    await this.#applying;
  }

  #onPlaneEvents(events: readonly PlaneEvent[]): void {
    for (const event of events) {
      if (event.type === 'passive-failure') this.#deps.health.hasten(event.backendId);
      if (event.type === 'listening-changed' && this.#report !== undefined) {
        this.#report = { ...this.#report, listeners: event.listeners };
      }
    }
  }

  #changed(): void {
    this.#dirty = true;
    this.#applyIfDirty();
  }

  #applyIfDirty(): void {
    if (!this.#dirty || this.#stopping || this.#applying !== undefined || this.#state === undefined) return;
    this.#applying = this.#applyUntilClean().finally(() => {
      this.#applying = undefined;
      // A change may have come between the last look and here.
      this.#applyIfDirty();
    });
  }

  async #applyUntilClean(): Promise<void> {
    while (this.#dirty && !this.#stopping) {
      this.#dirty = false;
      const state = this.#compile();
      this.#deps.onState(state);
      try {
        this.#applied(state, await this.#deps.plane.apply(state));
      } catch (error) {
        // A stop cuts off the apply under way: no news.
        if (!this.stopping) this.#deps.onEvent({ type: 'apply-failed', revision: state.revision, error });
      }
    }
  }

  #applied(state: ForwardingState, report: ApplyReport): void {
    const { onEvent } = this.#deps;
    const previous = this.#state;
    this.#state = state;
    this.#report = report;
    onEvent({ type: 'applied', digest: state.configuration.digest, report });
    for (const change of servingChanges(previous, state)) onEvent(change);
  }

  #compile(): ForwardingState {
    const { compiler, health } = this.#deps;
    return compiler.compile(this.#configuration, {
      health: (backend, probe) => health.healthOf(backend, probe),
      adminState: (backend): AdminState => backend.adminState,
      draining: () => false,
    });
  }

  async #firstVerdicts(): Promise<void> {
    const { clock, health } = this.#deps;
    let cancel: () => void = () => undefined;
    const grace = new Promise<void>((resolve) => {
      cancel = clock.setTimer(FIRST_VERDICT_GRACE_MS, resolve);
    });
    await Promise.race([health.firstVerdicts(), grace]);
    cancel();
  }
}
