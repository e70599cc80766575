import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Balancer } from '../../../src/control/balancer.js';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import type { Backend } from '../../../src/model/configuration.js';
import type { ControlEvent } from '../../../src/model/events.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { FakeClock } from '../../support/fake-clock.js';
import { FakeHealth, FakePlane, type PlaneCall } from './fakes.js';
import { aPool, settings } from './settings.js';

const hash = await createHasher();

/** Lets everything that waits for a promise go on. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

class Lab {
  readonly clock = new FakeClock();
  readonly plane = new FakePlane();
  readonly health = new FakeHealth();
  readonly configuration = settings();
  /** Events and states, in the order in which they were told. */
  readonly told: string[] = [];
  readonly events: ControlEvent[] = [];
  readonly states: ForwardingState[] = [];
  readonly balancer = new Balancer(
    {
      clock: this.clock,
      plane: this.plane,
      health: this.health,
      compiler: new ForwardingCompiler(hash),
      onEvent: (event) => {
        this.events.push(event);
        this.told.push(describeEvent(event));
      },
      onState: (state) => {
        this.states.push(state);
        this.told.push(`state ${state.revision}, plane has had ${this.plane.calls.length} calls`);
      },
    },
    this.configuration,
  );

  backend(number: number): Backend {
    const found = this.configuration.backendPools[0]?.backends[number - 1];
    assert.ok(found !== undefined, `No backend ${number}`);
    return found;
  }

  call(index: number): PlaneCall {
    const call = this.plane.calls[index];
    assert.ok(call !== undefined, `The plane has had only ${this.plane.calls.length} calls`);
    return call;
  }

  /** Numbers of the backends that serve in what the plane was given. */
  serving(index: number): readonly number[] {
    return this.call(index).state.views[0]!.backends.flatMap(({ serving }, i) => (serving ? [i + 1] : []));
  }

  takeTold(): readonly string[] {
    return this.told.splice(0);
  }
}

function describeEvent(event: ControlEvent): string {
  const { type } = event;
  if (type === 'health-changed')
    return `${event.backendName} ${event.transition.from}-${event.transition.to}`;
  if (type === 'pool-serving-changed') return `serving ${event.eligible} of ${event.total}`;
  if (type === 'applied') return `applied ${event.report.revision}`;
  if (type === 'apply-failed') return `apply-failed ${event.revision}`;
  if (type === 'stopping') return `stopping ${event.cause} ${event.deadlineMs}`;
  if (type === 'stopped') return `stopped ${event.report.finished} ${event.report.reset}`;
  return type;
}

/** Started, with all three backends up at revision 1. */
async function running(): Promise<Lab> {
  const lab = new Lab();
  const started = lab.balancer.start();
  for (const number of [1, 2, 3]) lab.health.set(lab.backend(number), 'up');
  lab.health.speak();
  await turn();
  lab.call(0).accept();
  await started;
  lab.takeTold();
  return lab;
}

