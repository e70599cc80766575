import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Overrides } from '../../../src/control/overrides.js';
import { poolViews, type PoolViewInputs, type ProbedStatus } from '../../../src/status/pools.js';
import type { BackendHealth, BackendState, ForwardingState } from '../../../src/model/forwarding.js';
import type { BackendView, DrainStatus } from '../../../src/api/views.js';
import { tcpProbe } from '../health/probe-fixtures.js';
import { aBackendState, aRule, aState, aView } from '../selection/fixtures.js';
import { aReading, aRow, sent } from './counters-fixtures.js';
import { aPool } from '../control/settings.js';

const pool = aPool(3);
const probe = tcpProbe({ name: 'alive' });
const DOWN: Partial<BackendState> = {
  health: 'down',
  eligible: false,
  valid: false,
  serving: false,
  exclusion: 'probe-down',
};

/** Members 10.0.0.1 to .3, changed as told by index. */
function members(changes: Readonly<Record<number, Partial<BackendState>>> = {}): readonly BackendState[] {
  return pool.backends.map((backend, index) => aBackendState(backend, changes[index]));
}

function inputs(overrides: Partial<PoolViewInputs> = {}): PoolViewInputs {
  return {
    state: aState({ configuration: { backendPools: [pool] }, view: { backends: members() } }),
    samples: {},
    probes: [],
    overrides: new Overrides(),
    drains: [],
    monotonicMs: 50_000,
    ...overrides,
  };
}

function backendsOf(overrides: Partial<PoolViewInputs> = {}): readonly BackendView[] {
  return sent(poolViews(inputs(overrides)))[0]?.backends ?? [];
}

function known(health: Partial<BackendHealth>): BackendHealth {
  return {
    state: 'up',
    measured: 'up',
    consecutiveSuccesses: 3,
    consecutiveFailures: 0,
    transitions: 1,
    history: [],
    recentChangesMs: [],
    ...health,
  };
}

