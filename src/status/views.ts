import type { BackendPoolView, DrainStatus, FrontendView, RuleView, StatusView } from '../api/views.js';
import type { Balancer } from '../control/balancer.js';
import type { Drains } from '../control/drains.js';
import { estimateSources, mergeSketches } from '../flows/traffic.js';
import type { ProbeHealth } from '../health/tracker.js';
import type { Configuration, Rule } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import type { ControlEvent, KernelReport } from '../model/events.js';
import type { ForwardingState, PoolView } from '../model/forwarding.js';
import { formatPortSet } from '../model/ports.js';
import type { ApplyReport, ArrivalCounters } from '../planes/contract.js';
import { inTime, type Clock } from '../runtime/clock.js';
import { tableInUse } from '../selection/picker.js';
import { NO_TRAFFIC, trafficBy, wholeTraffic, type CounterSampler, type ViewSamples } from './counters.js';
import { poolViews } from './pools.js';

/** Views show counters of at most this age, so frequent calls cost no more than the regular sample. */
const MAX_AGE_MS = 1000;

/** How long a view waits for the flows of drains. */
const DRAINS_MS = 1000;

export interface ViewsDeps {
  readonly clock: Clock;
  readonly balancer: Pick<Balancer, 'configuration' | 'state' | 'report' | 'stopping' | 'overrides'>;
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
    return statusView({
      ...{ identity: this.#identity, configuration, news: this.#news },
      ...{ state, report, stopping, samples, silence, drains },
      refusal: this.#refusal,
      kernel: this.#deps.kernel?.(),
    });
  }

  /** Empty before the first apply, as are rules and pools. */
  frontends(): Promise<readonly FrontendView[]> {
    return this.#viewed(frontendViews);
  }

  rules(): Promise<readonly RuleView[]> {
    return this.#viewed(ruleViews);
  }

  async pools(): Promise<readonly BackendPoolView[]> {
    const [{ samples }, drains] = await Promise.all([this.#samples(), this.#drains()]);
    const { balancer, clock, health } = this.#deps;
    const { state, overrides } = balancer;
    if (state === undefined) return [];
    const probes = health.statuses();
    return poolViews({ state, samples, probes, overrides, drains, monotonicMs: clock.monotonicMs() });
  }

  async #viewed<T>(
    views: (state: ForwardingState, samples: ViewSamples) => readonly T[],
  ): Promise<readonly T[]> {
    const { samples } = await this.#samples();
    const { state } = this.#deps.balancer;
    return state === undefined ? [] : views(state, samples);
  }

  /** Where the plane does not answer, the last totals there are, and why. */
  async #samples(): Promise<{ readonly samples: ViewSamples; readonly silence?: string }> {
    const { sampler } = this.#deps;
    try {
      return { samples: await sampler.samples(MAX_AGE_MS) };
    } catch (error) {
      return { samples: { latest: sampler.latest }, silence: errorMessage(error) };
    }
  }

  /** None where the plane does not answer: `status` says that it does not. */
  async #drains(): Promise<readonly DrainStatus[]> {
    const { drains, clock } = this.#deps;
    return inTime(drains.statuses(), DRAINS_MS, clock).catch(() => []);
  }
}

/** What of a status does not change while the process runs. */
export type ProcessIdentity = Pick<StatusView, 'version' | 'pid' | 'startedAtMs' | 'workers'>;

/** Where the configuration is from, and what the last reload said. */
export type ConfigurationNews = Omit<StatusView['configuration'], 'digest'>;

/** A revision that the data plane would not take. */
export interface Refusal {
  readonly revision: number;
  readonly message: string;
}

export interface StatusInputs {
  readonly identity: ProcessIdentity;
  /** The present one, applied or not. */
  readonly configuration: Configuration;
  readonly news: ConfigurationNews;
  /** Undefined before the first apply, as the report. */
  readonly state: ForwardingState | undefined;
  readonly report: ApplyReport | undefined;
  readonly stopping: boolean;
  readonly samples: ViewSamples;
  /** Why there are no counters of now; undefined: there are. */
  readonly silence: string | undefined;
  /** The last revision, where it was refused. */
  readonly refusal: Refusal | undefined;
  /** What the plane keeps in the kernel; undefined: nothing. */
  readonly kernel: KernelReport | undefined;
  readonly drains: readonly DrainStatus[];
}

