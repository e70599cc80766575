import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { CounterSampler } from '../../../src/status/counters.js';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { Overrides } from '../../../src/control/overrides.js';
import { Views } from '../../../src/status/views.js';
import type { PlaneCounters } from '../../../src/planes/contract.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import type { DrainStatus, ReloadReport } from '../../../src/api/views.js';
import { createHasher, type Hash32 } from '../../../src/selection/flow-hash.js';
import { FakeClock } from '../../support/fake-clock.js';
import { aReading, aRow } from './counters-fixtures.js';
import { settings } from '../control/settings.js';

const configuration = settings();
const drain = { backendId: 'nvas/10.0.0.2', phase: 'draining' } as DrainStatus;

let hash: Hash32;
before(async () => {
  hash = await createHasher();
});

/** Three backends up; the plane answers `counters`, and drains are those of `drains`. */
class Lab {
  readonly clock = new FakeClock();
  counters: () => Promise<PlaneCounters> = () => Promise.resolve(aReading());
  drains: () => Promise<readonly DrainStatus[]> = () => Promise.resolve([drain]);
  readonly balancer: {
    configuration: typeof configuration;
    state: ForwardingState | undefined;
    report: { revision: number; listeners: { tcp: number; udp: number }; failures: [] };
    stopping: boolean;
    overrides: Overrides;
  };
  readonly sampler: CounterSampler;
  readonly views: Views;

  constructor() {
    const { clock } = this;
    const state = new ForwardingCompiler(hash).compile(configuration, {
      health: () => ({ state: 'up' }),
    });
    this.balancer = {
      configuration,
      state,
      report: { revision: 1, listeners: { tcp: 1, udp: 1 }, failures: [] },
      stopping: false,
      overrides: new Overrides(),
    };
    this.sampler = new CounterSampler({ clock, plane: { counters: () => this.counters() } });
    this.views = new Views(
      {
        clock,
        balancer: this.balancer,
        sampler: this.sampler,
        health: { statuses: () => [] },
        drains: { statuses: () => this.drains() },
      },
      { version: '1.2.3', pid: 42, startedAtMs: 7, workers: 2, source: 'config.json' },
    );
  }
}

describe('Views', () => {
  test('show what is, with rates from the last samples and drains beside backends', async () => {
    const lab = new Lab();
    lab.counters = () => Promise.resolve(aReading({ traffic: [aRow({ flowsOpened: 10 })] }));
    lab.sampler.start();
    await lab.clock.advanceAsync(0, 1);
    await new Promise((resolve) => setImmediate(resolve));
    lab.counters = () => Promise.resolve(aReading({ traffic: [aRow({ flowsOpened: 14 })] }));
    await lab.clock.advanceAsync(1000);
    const status = await lab.views.status();
    assert.deepEqual([status.version, status.pid, status.startedAtMs], ['1.2.3', 42, 7]);
    assert.deepEqual(status.problems, []);
    assert.equal(status.traffic.newFlowsPerSecond, 4);
    assert.deepEqual(status.drains, [drain]);
    const [frontend] = await lab.views.frontends();
    assert.equal(frontend?.traffic.flowsOpened, 14);
    const [rule] = await lab.views.rules();
    assert.equal(rule?.serving, 3);
    const [pool] = await lab.views.pools();
    assert.deepEqual(
      pool?.backends.map((backend) => backend.drain?.phase),
      [undefined, 'draining', undefined],
    );
  });

  test('answer with the last totals where the plane does not, and say so', async () => {
    const lab = new Lab();
    lab.counters = () => Promise.resolve(aReading({ workersLost: 3 }));
    lab.sampler.start();
    await new Promise((resolve) => setImmediate(resolve));
    lab.counters = () => new Promise<never>(() => undefined);
    lab.drains = () => new Promise<never>(() => undefined);
    lab.clock.advance(5000);
    const asked = lab.views.status();
    await lab.clock.advanceAsync(1000);
    const status = await asked;
    assert.deepEqual(status.problems, ['Data plane gives no counters: No answer in 1000 ms']);
    assert.equal(status.workersLost, 3);
    assert.deepEqual(status.drains, []);
  });

  test('are empty before the first apply', async () => {
    const { views, balancer } = new Lab();
    balancer.state = undefined;
    assert.deepEqual(await views.frontends(), []);
    assert.deepEqual(await views.rules(), []);
    assert.deepEqual(await views.pools(), []);
    assert.deepEqual((await views.status()).problems, ['No forwarding state has been applied yet']);
  });
});

describe('Views.onEvent()', () => {
  const report = { revision: 9, kept: { flows: 500 }, lost: { flows: 2 } } as ReloadReport;

  test('keeps what the last reload said, and where the configuration is from', async () => {
    const { clock, views } = new Lab();
    const startedAtMs = clock.wallMs();
    const told = async () => {
      const { digest, ...rest } = (await views.status()).configuration;
      assert.equal(digest, configuration.digest);
      return rest;
    };
    assert.deepEqual(await told(), { source: 'config.json', loadedAtMs: startedAtMs });

    clock.advance(5000);
    views.onEvent({ type: 'reloaded', cause: 'admin API', report });
    const atMs = startedAtMs + 5000;
    const message = 'Revision 9 by admin API: 500 flows kept, 2 lost';
    assert.deepEqual(await told(), {
      source: 'admin API',
      loadedAtMs: atMs,
      lastReload: { atMs, ok: true, message },
    });

    clock.advance(5000);
    views.onEvent({ type: 'reload-failed', cause: 'SIGHUP', error: new Error('no such file') });
    assert.deepEqual(await told(), {
      source: 'admin API',
      loadedAtMs: atMs,
      lastReload: { atMs: atMs + 5000, ok: false, message: 'Refused (SIGHUP): no such file' },
    });

    views.onEvent({ type: 'reloaded', cause: 'SIGHUP', report });
    assert.equal((await told()).source, 'config.json');
  });

  test('makes a refused revision a problem until one is applied', async () => {
    const { views } = new Lab();
    const problems = async () => (await views.status()).problems;
    views.onEvent({ type: 'apply-failed', revision: 7, error: new Error('EMFILE') });
    assert.deepEqual(await problems(), ['Data plane refused revision 7: EMFILE']);
    const applied = { revision: 8, listeners: { tcp: 1, udp: 1 }, failures: [] };
    views.onEvent({ type: 'applied', digest: configuration.digest, report: applied });
    assert.deepEqual(await problems(), []);
  });
});
