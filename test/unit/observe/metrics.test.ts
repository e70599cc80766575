import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { KernelReport } from '../../../src/model/kernel-report.js';
import type { ReloadReport } from '../../../src/api/views.js';
import type { PlaneCounters, TrafficCounters } from '../../../src/planes/contract.js';
import { SKETCH_REGISTERS } from '../../../src/flows/traffic.js';
import { METRICS, type ProbeStatus } from '../../../src/observe/metric-table.js';
import { Metrics, ReloadTally, type MetricsSource } from '../../../src/observe/metrics.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { FakeClock } from '../../support/fake-clock.js';
import { parseScrape } from '../../support/prometheus-text.js';
import { sampleState } from './sample-state.js';

function traffic(backendId: string, changes: Partial<TrafficCounters> = {}): TrafficCounters {
  return {
    rule: 'ha-ports',
    backendId,
    protocol: 'tcp',
    flowsOpened: 10,
    flowsActive: 3,
    flowsEnded: { closed: 5, idle: 2 },
    bytesToBackend: 1000,
    packetsToBackend: 20,
    bytesToClient: 5000,
    packetsToClient: 40,
    connectRetries: 1,
    connectFailures: 2,
    resets: 4,
    ...changes,
  };
}

const COUNTERS: PlaneCounters = {
  traffic: [
    traffic('nvas/127.0.0.11'),
    traffic('nvas/127.0.0.11', { protocol: 'udp', flowsOpened: 7, connectFailures: 0 }),
  ],
  arrivals: [
    { rule: 'ha-ports', protocol: 'tcp', arrivals: 12, drops: { 'no-backend': 2 } },
    { rule: 'ha-ports6', protocol: 'udp', arrivals: 1, drops: {} },
  ],
  table: { tcp: { used: 3, limit: 100 }, udp: { used: 0, limit: 100 }, embryonic: { used: 1, limit: 10 } },
  connectSeconds: {
    'nvas/127.0.0.11': { boundsSeconds: [0.001, 0.01, 0.1], counts: [4, 8, 9], count: 10, sumSeconds: 0.75 },
  },
  sourcePorts: [
    { backendId: 'nvas/127.0.0.11', protocol: 'udp', sourceAddress: '127.0.0.2', used: 7, available: 28_232 },
  ],
  eventLoopDelaySeconds: [0.012, 0.5],
  listeners: { hub: { open: 150, wanted: 200 }, hub6: { open: 0, wanted: 0 } },
  workersLost: 1,
};

const PROBES: readonly ProbeStatus[] = [
  {
    pool: 'nvas',
    backendId: 'nvas/127.0.0.11',
    probe: 'alive',
    health: 'up',
    transitions: { up: 2, down: 1 },
    results: { success: 90, failure: 4 },
    lastDurationMs: 15,
  },
  {
    pool: 'nvas',
    backendId: 'nvas/127.0.0.12',
    probe: 'alive',
    health: 'down',
    transitions: { up: 0, down: 1 },
  },
];

function source(changes: Partial<MetricsSource> = {}): MetricsSource {
  return {
    counters: () => Promise.resolve(COUNTERS),
    state: () => sampleState(7),
    probes: () => PROBES,
    flowLog: () => ({ linesWritten: 11, linesLost: 2, writeErrors: 1 }),
    ...changes,
  };
}

async function scrape(from: MetricsSource, clock = systemClock) {
  const metrics = new Metrics({ source: from, clock }, { version: '0.1.0' });
  return parseScrape((await metrics.render()).body);
}