/** The whole balancer at a glance. Pure. */
export function statusView(inputs: StatusInputs): StatusView {
  const { identity, configuration, news, state, report, samples, drains, kernel } = inputs;
  const counters = samples.latest?.counters;
  return {
    ...identity,
    workersLost: counters?.workersLost ?? 0,
    configuration: { ...news, digest: configuration.digest },
    revision: state?.revision ?? 0,
    problems: statusProblems(inputs),
    listeners: report?.listeners ?? { tcp: 0, udp: 0 },
    table: counters?.table ?? emptyTable(configuration),
    traffic: wholeTraffic(samples),
    backends: countBackends(inputs),
    drains,
    kernel,
  };
}

function emptyTable({ limits }: Configuration): StatusView['table'] {
  return {
    tcp: { used: 0, limit: limits.tcpFlows },
    udp: { used: 0, limit: limits.udpFlows },
    embryonic: { used: 0, limit: limits.embryonicFlows },
  };
}

/** One that serves in several views serves once. */
function countBackends({ configuration, state }: StatusInputs): StatusView['backends'] {
  const serving = new Set(
    (state?.views ?? []).flatMap(({ backends }) =>
      backends.filter((member) => member.serving).map(({ backend }) => backend.id),
    ),
  );
  return {
    total: configuration.backendPools.reduce((sum, { backends }) => sum + backends.length, 0),
    serving: serving.size,
  };
}

/** Why the balancer is not ready or not healthy, for people, the worst first; empty: all is well. */
function statusProblems(inputs: StatusInputs): readonly string[] {
  const { state, report, stopping, samples, silence, refusal, kernel } = inputs;
  const problems: string[] = [];
  if (stopping) problems.push('The process is stopping');
  if (silence !== undefined) problems.push(`Data plane gives no counters: ${silence}`);
  if (refusal !== undefined) {
    problems.push(`Data plane refused revision ${refusal.revision}: ${refusal.message}`);
  }
  if (state === undefined) return [...problems, 'No forwarding state has been applied yet'];
  const hasListeners = report !== undefined && report.listeners.tcp + report.listeners.udp > 0;
  return [
    ...problems,
    ...(hasListeners ? deafFrontends(samples) : ['No listener is open']),
    ...(kernel === undefined ? [] : kernelProblems(kernel)),
    ...state.views.flatMap((view) => poolProblems(state, view)),
    ...workerProblems(state.configuration, samples),
    ...fullTables(samples),
  ];
}

function deafFrontends({ latest }: ViewSamples): readonly string[] {
  return Object.entries(latest?.counters.listeners ?? {})
    .filter(([, { open, wanted }]) => open < wanted)
    .map(([name, { open, wanted }]) => `Frontend "${name}": ${open} of ${wanted} listeners are open`);
}

/** Nothing is steered to the listeners then, however many are open. */
function kernelProblems({ state, table, lastFailure }: KernelReport): readonly string[] {
  if (state === 'in-place') return [];
  const what = state === 'absent' ? 'is not in the kernel' : 'cannot be put in the kernel';
  return [`Table ${table} ${what}${lastFailure === undefined ? '' : `: ${lastFailure.text}`}`];
}

function poolProblems(state: ForwardingState, view: PoolView): readonly string[] {
  const { rules } = state.configuration;
  const { pool, probe } = view;
  const name = probe === undefined ? `Pool "${pool.name}"` : `Pool "${pool.name}" by probe "${probe.name}"`;
  const serving = view.backends.filter((member) => member.serving).length;
  if (serving === 0) {
    const failsOpen = rules.some(
      (rule, index) =>
        state.views[state.viewOfRule[index] ?? -1] === view && tableInUse(rule, view)?.failOpen === true,
    );
    return [`${name}: no backend serves${failsOpen ? ', new flows fail open' : ''}`];
  }
  const minimum = pool.minimumHealthy;
  return serving < minimum ? [`${name}: ${serving} of at least ${minimum} backends serve`] : [];
}