describe('poolViews()', () => {
  test('describes pools and backends', () => {
    const [view] = sent(poolViews(inputs()));
    assert.deepEqual(
      { ...view, backends: view?.backends.length },
      { name: 'nvas', minimumHealthy: 1, servingPriority: 0, serving: 3, rules: ['ha-ports'], backends: 3 },
    );
    assert.deepEqual(
      { ...view?.backends[1], traffic: undefined, hashShare: undefined },
      {
        id: 'nvas/10.0.0.2',
        name: 'nva-2',
        pool: 'nvas',
        address: '10.0.0.2',
        priority: 0,
        adminState: 'none',
        adminStateOrigin: 'configured',
        configuredWeight: 1,
        weight: 1,
        weightOrigin: 'configured',
        serving: true,
        valid: true,
        health: 'up',
        probes: [],
        hashShare: undefined,
        realShare: 0,
        traffic: undefined,
      },
    );
  });

  test('gives shares of the hash space and of the flows opened, those of backends that left among them', () => {
    const traffic = [
      aRow({ flowsOpened: 20, lastFlowAtMs: 1000 }),
      aRow({ protocol: 'udp', flowsOpened: 30, lastFlowAtMs: 900 }),
      aRow({ backendId: 'nvas/10.0.0.9', flowsOpened: 50 }),
      aRow({ backendId: 'others/10.0.0.2', flowsOpened: 70 }),
    ];
    const [first, second] = backendsOf({ samples: { latest: { atMs: 0, counters: aReading({ traffic }) } } });
    // The table of the fixture: 0 1 2 0 1 2 0.
    assert.equal(first?.hashShare, 3 / 7);
    assert.equal(second?.hashShare, 2 / 7);
    assert.equal(first.realShare, 0.5);
    assert.equal(first.lastNewFlowAtMs, 1000);
    assert.equal(first.traffic.flowsOpened, 50);
    assert.equal(second.realShare, 0);
    assert.equal('lastNewFlowAtMs' in second, false);
  });

  test('takes hash shares from the fail-open table while that is in use, and none where nobody takes flows', () => {
    const view = {
      backends: members({ 0: DOWN, 1: DOWN, 2: DOWN }),
      table: new Uint16Array(0),
      failOpenTable: Uint16Array.of(0, 1, 1, 1),
    };
    const shares = (allDown: 'reset' | 'fail-open') => {
      const configuration = { backendPools: [pool], rules: [aRule({ allDown })] };
      return backendsOf({ state: aState({ configuration, view }) }).map(({ hashShare }) => hashShare);
    };
    assert.deepEqual(shares('fail-open'), [0.25, 0.75, 0]);
    assert.deepEqual(shares('reset'), [0, 0, 0]);
  });

  test('shows what operators set, and that it is theirs', () => {
    const overrides = new Overrides();
    overrides.set('nvas/10.0.0.1', { adminState: 'down' });
    overrides.set('nvas/10.0.0.2', { weight: 7 });
    const view = { backends: members({ 1: { wantedWeight: 7, weightOrigin: 'operator' } }) };
    const state = aState({ configuration: { backendPools: [pool] }, view });
    const [first, second] = backendsOf({ overrides, state });
    assert.deepEqual([first?.adminState, first?.adminStateOrigin], ['down', 'operator']);
    assert.deepEqual([second?.adminState, second?.adminStateOrigin], ['none', 'configured']);
    assert.deepEqual([second?.weight, second?.weightOrigin, second?.configuredWeight], [7, 'operator', 1]);
  });

  test('shows a backend as the view sees it that sees it best', () => {
    const standby: Partial<BackendState> = { serving: false, exclusion: 'standby' };
    const state: ForwardingState = {
      ...aState({ configuration: { backendPools: [pool], rules: [aRule(), aRule({ name: 'second' })] } }),
      views: [
        aView({ pool, backends: members({ 0: DOWN, 1: DOWN, 2: DOWN }) }),
        aView({ pool, backends: members({ 1: standby, 2: DOWN }) }),
      ],
      viewOfRule: [0, 1],
    };
    const [first, second, third] = backendsOf({ state });
    assert.deepEqual(
      [first?.serving, first?.valid, first?.health, first?.exclusion],
      [true, true, 'up', undefined],
    );
    assert.deepEqual([second?.serving, second?.exclusion], [false, 'standby']);
    assert.deepEqual([third?.serving, third?.valid, third?.health], [false, false, 'down']);
    assert.equal(third?.exclusion, 'probe-down');
  });

  test('shows probes with evidence, and how long flap damping holds', () => {
    const last = {
      verdict: 'failure',
      answer: 'silence',
      evidence: 'no answer in 5s',
      durationMs: 5000,
    } as const;
    const history = [{ atMs: 1, from: 'up', to: 'down', evidence: 'HTTP 503' }] as const;
    const [one, two] = pool.backends;
    assert.ok(one && two);
    const status = (backend: typeof one, health?: BackendHealth): ProbedStatus => ({
      pool: 'nvas',
      backend,
      probe,
      key: 'key',
      health,
    });
    const probes = [
      status(one, known({ state: 'up' })),
      status(one, known({ state: 'down', history, last, heldUntilMs: 51_500 })),
      status(two),
    ];
    const [first, second, third] = backendsOf({ probes });
    assert.deepEqual(first?.probes, [
      {
        probe: 'alive',
        state: 'down',
        consecutiveSuccesses: 3,
        consecutiveFailures: 0,
        transitions: 1,
        heldForMs: 1500,
        last: { verdict: 'failure', evidence: 'no answer in 5s', durationMs: 5000 },
        history,
      },
    ]);
    assert.equal(second?.probes[0]?.state, 'unknown');
    assert.deepEqual(third?.probes, []);
    const later = backendsOf({ probes, monotonicMs: 52_000 });
    assert.equal('heldForMs' in (later[0]?.probes[0] ?? {}), false);
  });

  test('shows the part of its weight that slow start lets a backend have', () => {
    const half = {
      wantedWeight: 5,
      weightOrigin: 'operator',
      rampPercent: 50,
      effectiveWeight: 250,
    } as const;
    const view = { backends: members({ 0: half, 1: { wantedWeight: 3, effectiveWeight: 300 } }) };
    const state = aState({ configuration: { backendPools: [pool] }, view });
    assert.deepEqual(
      backendsOf({ state }).map(({ weight, weightOrigin }) => [weight, weightOrigin]),
      [
        [2.5, 'slow-start'],
        [3, 'configured'],
        [1, 'configured'],
      ],
    );
  });

  test('puts a drain beside its backend', () => {
    const drain = { backendId: 'nvas/10.0.0.3', phase: 'draining' } as DrainStatus;
    assert.deepEqual(
      backendsOf({ drains: [drain] }).map((backend) => backend.drain?.phase),
      [undefined, undefined, 'draining'],
    );
  });

  test('shows a pool that no rule uses', () => {
    const state = aState({ configuration: { backendPools: [pool, aPool(1, { name: 'idle' })] } });
    const idle = poolViews(inputs({ state }))[1];
    assert.deepEqual([idle?.name, idle?.serving, idle?.rules.length], ['idle', 0, 0]);
    assert.deepEqual([idle?.backends[0]?.health, idle?.backends[0]?.weight], ['unknown', 1]);
  });
});