describe('Balancer.start()', () => {
  test('start() waits for first verdicts, then starts the plane with them', async () => {
    const lab = new Lab();
    const started = lab.balancer.start();
    assert.equal(lab.health.started, 1);
    lab.health.set(lab.backend(2), 'up');
    await turn();
    assert.equal(lab.plane.calls.length, 0, 'not everybody has spoken');
    lab.health.set(lab.backend(1), 'up');
    lab.health.speak();
    await turn();
    assert.equal(lab.plane.calls.length, 1);
    assert.equal(lab.call(0).method, 'start');
    assert.deepEqual(lab.serving(0), [1, 2]);
    assert.equal(lab.balancer.state, undefined, 'the plane has not got it yet');
    const failure = {
      rule: 'ha-ports',
      protocol: 'tcp',
      address: '127.0.0.1',
      port: 7,
      errorCode: 'EACCES',
    } as const;
    lab.call(0).accept({ failures: [failure] });
    const report = await started;
    assert.deepEqual(report.failures, [failure]);
    assert.equal(lab.balancer.report, report);
    assert.equal(lab.balancer.state, lab.call(0).state);
    assert.equal(lab.balancer.stopping, false);
    assert.deepEqual(lab.takeTold(), [
      'nva-2 unknown-up',
      'nva-1 unknown-up',
      'state 1, plane has had 0 calls',
      'applied 1',
      'serving 2 of 3',
    ]);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('start() rejects with the plane`s own error and applies nothing after', async () => {
    const lab = new Lab();
    const started = lab.balancer.start();
    lab.health.speak();
    await turn();
    const error = new Error('Cannot listen');
    lab.call(0).refuse(error);
    await assert.rejects(started, error);
    lab.health.set(lab.backend(1), 'up');
    await turn();
    assert.equal(lab.plane.calls.length, 1);
    assert.equal(lab.balancer.state, undefined);
    assert.equal(
      lab.events.some(({ type }) => type === 'applied'),
      false,
    );
  });
});

describe('Balancer changes', () => {
  test('a change makes one apply, told before and after', async () => {
    const lab = await running();
    lab.health.set(lab.backend(2), 'down');
    await turn();
    assert.equal(lab.plane.calls.length, 2);
    assert.deepEqual(lab.serving(1), [1, 3]);
    assert.equal(lab.balancer.state?.revision, 1, 'not before the plane has it');
    assert.deepEqual(lab.takeTold(), ['nva-2 up-down', 'state 2, plane has had 1 calls']);
    lab.call(1).accept();
    await turn();
    assert.equal(lab.balancer.state.revision, 2);
    assert.deepEqual(lab.takeTold(), ['applied 2', 'serving 2 of 3']);
  });

  test('a change of weight alone makes an apply too, without a health event', async () => {
    const lab = await running();
    lab.health.reweigh(lab.backend(1));
    await turn();
    assert.equal(lab.plane.calls.length, 2);
    lab.call(1).accept();
    await turn();
    assert.deepEqual(lab.takeTold(), ['state 2, plane has had 1 calls', 'applied 2']);
  });

  test('a change at whatever moment of an apply`s end reaches the plane', async () => {
    for (let microtasks = 0; microtasks < 12; microtasks++) {
      const lab = await running();
      lab.health.set(lab.backend(1), 'down');
      await turn();
      lab.call(1).accept();
      for (let i = 0; i < microtasks; i++) await Promise.resolve();
      lab.health.set(lab.backend(2), 'down');
      await turn();
      assert.equal(lab.plane.calls.length, 3, `after ${microtasks} microtasks`);
      assert.deepEqual(lab.serving(2), [3]);
    }
  });

  test('a change at whatever moment of the start`s end reaches the plane', async () => {
    for (let microtasks = 0; microtasks < 12; microtasks++) {
      const lab = new Lab();
      const started = lab.balancer.start();
      for (const number of [1, 2, 3]) lab.health.set(lab.backend(number), 'up');
      lab.health.speak();
      await turn();
      lab.call(0).accept();
      for (let i = 0; i < microtasks; i++) await Promise.resolve();
      lab.health.set(lab.backend(2), 'down');
      await started;
      await turn();
      assert.equal(lab.plane.calls.length, 2, `after ${microtasks} microtasks`);
      assert.deepEqual(lab.serving(1), [1, 3]);
    }
  });

  test('passive failures bring the backend`s next probe forward, other events do not', async () => {
    const lab = await running();
    lab.plane.emit(
      { type: 'passive-failure', atMs: 1, backendId: 'nvas/10.0.0.2', evidence: 'ECONNREFUSED' },
      { type: 'overload', atMs: 1, phase: 'started', reason: 'table-full' },
      { type: 'passive-failure', atMs: 1, backendId: 'nvas/10.0.0.3', evidence: 'connect timeout' },
    );
    assert.deepEqual(lab.health.hastened, ['nvas/10.0.0.2', 'nvas/10.0.0.3']);
    await turn();
    assert.equal(lab.plane.calls.length, 1, 'traffic alone ejects nobody');
  });

  test('report follows ports that were bound after all', async () => {
    const lab = await running();
    const before = lab.balancer.report;
    const listeners = { tcp: 7, udp: 8 };
    lab.plane.emit({ type: 'listening-changed', atMs: 1, worker: 0, listeners, failures: 0 });
    assert.deepEqual(lab.balancer.report, { ...before, listeners });
  });

  test('settled() waits for the apply under way', async () => {
    const lab = await running();
    await lab.balancer.settled();
    lab.health.set(lab.backend(1), 'down');
    let settled = false;
    const waiting = lab.balancer.settled().then(() => (settled = true));
    await turn();
    assert.equal(settled, false);
    lab.call(1).accept();
    await waiting;
  });
});

describe('Balancer.reconfigure()', () => {
  const wider = settings({ digest: 'wider', backendPools: [aPool(4)] });

  test('reconfigure() probes old and new backends, waits for verdicts, applies once, forgets the old', async () => {
    const lab = await running();
    const done = lab.balancer.reconfigure(wider);
    lab.health.set(wider.backendPools[0]!.backends[3]!, 'up');
    await turn();
    const { digest } = lab.configuration;
    lab.call(1).accept();
    await turn();
    lab.call(2).accept();
    assert.equal((await done).revision, 3);
    assert.deepEqual(lab.health.watched, [[digest], ['wider', digest], [digest, 'wider'], ['wider']]);
    assert.deepEqual(lab.serving(2), [1, 2, 3, 4]);
    assert.equal(lab.balancer.configuration, wider);
  });

  test('reconfigure() that the plane refuses goes back whole, and can be tried again', async () => {
    const lab = await running();
    const refused = lab.balancer.reconfigure(wider);
    await turn();
    lab.call(1).refuse(new Error('EADDRINUSE'));
    await turn();
    assert.equal(
      lab.call(2).state.configuration,
      lab.configuration,
      'workers that had taken it over go back',
    );
    lab.call(2).accept();
    await assert.rejects(refused, { code: 'LB_APPLY_FAILED', message: /EADDRINUSE/ });
    assert.equal(lab.balancer.configuration, lab.configuration);
    assert.deepEqual(lab.health.watched.at(-1), [lab.configuration.digest]);
    const again = lab.balancer.reconfigure(wider);
    await turn();
    lab.call(3).accept();
    await again;
    assert.equal(lab.balancer.state?.configuration, wider);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('preview() shows a configuration with unprobed backends up, and leaves no trace', async () => {
    const lab = await running();
    const state = lab.balancer.preview(wider);
    assert.deepEqual(
      state.views[0]!.backends.map(({ serving }) => serving),
      [true, true, true, true],
    );
    lab.health.set(lab.backend(1), 'down');
    await turn();
    assert.equal(lab.call(1).state.revision, 2);
    assert.equal(lab.plane.calls.length, 2);
  });

  test('preview() has what probes know of backends that they have asked', async () => {
    const lab = await running();
    lab.health.set(lab.backend(1), 'down');
    await turn();
    const state = lab.balancer.preview(wider);
    assert.deepEqual(
      state.views[0]!.backends.map(({ serving }) => serving),
      [false, true, true, true],
    );
    lab.call(1).accept();
  });
});

describe('Balancer.stop()', () => {
  test('stop() ends probing at once and the plane in its own time, told before and after', async () => {
    const lab = await running();
    const stopped = lab.balancer.stop('SIGTERM', 3000, 'at-once');
    assert.equal(lab.balancer.stopping, true);
    assert.equal(lab.health.stopped, 1);
    assert.deepEqual(lab.plane.stops, [{ deadlineMs: 3000, udp: 'at-once' }]);
    await turn();
    assert.deepEqual(lab.takeTold(), ['stopping SIGTERM 3000']);
    lab.plane.stopped({ finished: 4, reset: 2 });
    assert.deepEqual(await stopped, { finished: 4, reset: 2 });
    assert.deepEqual(lab.takeTold(), ['stopped 4 2']);
  });

  test('stop() does not wait for an apply that never ends', async () => {
    const lab = await running();
    lab.health.set(lab.backend(1), 'down');
    await turn();
    const stopped = lab.balancer.stop('SIGTERM', 1000);
    lab.plane.stopped({ finished: 1, reset: 0 });
    assert.deepEqual(await stopped, { finished: 1, reset: 0 });
  });

  test('stop() makes no news of an apply that it cut off', async () => {
    const lab = await running();
    lab.health.set(lab.backend(1), 'down');
    await turn();
    lab.takeTold();
    const stopped = lab.balancer.stop('SIGTERM', 1000);
    lab.plane.stopped({ finished: 0, reset: 0 });
    await stopped;
    lab.call(1).refuse(new Error('The data worker is gone'));
    await turn();
    assert.deepEqual(lab.takeTold(), ['stopping SIGTERM 1000', 'stopped 0 0']);
  });

  test('a second stop() passes the shorter deadline on, and the end is told once', async () => {
    const lab = await running();
    const first = lab.balancer.stop('SIGTERM', 30_000);
    const second = lab.balancer.stop('second SIGTERM', 0);
    assert.deepEqual(
      lab.plane.stops.map(({ deadlineMs }) => deadlineMs),
      [30_000, 0],
    );
    lab.plane.stopped({ finished: 1, reset: 2 });
    assert.deepEqual(await Promise.all([first, second]), [
      { finished: 1, reset: 2 },
      { finished: 1, reset: 2 },
    ]);
    assert.deepEqual(lab.takeTold(), ['stopping SIGTERM 30000', 'stopping second SIGTERM 0', 'stopped 1 2']);
  });
});
