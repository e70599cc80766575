import type { BackendPoolView, BackendView, DrainStatus, ProbeView } from '../api/views.js';
import type { Overrides } from '../control/overrides.js';
import type { ProbeHealth, ProbedMember } from '../health/tracker.js';
import type { Backend, BackendPool, HealthState } from '../model/configuration.js';
import type { BackendHealth, BackendState, ForwardingState, PoolView } from '../model/forwarding.js';
import { tableInUse } from '../selection/picker.js';
import { NO_TRAFFIC, trafficBy, type ViewSamples } from './counters.js';

export interface PoolViewInputs {
  readonly state: ForwardingState;
  readonly samples: ViewSamples;
  readonly probes: readonly ProbedStatus[];
  readonly overrides: Pick<Overrides, 'of'>;
  readonly drains: readonly DrainStatus[];
  /** What probe damping is measured on. */
  readonly monotonicMs: number;
}

/** In the order of the configuration, backends too. Pure. */
export function poolViews(inputs: PoolViewInputs): readonly BackendPoolView[] {
  const { state, samples } = inputs;
  const traffic = trafficBy(samples, ({ backendId }) => backendId);
  const lastFlows = lastFlowTimes(samples);
  return state.configuration.backendPools.map((pool) => {
    const views = state.views.filter((view) => view.pool === pool);
    const [first] = views;
    const shares = first === undefined ? [] : hashShares(state, first);
    const opened = flowsOpened(samples, pool.name);
    const backends = pool.backends.map((backend, index): BackendView => {
      const own = traffic.get(backend.id) ?? NO_TRAFFIC;
      return {
        ...describe(pool, backend),
        ...adminStateOf(backend, inputs),
        ...weightOf(backend, first?.backends[index]),
        ...standing(views.flatMap((view) => view.backends[index] ?? [])),
        probes: probeViews(inputs.probes, backend.id, inputs.monotonicMs),
        hashShare: shares[index] ?? 0,
        realShare: opened === 0 ? 0 : own.flowsOpened / opened,
        lastNewFlowAtMs: lastFlows.get(backend.id),
        traffic: own,
        drain: inputs.drains.find(({ backendId }) => backendId === backend.id),
      };
    });
    return {
      name: pool.name,
      minimumHealthy: pool.minimumHealthy,
      servingPriority: first?.servingPriority,
      serving: backends.filter(({ serving }) => serving).length,
      rules: state.configuration.rules.filter((rule) => rule.pool === pool).map(({ name }) => name),
      backends,
    };
  });
}

function describe(pool: BackendPool, { id, name, address, priority }: Backend) {
  return { id, name, pool: pool.name, address: address.text, priority };
}

function adminStateOf(backend: Backend, { overrides }: PoolViewInputs) {
  const { adminState } = overrides.of(backend.id);
  return {
    adminState: adminState ?? backend.adminState,
    adminStateOrigin: adminState === undefined ? ('configured' as const) : ('operator' as const),
    configuredWeight: backend.weight,
  };
}

/** A backend's state in the view where it is best. A pool that no rule uses gets no flows and no probes. */
function standing(
  states: readonly BackendState[],
): Pick<BackendView, 'serving' | 'valid' | 'exclusion' | 'health'> {
  const [best] = [...states].sort((a, b) => rank(b) - rank(a));
  if (best === undefined) return { serving: false, valid: true, health: 'unknown' };
  const { serving, exclusion } = best;
  return {
    serving,
    valid: states.some(({ valid }) => valid),
    health: bestHealth(states),
    exclusion: serving ? undefined : exclusion,
  };
}

function rank({ serving, eligible, valid }: BackendState): number {
  return Number(serving) * 4 + Number(eligible) * 2 + Number(valid);
}

function bestHealth(states: readonly BackendState[]): HealthState {
  const is = (wanted: HealthState): boolean => states.some(({ health }) => health === wanted);
  return is('up') ? 'up' : is('unknown') ? 'unknown' : 'down';
}

