import type { Backend, BackendPool } from '../model/configuration.js';
import type { DrainStatus } from '../model/drain.js';
import type { BackendState, ForwardingState, PoolView } from '../model/forwarding-state.js';
import type { BackendPoolView, BackendView } from '../model/operator-views.js';
import type { HealthState } from '../model/probe.js';
import { tableInUse } from '../selection/picker.js';
import type { OperatorState } from './operator-state.js';
import { probeViews, type ProbedStatus } from './probe-views.js';
import { shownWeights, type ShownWeight } from './shown-weights.js';
import { NO_TRAFFIC, trafficBy, type ViewSamples } from './traffic-view.js';

export interface PoolViewInputs {
  readonly state: ForwardingState;
  readonly samples: ViewSamples;
  readonly probes: readonly ProbedStatus[];
  readonly operator: Pick<OperatorState, 'adminState' | 'adminStateOverride' | 'weight'>;
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
    const views = state.views.filter((view) => view.pool === pool.name);
    const [first] = views;
    const weights = first === undefined ? [] : weightsIn(first, inputs);
    const shares = first === undefined ? [] : hashShares(state, first);
    const opened = flowsOpened(samples, pool.name);
    const backends = pool.backends.map((backend, index): BackendView => {
      const own = traffic.get(backend.id) ?? NO_TRAFFIC;
      const lastNewFlowAtMs = lastFlows.get(backend.id);
      const drain = inputs.drains.find(({ backendId }) => backendId === backend.id);
      return {
        ...describe(pool, backend),
        ...operatorsWord(backend, inputs),
        ...(weights[index] ?? { weight: backend.weight, weightOrigin: 'configured' }),
        ...standing(views.flatMap((view) => view.backends[index] ?? [])),
        probes: probeViews(inputs.probes, backend.id, inputs.monotonicMs),
        hashShare: shares[index] ?? 0,
        realShare: opened === 0 ? 0 : own.flowsOpened / opened,
        ...(lastNewFlowAtMs === undefined ? {} : { lastNewFlowAtMs }),
        traffic: own,
        ...(drain === undefined ? {} : { drain }),
      };
    });
    return {
      name: pool.name,
      minimumHealthy: pool.minimumHealthy,
      ...(first?.servingPriority === undefined ? {} : { servingPriority: first.servingPriority }),
      serving: backends.filter(({ serving }) => serving).length,
      rules: state.configuration.rules
        .filter(({ backendPool }) => backendPool === pool.name)
        .map(({ name }) => name),
      backends,
    };
  });
}

function describe(pool: BackendPool, { id, name, address, priority }: Backend) {
  return { id, name, pool: pool.name, address: address.text, priority };
}

function operatorsWord(backend: Backend, { operator }: PoolViewInputs) {
  const isSet = operator.adminStateOverride(backend.id) !== undefined;
  return {
    adminState: operator.adminState(backend),
    adminStateOrigin: isSet ? ('operator' as const) : ('configured' as const),
    configuredWeight: backend.weight,
  };
}

/** As the view sees the backend that sees it best. A pool that no rule uses serves nobody, and nobody probes it. */
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
    ...(serving || exclusion === undefined ? {} : { exclusion }),
  };
}

function rank({ serving, eligible, valid }: BackendState): number {
  return Number(serving) * 4 + Number(eligible) * 2 + Number(valid);
}

function bestHealth(states: readonly BackendState[]): HealthState {
  const is = (wanted: HealthState): boolean => states.some(({ health }) => health === wanted);
  return is('up') ? 'up' : is('unknown') ? 'unknown' : 'down';
}

function weightsIn(view: PoolView, { operator, probes }: PoolViewInputs): readonly ShownWeight[] {
  const headers = new Map<string, number | undefined>();
  for (const { backend, probe, health } of probes) {
    if (probe.name === view.probe) headers.set(backend.id, health?.weight);
  }
  return shownWeights(view, {
    operator: (backend) => operator.weight(backend),
    probeHeader: ({ id }) => headers.get(id),
  });
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
