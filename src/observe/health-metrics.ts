import type { BackendState, PoolView } from '../model/forwarding-state.js';
import type { Labels, MetricFamily, MetricsSnapshot, Sample } from './metric-family.js';
import type { ProbeStatus } from './metrics-source.js';

/** What probes find, and what follows from it for pools and backends. */
export const HEALTH_METRICS: readonly MetricFamily[] = [
  {
    name: 'haports_probe_up',
    type: 'gauge',
    help: 'Whether the probe finds the backend up: 1 up, 0 down or not known yet',
    collect: (snapshot) => perProbe(snapshot, (status) => (status.health === 'up' ? 1 : 0)),
  },
  {
    name: 'haports_probe_transitions_total',
    type: 'counter',
    help: 'Changes of probe state, by what it changed to',
    collect: (snapshot) =>
      snapshot.probes.flatMap((status) =>
        Object.entries(status.transitions).map(([to, value]) => ({
          labels: { ...probeLabels(snapshot, status), to },
          value,
        })),
      ),
  },
  {
    name: 'haports_probe_results_total',
    type: 'counter',
    help: 'Probes done, by verdict',
    collect: (snapshot) =>
      snapshot.probes.flatMap((status) =>
        Object.entries(status.results ?? {}).map(([verdict, value]) => ({
          labels: { ...probeLabels(snapshot, status), verdict },
          value,
        })),
      ),
  },
  {
    name: 'haports_probe_duration_seconds',
    type: 'gauge',
    help: 'How long the last probe took',
    collect: (snapshot) =>
      snapshot.probes.flatMap((status) =>
        status.lastDurationMs === undefined
          ? []
          : [{ labels: probeLabels(snapshot, status), value: status.lastDurationMs / 1000 }],
      ),
  },
  {
    name: 'haports_backend_eligible',
    type: 'gauge',
    help: 'Whether the backend may get new flows, probe and admin state taken together',
    collect: (snapshot) => perMember(snapshot, (member) => (member.eligible ? 1 : 0)),
  },
  {
    name: 'haports_backend_serving',
    type: 'gauge',
    help: 'Whether the backend is in the table: eligible, and in the serving priority group',
    collect: (snapshot) => perMember(snapshot, (member) => (member.serving ? 1 : 0)),
  },
  {
    name: 'haports_backend_weight',
    type: 'gauge',
    help: 'Weight that the table was built with',
    collect: (snapshot) => perMember(snapshot, (member) => member.effectiveWeight),
  },
  {
    name: 'haports_backend_admin_state',
    type: 'gauge',
    help: 'Admin state of the backend: 1 for the one it is in',
    collect: (snapshot) =>
      views(snapshot).flatMap((view) =>
        view.backends.map((member) => ({
          labels: { ...memberLabels(view, member), state: member.adminState },
          value: 1,
        })),
      ),
  },
  {
    name: 'haports_pool_backends',
    type: 'gauge',
    help: 'Backends in the pool',
    collect: (snapshot) => perView(snapshot, (view) => view.backends.length),
  },
  {
    name: 'haports_pool_eligible_backends',
    type: 'gauge',
    help: 'Backends of the pool that may get new flows',
    collect: (snapshot) =>
      perView(snapshot, (view) => view.backends.filter((member) => member.eligible).length),
  },
];

function views(snapshot: MetricsSnapshot): readonly PoolView[] {
  return snapshot.state?.views ?? [];
}

function probeLabels(snapshot: MetricsSnapshot, status: ProbeStatus): Labels {
  return { ...snapshot.backendLabels(status.backendId), probe: status.probe };
}

function memberLabels(view: PoolView, member: BackendState): Labels {
  return { pool: view.pool, backend: member.backend.name, probe: view.probe ?? '' };
}

function perProbe(snapshot: MetricsSnapshot, value: (status: ProbeStatus) => number): readonly Sample[] {
  return snapshot.probes.map((status) => ({ labels: probeLabels(snapshot, status), value: value(status) }));
}

function perMember(snapshot: MetricsSnapshot, value: (member: BackendState) => number): readonly Sample[] {
  return views(snapshot).flatMap((view) =>
    view.backends.map((member) => ({ labels: memberLabels(view, member), value: value(member) })),
  );
}

function perView(snapshot: MetricsSnapshot, value: (view: PoolView) => number): readonly Sample[] {
  return views(snapshot).map((view) => ({
    labels: { pool: view.pool, probe: view.probe ?? '' },
    value: value(view),
  }));
}