/** In the units of the configuration, as the pool's first view has it. */
function weightOf(
  backend: Backend,
  member: BackendState | undefined,
): Pick<BackendView, 'weight' | 'weightOrigin'> {
  if (member === undefined) return { weight: backend.weight, weightOrigin: 'configured' };
  const { wantedWeight, weightOrigin, rampPercent } = member;
  return {
    weight: (wantedWeight * rampPercent) / 100,
    weightOrigin: rampPercent < 100 ? 'slow-start' : weightOrigin,
  };
}

/** By index of backend: the part of the slots that it owns, of the table that new flows are placed with. */
function hashShares(state: ForwardingState, view: PoolView): readonly number[] {
  const rules = state.configuration.rules.filter(
    (_, index) => state.views[state.viewOfRule[index] ?? -1] === view,
  );
  const inUse = rules.map((rule) => tableInUse(rule, view)).find((table) => table !== undefined);
  if (inUse === undefined) return [];
  const slots = new Array<number>(view.backends.length).fill(0);
  for (const owner of inUse.table) slots[owner] = (slots[owner] ?? 0) + 1;
  return slots.map((owned) => owned / inUse.table.length);
}

function flowsOpened({ latest }: ViewSamples, pool: string): number {
  const rows = latest?.counters.traffic ?? [];
  // Backends that have left the pool had their part too.
  const own = rows.filter(({ backendId }) => backendId.startsWith(`${pool}/`));
  return own.reduce((sum, row) => sum + row.flowsOpened, 0);
}

function lastFlowTimes({ latest }: ViewSamples): ReadonlyMap<string, number> {
  const times = new Map<string, number>();
  for (const { backendId, lastFlowAtMs } of latest?.counters.traffic ?? []) {
    if (lastFlowAtMs !== undefined) times.set(backendId, Math.max(times.get(backendId) ?? 0, lastFlowAtMs));
  }
  return times;
}

/** A member of a pool as one probe sees it; `health` is undefined before its first result. */
export type ProbedStatus = ProbedMember & { readonly health: BackendHealth | undefined };

/** Every probe of one backend, once: of two definitions under one name, which a reload may bring, the newer. Pure. */
export function probeViews(
  statuses: readonly ProbedStatus[],
  backendId: string,
  monotonicMs: number,
): readonly ProbeView[] {
  const views = new Map<string, ProbeView>();
  for (const { backend, probe, health } of statuses) {
    if (backend.id === backendId) views.set(probe.name, probeView(probe.name, health, monotonicMs));
  }
  return [...views.values()];
}

function probeView(probe: string, health: BackendHealth | undefined, monotonicMs: number): ProbeView {
  if (health === undefined) {
    const nothing = { consecutiveSuccesses: 0, consecutiveFailures: 0, transitions: 0, history: [] };
    return { probe, state: 'unknown', ...nothing };
  }
  const { state, consecutiveSuccesses, consecutiveFailures, transitions, heldUntilMs, last, history } =
    health;
  const heldForMs = heldUntilMs === undefined ? 0 : heldUntilMs - monotonicMs;
  return {
    probe,
    state,
    consecutiveSuccesses,
    consecutiveFailures,
    transitions,
    heldForMs: heldForMs > 0 ? heldForMs : undefined,
    last: last && {
      verdict: last.inconclusive === undefined ? last.verdict : 'inconclusive',
      evidence: last.evidence,
      durationMs: last.durationMs,
    },
    history,
  };
}

/** Each probe of each backend of each pool, as metrics show it. */
export function probeStatuses(probeHealth: ProbeHealth) {
  return probeHealth.statuses().map(({ pool, backend, probe, key, health }) => {
    const { up, down, success, failure } = probeHealth.tallyOf(key);
    return {
      pool,
      backendId: backend.id,
      probe: probe.name,
      health: health?.state ?? 'unknown',
      transitions: { up, down },
      results: { success, failure },
      inconclusive: probeHealth.inconclusiveOf(key),
      lastDurationMs: health?.last?.durationMs,
    };
  });
}