describe('Metrics.render()', () => {
  test('render() exports flows, bytes and packets by rule and backend', async () => {
    const found = await scrape(source());
    const tcp = { rule: 'ha-ports', pool: 'nvas', backend: 'nva-1', protocol: 'tcp' };
    assert.equal(found.value('haports_flows_active', tcp), 3);
    assert.equal(found.value('haports_flows_opened_total', tcp), 10);
    assert.equal(found.value('haports_flows_ended_total', { ...tcp, reason: 'closed' }), 5);
    assert.equal(found.value('haports_flows_ended_total', { ...tcp, reason: 'idle' }), 2);
    assert.equal(found.value('haports_flow_bytes_total', { ...tcp, direction: 'to_backend' }), 1000);
    assert.equal(found.value('haports_flow_bytes_total', { ...tcp, direction: 'to_client' }), 5000);
    assert.equal(found.value('haports_flow_packets_total', { ...tcp, direction: 'to_backend' }), 20);
    assert.equal(found.value('haports_flow_packets_total', { ...tcp, direction: 'to_client' }), 40);
    assert.equal(found.value('haports_resets_total', tcp), 4);
    assert.equal(found.value('haports_connect_retries_total', tcp), 1);
    assert.equal(found.value('haports_connect_failures_total', tcp), 2);
    assert.equal(
      found.value('haports_arrivals_total', { frontend: 'hub', rule: 'ha-ports', protocol: 'tcp' }),
      12,
    );
    assert.equal(found.value('haports_arrivals_total', { frontend: 'hub6' }), 1);
    assert.equal(found.value('haports_drops_total', { rule: 'ha-ports', reason: 'no-backend' }), 2);
  });

  test('render() exports the connect latency as a histogram', async () => {
    const found = await scrape(source());
    const name = 'haports_connect_duration_seconds';
    assert.equal(found.types.get(name), 'histogram');
    const buckets = found.series.filter((series) => series.name === `${name}_bucket`);
    assert.deepEqual(
      buckets.map(({ labels, value }) => [labels['le'], value]),
      [
        ['0.001', 4],
        ['0.01', 8],
        ['0.1', 9],
        ['+Inf', 10],
      ],
    );
    assert.deepEqual(buckets[0]?.labels, { pool: 'nvas', backend: 'nva-1', le: '0.001' });
    assert.equal(found.value(`${name}_sum`), 0.75);
    assert.equal(found.value(`${name}_count`), 10);
  });

  test('render() exports probes, backends and pools', async () => {
    const found = await scrape(source());
    const labels = (backend: string) => ({ pool: 'nvas', backend, probe: 'alive' });
    assert.equal(found.value('haports_probe_up', labels('nva-1')), 1);
    assert.equal(found.value('haports_probe_up', labels('nva-2')), 0);
    assert.equal(found.value('haports_probe_transitions_total', { ...labels('nva-1'), to: 'up' }), 2);
    assert.equal(found.value('haports_probe_results_total', { ...labels('nva-1'), verdict: 'failure' }), 4);
    assert.equal(found.value('haports_probe_duration_seconds', labels('nva-1')), 0.015);
    assert.equal(found.value('haports_probe_duration_seconds', labels('nva-2')), undefined);
    assert.equal(found.value('haports_backend_eligible', labels('nva-1')), 1);
    assert.equal(found.value('haports_backend_serving', labels('nva-2')), 0);
    assert.equal(found.value('haports_backend_weight', labels('nva-1')), 1);
    assert.equal(found.value('haports_backend_admin_state', { ...labels('nva-1'), state: 'none' }), 1);
    assert.equal(found.value('haports_pool_backends', { pool: 'nvas', probe: 'alive' }), 2);
    assert.equal(found.value('haports_pool_eligible_backends', { pool: 'nvas', probe: 'alive' }), 1);
  });

  test('render() exports the plane and the process', async () => {
    const found = await scrape(source());
    assert.equal(found.value('haports_build_info', { version: '0.1.0', node: process.version }), 1);
    assert.equal(found.value('haports_config_info', { digest: 'd1' }), 1);
    assert.equal(found.value('haports_forwarding_revision'), 7);
    assert.equal(found.value('haports_data_plane_up'), 1);
    assert.equal(found.value('haports_data_path_availability_ratio', { frontend: 'hub' }), 0.75);
    assert.equal(found.value('haports_data_path_availability_ratio', { frontend: 'hub6' }), undefined);
    assert.equal(found.value('haports_listeners_open', { frontend: 'hub' }), 150);
    assert.equal(found.value('haports_listeners_wanted', { frontend: 'hub' }), 200);
    assert.equal(found.value('haports_flow_table_used', { table: 'embryonic' }), 1);
    assert.equal(found.value('haports_flow_table_limit', { table: 'tcp' }), 100);
    const ports = { pool: 'nvas', backend: 'nva-1', protocol: 'udp', source_address: '127.0.0.2' };
    assert.equal(found.value('haports_source_ports_used', ports), 7);
    assert.equal(found.value('haports_source_ports_available', ports), 28_232);
    assert.equal(found.value('haports_event_loop_delay_seconds', { worker: '1' }), 0.5);
    assert.equal(found.value('haports_workers_lost_total'), 1);
    assert.equal(found.value('haports_flow_log_lines_total'), 11);
    assert.equal(found.value('haports_flow_log_lost_lines_total'), 2);
    assert.equal(found.value('haports_flow_log_write_errors_total'), 1);
    assert.ok((found.value('process_resident_memory_bytes') ?? 0) > 1_000_000);
    assert.ok(found.types.has('nodejs_eventloop_lag_seconds'));
  });

  test('render() counts upstream connections of both protocols by outcome', async () => {
    const found = await scrape(source());
    const name = 'haports_upstream_connections_total';
    const labels = { pool: 'nvas', backend: 'nva-1' };
    assert.equal(found.value(name, { ...labels, protocol: 'tcp', outcome: 'succeeded' }), 10);
    assert.equal(found.value(name, { ...labels, protocol: 'tcp', outcome: 'failed' }), 2);
    assert.equal(found.value(name, { ...labels, protocol: 'udp', outcome: 'succeeded' }), 7);
    assert.equal(found.value(name, { ...labels, protocol: 'udp', outcome: 'failed' }), 0);
  });

  test('render() exports what operators do', async () => {
    const sketch = (...filled: readonly number[]) =>
      Uint8Array.from({ length: SKETCH_REGISTERS }, (_, index) => (filled.includes(index) ? 1 : 0));
    const [arrivals] = COUNTERS.arrivals;
    assert.ok(arrivals !== undefined);
    const counters: PlaneCounters = {
      ...COUNTERS,
      traffic: [
        traffic('nvas/127.0.0.11', { lastFlowAtMs: 1_700_000_000_500 }),
        traffic('nvas/127.0.0.11', { protocol: 'udp', lastFlowAtMs: 1_700_000_002_000 }),
        traffic('nvas/127.0.0.12', { flowsActive: 2 }),
        traffic('nvas/127.0.0.12', { flowsActive: 5, protocol: 'udp' }),
      ],
      arrivals: [
        { ...arrivals, sourceSketch: sketch(1, 2, 3) },
        { ...arrivals, protocol: 'udp', sourceSketch: sketch(3, 4) },
      ],
    };
    const state = sampleState(7);
    const draining = { serving: false, eligible: false, exclusion: 'draining' } as const;
    const views = state.views.map((view) => ({
      ...view,
      backends: view.backends.map((member, index) => (index === 1 ? { ...member, ...draining } : member)),
    }));
    const found = await scrape(
      source({
        counters: () => Promise.resolve(counters),
        state: () => ({ ...state, views }),
        healthEvents: () => [
          { name: 'NoHealthyBackends', subject: 'nvas' },
          { name: 'ProbeUpTrafficFailing', subject: 'nvas/127.0.0.11' },
        ],
        reloads: () => ({ succeeded: 4, failed: 1, lastAtMs: 1_700_000_001_000, lastSucceeded: false }),
      }),
    );
    const active = 'haports_health_event_active';
    assert.equal(found.value(active, { name: 'NoHealthyBackends', subject: 'nvas' }), 1);
    assert.equal(found.value(active, { name: 'ProbeUpTrafficFailing', subject: 'nvas/127.0.0.11' }), 1);
    assert.equal(found.value('haports_reloads_total', { outcome: 'succeeded' }), 4);
    assert.equal(found.value('haports_reloads_total', { outcome: 'failed' }), 1);
    assert.equal(found.value('haports_config_last_reload_timestamp_seconds'), 1_700_000_001);
    assert.equal(found.value('haports_config_last_reload_success'), 0);
    assert.equal(found.value('haports_drain_flows', { pool: 'nvas', backend: 'nva-2' }), 7);
    assert.equal(found.value('haports_drain_flows', { backend: 'nva-1' }), undefined);
    assert.equal(found.value('haports_rule_distinct_sources', { rule: 'ha-ports' }), 4);
    const last = 'haports_backend_last_flow_timestamp_seconds';
    assert.equal(found.value(last, { pool: 'nvas', backend: 'nva-1' }), 1_700_000_002);
    assert.equal(found.value(last, { backend: 'nva-2' }), undefined);
  });

  test('render() exports what names and kinds there are, to join other metrics with', async () => {
    const found = await scrape(source());
    assert.equal(found.value('haports_frontend_info', { frontend: 'hub6', address: '::1' }), 1);
    const nva = { pool: 'nvas', backend: 'nva-2', address: '127.0.0.12' };
    assert.equal(found.value('haports_backend_info', nva), 1);
    const rule = { rule: 'ha-ports', frontend: 'hub', pool: 'nvas', distribution: 'five-tuple' };
    assert.equal(found.value('haports_rule_info', rule), 1);
  });

  test('render() exports what is in the kernel where there is something', async () => {
    const report: KernelReport = {
      ...{ table: 'inet haports', mode: 'capture, udp redirect', why: '' },
      ...{ state: 'in-place', sinceMs: 0, repairs: 3, failures: 2, tool: 'nftables v1.0.6' },
    };
    const values = async (kernel: KernelReport | undefined) => {
      const found = await scrape(source({ kernel: () => kernel }));
      return ['in_place', 'repairs_total', 'failures_total'].map((name) =>
        found.value(`haports_kernel_${name}`),
      );
    };
    assert.deepEqual(await values(report), [1, 3, 2]);
    assert.deepEqual(await values({ ...report, state: 'failing' }), [0, 3, 2]);
    assert.deepEqual(await values(undefined), [undefined, undefined, undefined]);
  });

  test("render() exports how full conntrack is, and the kernel's flows that are not in the list", async () => {
    const otherFlows = [
      { backendId: 'nvas/127.0.0.11', protocol: 1, opened: 5, active: 2 },
      { backendId: 'nvas/127.0.0.12', protocol: 253, opened: 3, active: 0 },
    ];
    const of = (kernelFlows: PlaneCounters['kernelFlows']) =>
      scrape(source({ counters: () => Promise.resolve({ ...COUNTERS, kernelFlows }) }));
    const found = await of({ conntrack: { used: 7, limit: 10 }, otherFlows, unlisted: 4, gaps: 1 });
    assert.equal(found.value('haports_conntrack_entries'), 7);
    assert.equal(found.value('haports_conntrack_limit'), 10);
    assert.equal(found.value('haports_unlisted_flows'), 4);
    assert.equal(found.value('haports_flow_event_gaps_total'), 1);
    const [icmp, other] = [
      { pool: 'nvas', backend: 'nva-1', protocol: 'icmp' },
      { pool: 'nvas', backend: 'nva-2', protocol: '253' },
    ];
    assert.equal(found.value('haports_other_flows_active', icmp), 2);
    assert.equal(found.value('haports_other_flows_active', other), 0);
    assert.equal(found.value('haports_other_flows_opened_total', icmp), 5);
    assert.equal(found.value('haports_other_flows_opened_total', other), 3);
    const withoutConntrack = await of({ otherFlows: [], unlisted: 0, gaps: 0 });
    assert.equal(withoutConntrack.value('haports_conntrack_entries'), undefined);
    assert.equal(withoutConntrack.value('haports_unlisted_flows'), 0);
    const userspace = (await of(undefined)).series.map(({ name }) => name);
    assert.deepEqual(
      userspace.filter((name) => /conntrack|unlisted|gaps|other_flows/.test(name)),
      [],
    );
  });

  test('render() shows totals as they are, scrape after scrape', async () => {
    const metrics = new Metrics({ source: source(), clock: systemClock }, { version: '0.1.0' });
    const bodies = [];
    for (let round = 0; round < 3; round++) bodies.push((await metrics.render()).body);
    bodies.push(...(await Promise.all([metrics.render(), metrics.render()])).map(({ body }) => body));
    for (const body of bodies)
      assert.equal(parseScrape(body).value('haports_arrivals_total', { frontend: 'hub' }), 12);
  });

  test('render() names a removed backend by its address', async () => {
    const counters = { ...COUNTERS, traffic: [traffic('nvas/fd00::5')] };
    const found = await scrape(source({ counters: () => Promise.resolve(counters) }));
    assert.equal(found.value('haports_flows_active', { pool: 'nvas', backend: 'fd00::5' }), 3);
  });

  test('render() adds up what would be one series twice', async () => {
    const counters = { ...COUNTERS, traffic: [traffic('nvas/127.0.0.11'), traffic('nvas/127.0.0.11')] };
    const found = await scrape(source({ counters: () => Promise.resolve(counters) }));
    assert.equal(found.value('haports_flows_active'), 6);
  });

  test('render() works before the first revision', async () => {
    const found = await scrape({ ...source(), state: () => undefined, probes: () => [] });
    assert.equal(found.value('haports_forwarding_revision'), undefined);
    assert.equal(found.value('haports_data_plane_up'), 1);
  });

  test('render() gives a silent data plane a second, then does without it', async () => {
    const clock = new FakeClock();
    const metrics = new Metrics(
      { source: source({ counters: () => new Promise(() => undefined) }), clock },
      { version: '0.1.0' },
    );
    const rendered = metrics.render();
    let isDone = false;
    void rendered.then(() => (isDone = true));
    await clock.advanceAsync(999);
    assert.equal(isDone, false);
    await clock.advanceAsync(1);
    const found = parseScrape((await rendered).body);
    assert.equal(found.value('haports_data_plane_up'), 0);
    assert.equal(found.value('haports_data_path_availability_ratio', { frontend: 'hub' }), 0);
    assert.equal(found.value('haports_data_path_availability_ratio', { frontend: 'hub6' }), 0);
    assert.equal(found.value('haports_probe_up', { backend: 'nva-1' }), 1);
    assert.equal(found.value('haports_flows_active'), undefined);
    assert.equal(clock.pendingTimers, 0);
  });

  test('render() takes a data plane that fails for one that is silent', async () => {
    const found = await scrape(source({ counters: () => Promise.reject(new Error('worker died')) }));
    assert.equal(found.value('haports_data_plane_up'), 0);
  });

  test('render() has no label from a client, and as many series for any number of clients', async () => {
    const found = await scrape(source());
    const allowed = new Set(
      'rule pool backend frontend protocol reason direction probe to verdict state le table source_address worker version node digest outcome name subject address distribution'.split(
        ' ',
      ),
    );
    for (const { name, labels } of found.series.filter((series) => series.name.startsWith('haports_'))) {
      for (const label of Object.keys(labels)) assert.ok(allowed.has(label), `${name} has label ${label}`);
    }
    const busy = {
      ...COUNTERS,
      traffic: [
        traffic('nvas/127.0.0.11', { flowsOpened: 1e9, flowsActive: 1e6 }),
        ...COUNTERS.traffic.slice(1),
      ],
    };
    const busyScrape = await scrape(source({ counters: () => Promise.resolve(busy) }));
    const haports = (from: typeof found) =>
      from.series.filter(({ name }) => name.startsWith('haports_')).length;
    assert.equal(haports(busyScrape), haports(found));
  });
});

