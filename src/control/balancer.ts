import type { HealthSource } from '../health/tracker.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import type { ControlEvent, PlaneEvent, PoolServingChanged } from '../model/events.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
import type { ApplyReport, DataPlane, StopReport, UdpStop } from '../planes/contract.js';
import { inTime, type Clock } from '../runtime/clock.js';
import { SerialQueue } from '../runtime/queue.js';
import type { CompilerInputs, ForwardingCompiler } from '../selection/compiler.js';
import { Overrides } from './overrides.js';
import { SlowStart } from './slow-start.js';

/** A state that the plane has refused is compiled and tried anew so much later. */
const RETRY_APPLY_MS = 2000;

/** How long listening may wait for the first verdict on every backend, so that a start or a reload refuses no client needlessly. */
const FIRST_VERDICT_GRACE_MS = 1000;

export interface BalancerDeps {
  readonly clock: Clock;
  readonly plane: DataPlane;
  readonly health: HealthSource;
  readonly compiler: ForwardingCompiler;
  /** Called with every event of the control plane, in order. */
  readonly onEvent: (event: ControlEvent) => void;
  /** Called with every forwarding state before the plane gets it, so that no flow is logged before its epoch. */
  readonly onState: (state: ForwardingState) => void;
}

/**
 * The control loop: health and admin state in, forwarding states out. One apply is under way at a time; changes that
 * come meanwhile make one more, so the plane always ends up with the newest state.
 */
export class Balancer {
  /** What operators have set; call `refresh` after a change. */
  readonly overrides = new Overrides();
  readonly #deps: BalancerDeps;
  readonly #slowStart: SlowStart;
  #configuration: Configuration;
  #state: ForwardingState | undefined;
  #report: ApplyReport | undefined;
  /** The first state is compiled: what changes from now on needs another. */
  #begun = false;
  #stopping = false;
  #stopped = false;
  /** Applies and reconfigurations. */
  readonly #queue = new SerialQueue();
  /** An apply that has not begun: it will compile whatever is known by then. */
  #next: Promise<void> | undefined;
  #cancelRetry: () => void = () => undefined;

  constructor(deps: BalancerDeps, configuration: Configuration) {
    this.#deps = deps;
    this.#configuration = configuration;
    this.#slowStart = new SlowStart(deps.clock, () => this.#changed());
  }