/** A worker that serves has a delay of its event loop; one that is being replaced has none, or not a number. */
function workerProblems({ workers }: Configuration, { latest }: ViewSamples): readonly string[] {
  if (latest === undefined) return [];
  const delays = latest.counters.eventLoopDelaySeconds;
  return Array.from({ length: Math.max(workers, delays.length) }, (_, worker) => worker)
    .filter((worker) => Number.isNaN(delays[worker] ?? Number.NaN))
    .map((worker) => `Data worker ${worker} is being replaced`);
}

function fullTables({ latest }: ViewSamples): readonly string[] {
  return Object.entries(latest?.counters.table ?? {})
    .filter(([, { used, limit }]) => limit > 0 && used >= limit)
    .map(([table, { limit }]) => `Flow table ${table} is full: ${limit} flows`);
}

/** In the order of the configuration. Pure. */
export function frontendViews(
  { configuration }: ForwardingState,
  samples: ViewSamples,
): readonly FrontendView[] {
  const frontendOf = new Map(configuration.rules.map(({ name, frontend }) => [name, frontend.name]));
  const traffic = trafficBy(samples, ({ rule }) => frontendOf.get(rule));
  // A frontend may well be named "constructor", which every plain object seems to have.
  const listeners = new Map(Object.entries(samples.latest?.counters.listeners ?? {}));
  return configuration.frontends.map(({ name, address }) => ({
    name,
    address: address.text,
    rules: configuration.rules.filter(({ frontend }) => frontend.name === name).map((rule) => rule.name),
    listeners: listeners.get(name) ?? { open: 0, wanted: 0 },
    traffic: traffic.get(name) ?? NO_TRAFFIC,
  }));
}

/** In the order of the configuration. Pure. */
export function ruleViews(state: ForwardingState, samples: ViewSamples): readonly RuleView[] {
  const traffic = trafficBy(samples, ({ rule }) => rule);
  const arrivals = samples.latest?.counters.arrivals ?? [];
  return state.configuration.rules.map((rule, index): RuleView => {
    const view = state.views[state.viewOfRule[index] ?? -1];
    return {
      name: rule.name,
      frontend: rule.frontend.name,
      backendPool: rule.pool.name,
      probe: rule.probe?.name,
      protocols: rule.protocols,
      haPorts: rule.haPorts,
      ports: formatPortSet(rule.ports),
      distribution: rule.distribution,
      symmetric: rule.symmetric,
      floatingIp: rule.floatingIp,
      allDown: rule.allDown,
      serving: view === undefined ? 0 : takersOf(rule, view),
      ...arrived(arrivals.filter((row) => row.rule === rule.name)),
      traffic: traffic.get(rule.name) ?? NO_TRAFFIC,
    };
  });
}

/** Backends that new flows of the rule go to: under fail-open, those that the table for it was built with. */
function takersOf(rule: Rule, view: PoolView): number {
  const inUse = tableInUse(rule, view);
  const { backends } = view;
  if (inUse === undefined) return 0;
  if (!inUse.failOpen) return backends.filter(({ serving }) => serving).length;
  return backends.filter(({ adminState, effectiveWeight }) => adminState !== 'down' && effectiveWeight > 0)
    .length;
}

/** Both protocols in one: a client that uses both is one source. */
function arrived(rows: readonly ArrivalCounters[]): Pick<RuleView, 'arrivals' | 'drops' | 'distinctSources'> {
  const drops: Record<string, number> = {};
  let sketch: Uint8Array | undefined;
  for (const row of rows) {
    for (const [reason, count] of Object.entries(row.drops)) drops[reason] = (drops[reason] ?? 0) + count;
    const { sourceSketch } = row;
    if (sourceSketch === undefined) continue;
    sketch = sketch === undefined ? sourceSketch : mergeSketches(sketch, sourceSketch);
  }
  return {
    arrivals: rows.reduce((sum, row) => sum + row.arrivals, 0),
    drops,
    distinctSources: sketch === undefined ? 0 : Math.round(estimateSources(sketch)),
  };
}
