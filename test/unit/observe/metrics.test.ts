import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ReloadReport } from '../../../src/api/views.js';
import type { KernelReport } from '../../../src/model/events.js';
import { METRICS } from '../../../src/observe/metric-table.js';
import { Metrics, ReloadTally, type MetricsSource } from '../../../src/observe/metrics.js';
import type { PlaneCounters } from '../../../src/planes/contract.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { FakeClock } from '../../support/fake-clock.js';
import { GoldenFolder } from '../../support/golden.js';
import { parseScrape } from '../../support/prometheus-text.js';
import { COUNTERS, sampleSource, sampleTraffic } from './sample-metrics.js';
import { sampleConfiguration, sampleState } from './sample-state.js';

async function scrape(source: MetricsSource) {
  const metrics = new Metrics({ source, clock: systemClock }, { version: '0.1.0' });
  return parseScrape((await metrics.render()).body);
}

describe('Metrics.render()', () => {
  test('exports something of everything', async () => {
    const metrics = new Metrics({ source: sampleSource(), clock: systemClock }, { version: '0.1.0' });
    const { body } = await metrics.render();
    const own = body.split('\n').filter((line) => /^(# \w+ )?haports_/.test(line));
    const text = own.join('\n').replace(process.version, 'NODE');
    new GoldenFolder('test/unit/observe', 'txt').compare('metrics', `${text}\n`);
    const found = parseScrape(body);
    assert.ok((found.value('process_resident_memory_bytes') ?? 0) > 1_000_000);
    assert.ok(found.types.has('nodejs_eventloop_lag_seconds'));
  });

  test('exports which backends serve', async () => {
    const found = await scrape(sampleSource({ state: sampleState(7) }));
    const view = { pool: 'nvas', probe: 'alive' };
    assert.equal(found.value('haports_pool_eligible_backends', view), 1);
    assert.equal(found.value('haports_backend_eligible', { ...view, backend: 'nva-1' }), 1);
    assert.equal(found.value('haports_backend_serving', { ...view, backend: 'nva-1' }), 1);
    assert.equal(found.value('haports_backend_serving', { backend: 'nva-2' }), 0);
    assert.equal(found.value('haports_drain_flows'), undefined);
  });

  test('exports what is in the kernel where there is something', async () => {
    const { kernel } = sampleSource().facts();
    assert.ok(kernel !== undefined);
    const values = async (found: KernelReport | undefined) => {
      const scraped = await scrape(sampleSource({ kernel: found }));
      return ['in_place', 'repairs_total', 'failures_total'].map((name) =>
        scraped.value(`haports_kernel_${name}`),
      );
    };
    assert.deepEqual(await values(kernel), [1, 3, 2]);
    assert.deepEqual(await values({ ...kernel, state: 'failing' }), [0, 3, 2]);
    assert.deepEqual(await values(undefined), [undefined, undefined, undefined]);
  });

  test('exports flows of the kernel where the kernel forwards', async () => {
    const of = (kernelFlows: PlaneCounters['kernelFlows']) => scrape(sampleSource({}, { kernelFlows }));
    const withoutConntrack = await of({ otherFlows: [], unlisted: 0, gaps: 0 });
    assert.equal(withoutConntrack.value('haports_conntrack_entries'), undefined);
    assert.equal(withoutConntrack.value('haports_unlisted_flows'), 0);
    const userspace = (await of(undefined)).series.map(({ name }) => name);
    assert.deepEqual(
      userspace.filter((name) => /conntrack|unlisted|gaps|other_flows/.test(name)),
      [],
    );
  });

  test('shows totals as they are, scrape after scrape', async () => {
    const metrics = new Metrics({ source: sampleSource(), clock: systemClock }, { version: '0.1.0' });
    const bodies = [];
    for (let round = 0; round < 3; round++) bodies.push((await metrics.render()).body);
    bodies.push(...(await Promise.all([metrics.render(), metrics.render()])).map(({ body }) => body));
    for (const body of bodies)
      assert.equal(parseScrape(body).value('haports_arrivals_total', { frontend: 'hub6' }), 1);
  });

  test('names a removed backend by its address', async () => {
    const found = await scrape(sampleSource({}, { traffic: [sampleTraffic('nvas/fd00::5')] }));
    assert.equal(found.value('haports_flows_active', { pool: 'nvas', backend: 'fd00::5' }), 3);
  });

  test('adds up what would be one series twice', async () => {
    const traffic = [1, 2].map(() => sampleTraffic('nvas/127.0.0.11'));
    const found = await scrape(sampleSource({}, { traffic }));
    assert.equal(found.value('haports_flows_active'), 6);
  });

  test('works before the first revision', async () => {
    const found = await scrape(sampleSource({ state: undefined, probes: [] }));
    assert.equal(found.value('haports_forwarding_revision'), undefined);
    assert.equal(found.value('haports_data_plane_up'), 1);
  });

  test('gives a silent data plane a second, then does without it', async () => {
    const clock = new FakeClock();
    const source = { ...sampleSource(), counters: () => new Promise<never>(() => undefined) };
    const metrics = new Metrics({ source, clock }, { version: '0.1.0' });
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

  test('takes a data plane that fails for one that is silent', async () => {
    const counters = () => Promise.reject(new Error('worker died'));
    const found = await scrape({ ...sampleSource(), counters });
    assert.equal(found.value('haports_data_plane_up'), 0);
  });

  test('has no label from a client, and as many series for any number of clients', async () => {
    const own = async (source: MetricsSource) =>
      (await scrape(source)).series.filter(({ name }) => name.startsWith('haports_'));
    const quiet = await own(sampleSource());
    const allowed =
      'rule pool backend frontend protocol reason direction probe to verdict state le table source_address ' +
      'worker version node digest outcome name subject address distribution';
    const labels = new Set(quiet.flatMap((series) => Object.keys(series.labels)));
    assert.deepEqual([...labels].sort(), allowed.split(' ').sort());
    const [first, ...others] = COUNTERS.traffic;
    const busy = { ...first!, flowsOpened: 1e9, flowsActive: 1e6 };
    assert.equal((await own(sampleSource({}, { traffic: [busy, ...others] }))).length, quiet.length);
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
      ...{ type: 'config-loaded', source: 'c', findings: 0, configuration: sampleConfiguration() },
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
