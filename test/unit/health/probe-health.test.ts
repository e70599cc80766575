import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ProbeHealth, type HealthChange } from '../../../src/health/tracker.js';
import { probeStatuses } from '../../../src/status/pools.js';
import type { Configuration, ProbeResult } from '../../../src/model/configuration.js';
import { ProbeScheduler } from '../../../src/health/scheduler.js';
import { FakeClock } from '../../support/fake-clock.js';
import { httpProbe, ScriptedRunner, SICK, tcpProbe, UP } from '../health/probe-fixtures.js';
import { aRule } from '../selection/fixtures.js';
import { aPool, settings } from '../control/settings.js';

const alive = httpProbe({ name: 'alive', port: 9000, weightFromProbeHeader: 'X-Weight' });

/** A real scheduler and tracker; the answers are the test's. */
class Lab {
  readonly clock = new FakeClock();
  readonly runner = new ScriptedRunner(this.clock);
  readonly health: ProbeHealth;
  readonly changes: HealthChange[] = [];

  constructor() {
    const deps = { clock: this.clock, runner: this.runner, random: () => 0 };
    this.health = new ProbeHealth(new ProbeScheduler(deps));
    this.health.onChange((change) => this.changes.push(change));
  }

  /** One more probe of each target, all answered alike. */
  async round(answer: ProbeResult | 'hang'): Promise<void> {
    this.runner.answer = answer;
    await this.clock.advanceAsync(alive.intervalMs);
  }

  /** The probes of the start. */
  async first(answer: ProbeResult | 'hang'): Promise<void> {
    this.runner.answer = answer;
    await this.clock.advanceAsync(1);
  }

  takeChanges(): readonly string[] {
    return this.changes.splice(0).map(({ pool, backend, probe, transition }) => {
      const what = transition === undefined ? 'weight' : `${transition.from}-${transition.to}`;
      return `${pool} ${backend.id} ${probe} ${what}`;
    });
  }
}

function started(configuration: Configuration): Lab {
  const lab = new Lab();
  lab.health.watch([configuration]);
  return lab;
}

/** Whether a promise has settled by now. */
async function settled(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  await new Promise((resolve) => setImmediate(resolve));
  return (await Promise.race([promise, Promise.resolve(pending)])) !== pending;
}

const oneBackend = settings({
  probes: [alive],
  backendPools: [aPool(1)],
  rules: [aRule({ probe: 'alive' })],
});
/** The same address in two pools, behind one probe. */
const twoPools = settings({
  probes: [alive],
  backendPools: [aPool(1), aPool(1, { name: 'others' })],
  rules: [aRule({ name: 'a', probe: 'alive' }), aRule({ name: 'b', backendPool: 'others', probe: 'alive' })],
});