  get configuration(): Configuration {
    return this.#configuration;
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

  /**
   * Starts probing, waits shortly for first verdicts, starts the plane. Rejects if the plane cannot start. `beforePlane`
   * comes last before that, when all else is ready.
   */
  async start(beforePlane: () => Promise<void> = () => Promise.resolve()): Promise<ApplyReport> {
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
    health.watch([this.#configuration]);
    await this.#firstVerdicts();
    // Changes from here on wait until the plane has started, and then make a second revision.
    return this.#queue.run(async () => {
      this.#begun = true;
      const state = this.#compile(this.#configuration);
      this.#deps.onState(state);
      await beforePlane();
      const report = await plane.start(state);
      this.#applied(state, report);
      return report;
    });
  }

  /** Resolves when the plane has a state that knows of everything set until now. Rejects if it refused it. */
  refresh(): Promise<void> {
    if (this.#stopping) return Promise.resolve();
    this.#next ??= this.#queue.run(async () => {
      this.#next = undefined;
      // Without a state the start has failed.
      if (!this.#stopping && this.#state !== undefined) await this.#apply(this.#configuration);
    });
    return this.#next;
  }

  /**
   * Takes another configuration over, whole or not at all: backends that are new are probed first, then the plane gets
   * the new state; if it refuses, everything goes back, and it rejects with `LB_APPLY_FAILED`. One call at a time.
   */
  async reconfigure(configuration: Configuration): Promise<ApplyReport> {
    const { health } = this.#deps;
    const before = this.#configuration;
    // While both are probed, what is known of a backend is what the probe of the last one named says.
    health.watch([configuration, before]);
    await this.#firstVerdicts();
    return this.#queue.run(async () => {
      try {
        health.watch([before, configuration]);
        const report = await this.#apply(configuration);
        this.#configuration = configuration;
        health.watch([configuration]);
        return report;
      } catch (cause) {
        health.watch([before]);
        // Of several workers some may have taken it over.
        await this.#apply(before).catch(() => undefined);
        throw new BalancerError(`The data plane refused the new configuration: ${errorMessage(cause)}`, {
          code: 'LB_APPLY_FAILED',
          source: 'system',
          cause,
        });
      }
    });
  }

  /**
   * What the plane would get if this were the configuration. Changes nothing; its revision counts for nothing. Without
   * inputs: the present ones, except that backends without a probe yet count as up.
   */
  preview(configuration: Configuration, inputs: CompilerInputs = this.#withNewcomersUp()): ForwardingState {
    return this.#deps.compiler.preview(configuration, inputs);
  }

  /** Lets flows finish until the deadline; see DataPlane.stop. A second call may shorten it. */
  async stop(cause: string, deadlineMs: number, udp?: UdpStop): Promise<StopReport> {
    const { plane, health, onEvent } = this.#deps;
    this.#stopping = true;
    this.#cancelRetry();
    this.#slowStart.stop();
    // Then the kernel plane leaves everything where it is.
    const kept = udp === 'at-once' && this.configuration.kernel !== undefined;
    onEvent({ type: 'stopping', cause, deadlineMs, ...(kept && { keptInKernel: true }) });
    health.stop();
    const report = await plane.stop(deadlineMs, udp);
    if (!this.#stopped) onEvent({ type: 'stopped', report, ...(kept && { keptInKernel: true }) });
    this.#stopped = true;
    return report;
  }

  /** Resolves when no apply is under way: the sign of life of the control loop. */
  async settled(): Promise<void> {
    await this.#queue.idle();
  }

  #onPlaneEvents(events: readonly PlaneEvent[]): void {
    for (const event of events) {
      if (event.type === 'passive-failure' || event.type === 'port-refused') {
        this.#deps.health.hasten(event.backendId);
      }
      if (event.type === 'listening-changed' && this.#report !== undefined) {
        this.#report = { ...this.#report, listeners: event.listeners };
      }
    }
  }

  #changed(): void {
    // A refusal was told as an event, and is tried again.
    if (this.#begun) void this.refresh().catch(() => undefined);
  }

  async #apply(configuration: Configuration): Promise<ApplyReport> {
    const { plane, onEvent, onState } = this.#deps;
    this.#cancelRetry();
    const state = this.#compile(configuration);
    onState(state);
    try {
      const report = await plane.apply(state);
      this.#applied(state, report);
      return report;
    } catch (error) {
      // A stop cuts off the apply under way: no news.
      if (!this.#stopping) {
        onEvent({ type: 'apply-failed', revision: state.revision, error });
        this.#cancelRetry = this.#deps.clock.setTimer(RETRY_APPLY_MS, () => this.#changed());
      }
      throw error;
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

  #compile(configuration: Configuration): ForwardingState {
    const { compiler } = this.#deps;
    const state = compiler.compile(configuration, this.inputs());
    // The revision in between is never seen by anybody.
    return this.#slowStart.observe(this.#state, state)
      ? compiler.compile(configuration, this.inputs())
      : state;
  }

  /** What sways a forwarding state now. */
  inputs(): CompilerInputs {
    return {
      health: (backend, probe) => this.#deps.health.healthOf(backend, probe),
      override: ({ id }) => this.overrides.of(id),
      rampPercent: (backend) => this.#slowStart.percent(backend),
    };
  }

  #withNewcomersUp(): CompilerInputs {
    const inputs = this.inputs();
    const probed = new Set(
      this.#state?.views.flatMap(({ backends, probe }) =>
        backends.map(({ backend }) => `${backend.id} ${probe?.name ?? ''}`),
      ),
    );
    return {
      ...inputs,
      health: (backend, probe) =>
        probed.has(`${backend.id} ${probe}`) ? inputs.health(backend, probe) : { state: 'up' },
    };
  }

  async #firstVerdicts(): Promise<void> {
    const { clock, health } = this.#deps;
    await inTime(health.firstVerdicts(), FIRST_VERDICT_GRACE_MS, clock).catch(() => undefined);
  }
}

/** Which pool views serve with other members than before; at the first state, all of them. */
function servingChanges(
  before: ForwardingState | undefined,
  after: ForwardingState,
): readonly PoolServingChanged[] {
  const previous = new Map(before?.views.map((view) => [view.key, view]));
  return after.views.flatMap((view) => {
    const known = previous.get(view.key);
    if (known !== undefined && servingIds(known) === servingIds(view)) return [];
    const { pool, probe, servingPriority, backends } = view;
    const eligible = backends.filter((member) => member.eligible).length;
    const wasDown = known?.backends.every((member) => !member.eligible) === true;
    const serving = { pool: pool.name, probe: probe?.name, servingPriority };
    return [{ type: 'pool-serving-changed', ...serving, eligible, total: backends.length, wasDown }];
  });
}

function servingIds(view: PoolView): string {
  return view.backends
    .filter(({ serving }) => serving)
    .map(({ backend }) => backend.id)
    .sort()
    .join(' ');
}