describe('METRICS', () => {
  test('names follow the Prometheus rules', () => {
    const metrics = METRICS.flatMap((section) => section.metrics);
    for (const { name, type, help } of metrics) {
      assert.match(name, /^haports_[a-z]+(_[a-z]+)*$/);
      assert.equal(name.endsWith('_total'), type === 'counter', `${name} is a ${type}`);
      assert.match(help, /^[A-Z].*[^.]$/);
    }
    assert.equal(new Set(metrics.map(({ name }) => name)).size, metrics.length);
  });
});

describe('ReloadTally', () => {
  test('observe() counts reloads by outcome and keeps the last', () => {
    const clock = new FakeClock();
    const tally = new ReloadTally({ clock });
    assert.deepEqual(tally.stats, { succeeded: 0, failed: 0, lastSucceeded: true });
    const start = clock.wallMs();
    tally.observe({
      ...{ type: 'config-loaded', source: 'c', findings: 0 },
      configuration: sampleState(1).configuration,
    });
    assert.deepEqual(tally.stats, { succeeded: 0, failed: 0, lastAtMs: start, lastSucceeded: true });
    clock.advance(10);
    tally.observe({ type: 'reload-failed', cause: 'SIGHUP', error: new Error('no') });
    assert.deepEqual(tally.stats, { succeeded: 0, failed: 1, lastAtMs: start + 10, lastSucceeded: false });
    clock.advance(10);
    tally.observe({ type: 'reloaded', cause: 'SIGHUP', report: {} as ReloadReport });
    assert.deepEqual(tally.stats, { succeeded: 1, failed: 1, lastAtMs: start + 20, lastSucceeded: true });
  });
});