describe('ProbeHealth', () => {
  test('watch() probes a target once, however many pools, rules and probe names share it', async () => {
    const twin = { ...alive, name: 'twin' };
    const lab = started(
      settings({
        probes: [alive, twin],
        backendPools: [aPool(1), aPool(1, { name: 'others' })],
        rules: [
          aRule({ name: 'a', probe: 'alive' }),
          aRule({ name: 'b', probe: 'alive' }),
          aRule({ name: 'c', backendPool: 'others', probe: 'alive' }),
          aRule({ name: 'd', backendPool: 'others', probe: 'twin' }),
        ],
      }),
    );
    await lab.first(UP);
    assert.equal(lab.runner.calls.length, 1);
    assert.deepEqual(lab.takeChanges(), [
      'nvas nvas/10.0.0.1 alive unknown-up',
      'others others/10.0.0.1 alive unknown-up',
      'others others/10.0.0.1 twin unknown-up',
    ]);
    assert.equal(lab.health.statuses().length, 3);
  });

  test('watch() probes neither pools without a probe nor pools that no rule uses', async () => {
    const lab = started(
      settings({
        probes: [alive],
        backendPools: [aPool(2), aPool(2, { name: 'unused' })],
        rules: [aRule({ name: 'unprobed' })],
      }),
    );
    await lab.first(UP);
    assert.equal(lab.runner.calls.length, 0);
    assert.equal(await settled(lab.health.firstVerdicts()), true, 'nothing to wait for');
  });

  test('onChange() tells every member of a target of a transition, in both directions', async () => {
    const lab = started(twoPools);
    await lab.first(UP);
    lab.takeChanges();
    await lab.round(UP);
    assert.deepEqual(lab.takeChanges(), [], 'an agreeing result is no change');
    await lab.round(SICK);
    assert.deepEqual(lab.takeChanges(), [
      'nvas nvas/10.0.0.1 alive up-down',
      'others others/10.0.0.1 alive up-down',
    ]);
    for (const pool of twoPools.backendPools) {
      assert.deepEqual(lab.health.healthOf(pool.backends[0]!, 'alive'), { state: 'down', weight: undefined });
    }
  });

  test('onChange() tells of a weight that changes without a transition, once', async () => {
    const lab = started(oneBackend);
    const backend = oneBackend.backendPools[0]!.backends[0]!;
    await lab.first({ ...UP, weight: 5 });
    assert.deepEqual(lab.takeChanges(), ['nvas nvas/10.0.0.1 alive unknown-up']);
    await lab.round({ ...UP, weight: 5 });
    assert.deepEqual(lab.takeChanges(), []);
    await lab.round({ ...UP, weight: 9 });
    assert.deepEqual(lab.takeChanges(), ['nvas nvas/10.0.0.1 alive weight']);
    assert.deepEqual(lab.health.healthOf(backend, 'alive'), { state: 'up', weight: 9 });
    await lab.round({ ...UP, weight: 9 });
    assert.deepEqual(lab.takeChanges(), []);
    await lab.round(UP);
    assert.deepEqual(lab.takeChanges(), ['nvas nvas/10.0.0.1 alive weight'], 'the header is gone');
    assert.deepEqual(lab.health.healthOf(backend, 'alive'), { state: 'up', weight: undefined });
  });

  test('healthOf() is unknown before the first verdict and for what is not probed', async () => {
    const lab = started(oneBackend);
    const backend = oneBackend.backendPools[0]!.backends[0]!;
    assert.deepEqual(lab.health.healthOf(backend, 'alive'), { state: 'unknown', weight: undefined });
    await lab.first(UP);
    assert.deepEqual(lab.health.healthOf(backend, 'alive'), { state: 'up', weight: undefined });
    assert.deepEqual(lab.health.healthOf(backend, 'another'), { state: 'unknown', weight: undefined });
    assert.deepEqual(lab.health.healthOf({ ...backend, id: 'others/10.0.0.1' }, 'alive'), {
      state: 'unknown',
      weight: undefined,
    });
  });

  test('firstVerdicts() resolves when all targets have spoken, whatever they said', async () => {
    const fast = tcpProbe({ name: 'fast', port: 1, timeoutMs: 50 });
    const lab = started(
      settings({
        probes: [alive, fast],
        backendPools: [aPool(1)],
        rules: [aRule({ name: 'a', probe: 'alive' }), aRule({ name: 'b', probe: 'fast' })],
      }),
    );
    const all = lab.health.firstVerdicts();
    await lab.first('hang');
    assert.equal(await settled(all), false);
    await lab.clock.advanceAsync(fast.timeoutMs);
    assert.equal(await settled(all), false, 'one of two has spoken');
    await lab.clock.advanceAsync(alive.timeoutMs);
    assert.equal(await settled(all), true, 'silence is a verdict too');
    assert.equal(lab.health.healthOf(oneBackend.backendPools[0]!.backends[0]!, 'alive').state, 'unknown');
  });

  test('hasten() brings the next probe of the backend`s address forward', async () => {
    const lab = started(
      settings({ probes: [alive], backendPools: [aPool(2)], rules: [aRule({ probe: 'alive' })] }),
    );
    await lab.first(UP);
    await lab.clock.advanceAsync(1000);
    lab.runner.calls.splice(0);
    lab.health.hasten('nvas/10.0.0.2');
    await lab.clock.advanceAsync(1);
    assert.deepEqual(
      lab.runner.calls.map(({ address }) => address),
      ['10.0.0.2'],
    );
    lab.health.hasten('nvas/10.9.9.9');
    await lab.clock.advanceAsync(1);
    assert.equal(lab.runner.calls.length, 1, 'nobody knows that one');
  });

  test('stop() ends all probing and tells of nothing that comes after', async () => {
    const lab = started(oneBackend);
    await lab.first('hang');
    lab.health.stop();
    await lab.clock.advanceAsync(60_000, 1000);
    assert.equal(lab.runner.calls.length, 1);
    assert.equal(lab.runner.inFlight, 0);
    assert.equal(lab.clock.pendingTimers, 0);
    assert.deepEqual(lab.takeChanges(), []);
  });

  test('tallyOf() counts results by verdict and transitions by where they led', async () => {
    const lab = started(oneBackend);
    const [member] = lab.health.statuses();
    assert.deepEqual(lab.health.tallyOf(member!.key), { up: 0, down: 0, success: 0, failure: 0 });
    await lab.first(UP);
    await lab.round(UP);
    await lab.round(SICK);
    await lab.round(SICK);
    await lab.round(UP);
    assert.deepEqual(lab.health.tallyOf(member!.key), { up: 2, down: 1, success: 3, failure: 2 });
  });

  test('a probe that never left this machine is neither counted nor a first verdict', async () => {
    const lab = started(oneBackend);
    const verdicts = lab.health.firstVerdicts();
    await lab.first({ ...SICK, inconclusive: 'ports' });
    assert.equal(await settled(verdicts), false);
    await lab.round(UP);
    assert.equal(await settled(verdicts), true);
    await lab.round({ ...SICK, inconclusive: 'ports' });
    const [member] = lab.health.statuses();
    assert.deepEqual(lab.health.tallyOf(member!.key), { up: 1, down: 0, success: 1, failure: 0 });
    assert.equal(member!.health?.last?.inconclusive, 'ports');
    assert.deepEqual(lab.health.inconclusiveOf(member!.key), { ports: 2 });
  });
});

describe('probeStatuses()', () => {
  test('probeStatuses() has a row for each probe of each member, before and after its first result', async () => {
    const lab = started(twoPools);
    const none = {
      ...{ transitions: { up: 0, down: 0 }, results: { success: 0, failure: 0 } },
      ...{ inconclusive: {}, lastDurationMs: undefined },
    };
    assert.deepEqual(probeStatuses(lab.health), [
      { pool: 'nvas', backendId: 'nvas/10.0.0.1', probe: 'alive', health: 'unknown', ...none },
      { pool: 'others', backendId: 'others/10.0.0.1', probe: 'alive', health: 'unknown', ...none },
    ]);
    await lab.first({ ...UP, durationMs: 7 });
    await lab.round({ ...SICK, durationMs: 12 });
    const row = {
      probe: 'alive',
      health: 'down',
      transitions: { up: 1, down: 1 },
      results: { success: 1, failure: 1 },
      inconclusive: {},
      lastDurationMs: 12,
    };
    assert.deepEqual(probeStatuses(lab.health), [
      { pool: 'nvas', backendId: 'nvas/10.0.0.1', ...row },
      { pool: 'others', backendId: 'others/10.0.0.1', ...row },
    ]);
  });
});
