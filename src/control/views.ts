import type { ControlEvent } from '../model/control-events.js';
import type { DrainStatus } from '../model/drain.js';
import { errorMessage } from '../model/errors.js';
import type { KernelReport } from '../model/kernel-report.js';
import type { BackendPoolView, FrontendView, RuleView, StatusView } from '../model/operator-views.js';
import type { Clock } from '../runtime/clock.js';
import type { Balancer } from './balancer.js';
import type { CounterSampler } from './counter-sampler.js';
import type { Drains } from './drains.js';
import { frontendViews } from './frontend-views.js';
import { inTime } from './in-time.js';
import { poolViews } from './pool-views.js';
import type { ProbeHealth } from './probe-health.js';
import { ruleViews } from './rule-views.js';
import type { Refusal } from './status-problems.js';
import { statusView, type ConfigurationNews, type ProcessIdentity } from './status-view.js';
import type { ViewSamples } from './traffic-view.js';

/** Views show counters of at most this age: whoever looks often costs no more than the regular sample. */
const MAX_AGE_MS = 1000;

/** How long a view waits for the flows of drains. */
const DRAINS_MS = 1000;

export interface ViewsDeps {
  readonly clock: Clock;
  readonly balancer: Pick<Balancer, 'configuration' | 'state' | 'report' | 'stopping' | 'operator'>;
  readonly sampler: Pick<CounterSampler, 'samples' | 'latest'>;
  readonly health: Pick<ProbeHealth, 'statuses'>;
  readonly drains: Pick<Drains, 'statuses'>;
  /** Absent: the plane keeps nothing in the kernel. */
  readonly kernel?: (() => KernelReport | undefined) | undefined;
}

export interface ViewsOptions extends ProcessIdentity {
  /** Where the first configuration came from: a path. */
  readonly source: string;
}

/**
 * What the admin API shows of the balancer, each time as it stands. Answers within seconds whatever the data plane does;
 * a plane that does not answer is among the problems of `status`. Give it every event of the control plane.
 */
export class Views {
  readonly #deps: ViewsDeps;
  readonly #identity: ProcessIdentity;
  readonly #source: string;
  #news: ConfigurationNews;
  #refusal: Refusal | undefined;

  constructor(deps: ViewsDeps, { source, ...identity }: ViewsOptions) {
    this.#deps = deps;
    this.#identity = identity;
    this.#source = source;
    this.#news = { source, loadedAtMs: deps.clock.wallMs() };
  }

  onEvent(event: ControlEvent): void {
    const atMs = this.#deps.clock.wallMs();
    if (event.type === 'reloaded') {
      const { revision, kept, lost } = event.report;
      const message = `Revision ${revision} by ${event.cause}: ${kept.flows} flows kept, ${lost.flows} lost`;
      // A file is read for the other causes; the admin API is given a text.
      const source = event.cause === 'admin API' ? event.cause : this.#source;
      this.#news = { source, loadedAtMs: atMs, lastReload: { atMs, ok: true, message } };
    } else if (event.type === 'reload-failed') {
      const message = `Refused (${event.cause}): ${errorMessage(event.error)}`;
      this.#news = { ...this.#news, lastReload: { atMs, ok: false, message } };
    } else if (event.type === 'apply-failed') {
      this.#refusal = { revision: event.revision, message: errorMessage(event.error) };
    } else if (event.type === 'applied') {
      this.#refusal = undefined;
    }
  }

  async status(): Promise<StatusView> {
    const { balancer } = this.#deps;
    const [{ samples, silence }, drains] = await Promise.all([this.#samples(), this.#drains()]);
    const { configuration, state, report, stopping } = balancer;
    const kernel = this.#deps.kernel?.();
    return statusView({
      identity: this.#identity,
      configuration,
      news: this.#news,
      state,
      report,
      stopping,
      samples,
      ...(silence === undefined ? {} : { silence }),
      ...(this.#refusal === undefined ? {} : { refusal: this.#refusal }),
      ...(kernel === undefined ? {} : { kernel }),
      drains,
    });
  }

  /** Empty before the first apply, as are rules and pools. */
  async frontends(): Promise<readonly FrontendView[]> {
    const { samples } = await this.#samples();
    const { state } = this.#deps.balancer;
    return state === undefined ? [] : frontendViews(state, samples);
  }

  async rules(): Promise<readonly RuleView[]> {
    const { samples } = await this.#samples();
    const { state } = this.#deps.balancer;
    return state === undefined ? [] : ruleViews(state, samples);
  }

  async pools(): Promise<readonly BackendPoolView[]> {
    const [{ samples }, drains] = await Promise.all([this.#samples(), this.#drains()]);
    const { balancer, clock, health } = this.#deps;
    const { state, operator } = balancer;
    if (state === undefined) return [];
    const monotonicMs = clock.monotonicMs();
    return poolViews({ state, samples, probes: health.statuses(), operator, drains, monotonicMs });
  }

  /** Where the plane does not answer, the last totals there are, and why. */
  async #samples(): Promise<{ readonly samples: ViewSamples; readonly silence?: string }> {
    const { sampler } = this.#deps;
    try {
      return { samples: await sampler.samples(MAX_AGE_MS) };
    } catch (error) {
      const { latest } = sampler;
      return { samples: latest === undefined ? {} : { latest }, silence: errorMessage(error) };
    }
  }

  /** None where the plane does not answer: `status` says that it does not. */
  async #drains(): Promise<readonly DrainStatus[]> {
    const { drains, clock } = this.#deps;
    return inTime(drains.statuses(), DRAINS_MS, clock).catch(() => []);
  }
}
