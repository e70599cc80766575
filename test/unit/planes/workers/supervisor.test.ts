import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { WorkerSupervisor } from '../../../../src/planes/workers/supervisor.js';
import { BalancerError } from '../../../../src/model/errors.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { aState } from '../../selection/fixtures.js';
import { turn } from './channel-pair.js';
import { FakeWorker } from './fake-worker.js';
import { countersOf } from './scripted-plane.js';

const state = (revision: number) => ({ ...aState(), revision });
const listenFailed = new BalancerError('Cannot listen on any of 2 ports', {
  code: 'LB_LISTEN_FAILED',
  source: 'system',
});

class Lab {
  readonly clock = new FakeClock();
  readonly workers: FakeWorker[] = [];
  readonly events: PlaneEvent[] = [];
  /** Applied to the next workers launched. */
  prepare: (worker: FakeWorker) => void = () => undefined;
  readonly plane = new WorkerSupervisor(
    {
      clock: this.clock,
      launch: () => {
        const worker = new FakeWorker(this.clock);
        this.prepare(worker);
        this.workers.push(worker);
        return worker;
      },
    },
    { flowEvents: false, worker: 3, workers: 4 },
  );

  constructor() {
    this.plane.subscribe((events) => this.events.push(...events));
  }

  worker(number: number): FakeWorker {
    const worker = this.workers[number - 1];
    assert.ok(worker !== undefined, `Only ${this.workers.length} workers were launched`);
    return worker;
  }

  /** Kills the newest worker, as the kernel would. */
  async kill(): Promise<void> {
    this.worker(this.workers.length).die('signal SIGKILL');
    await turn();
  }

  async arrivals(): Promise<number> {
    const { arrivals } = await this.plane.counters();
    return arrivals.reduce((sum, one) => sum + one.arrivals, 0);
  }
}

async function started(): Promise<Lab> {
  const lab = new Lab();
  await lab.plane.start(state(1));
  return lab;
}

describe('WorkerSupervisor', () => {
  test('start() launches one worker and gives its answer; calls go to it', async () => {
    const lab = new Lab();
    const report = await lab.plane.start(state(1));
    assert.deepEqual(report, { revision: 1, listeners: { tcp: 2, udp: 1 }, failures: [] });
    assert.equal((await lab.plane.apply(state(2))).revision, 2);
    assert.deepEqual(await lab.plane.flows({ limit: 5 }), { flows: [], next: 9 });
    assert.equal(lab.workers.length, 1);
    assert.deepEqual(lab.worker(1).plane.calls, ['start 1', 'apply 2', 'flows 5']);
  });

  test('start() that fails kills the worker, rejects with its error and tries no other', async () => {
    const lab = new Lab();
    lab.prepare = ({ plane }) => (plane.startFailure = listenFailed);
    await assert.rejects(lab.plane.start(state(1)), { code: 'LB_LISTEN_FAILED' });
    assert.equal(lab.worker(1).kills, 1);
    await lab.clock.advanceAsync(60_000, 1000);
    assert.equal(lab.workers.length, 1);
    assert.deepEqual(lab.events, []);
    assert.deepEqual(await lab.plane.stop(0), { finished: 0, reset: 0 });
  });

  test('start() rejects if the worker dies meanwhile', async () => {
    const lab = new Lab();
    lab.prepare = ({ plane }) => (plane.frozen = true);
    const start = assert.rejects(lab.plane.start(state(1)), { code: 'LB_WORKER_LOST' });
    await turn();
    await lab.kill();
    await start;
    await lab.clock.advanceAsync(60_000, 1000);
    assert.equal(lab.workers.length, 1);
  });

  test('apply() hands on an error of the worker`s plane', async () => {
    const lab = await started();
    lab.worker(1).plane.applyFailure = new Error('Bug');
    await assert.rejects(lab.plane.apply(state(2)), { code: 'LB_INTERNAL', message: 'Bug' });
    lab.worker(1).plane.applyFailure = undefined;
    assert.equal((await lab.plane.apply(state(3))).revision, 3);
  });

  test('events of each worker in turn reach the subscribers', async () => {
    const lab = await started();
    const overload: PlaneEvent = { type: 'overload', atMs: 1, phase: 'started', reason: 'table-full' };
    lab.worker(1).plane.emit(overload);
    await turn();
    await lab.kill();
    await lab.clock.advanceAsync(50);
    lab.worker(2).plane.emit({ ...overload, phase: 'ended' });
    await turn();
    assert.deepEqual(
      lab.events.map((event) => (event.type === 'overload' ? event.phase : event.type)),
      ['started', 'worker-lost', 'ended'],
    );
  });
});

describe('WorkerSupervisor replaces a dead worker', () => {
  test('the loss is told with evidence and flows, and the replacement starts with the newest state', async () => {
    const lab = await started();
    await lab.plane.apply(state(2));
    lab.worker(1).plane.live = 17;
    await lab.clock.advanceAsync(1000);
    assert.equal(lab.plane.flowCount(), 17);
    await lab.kill();
    assert.deepEqual(lab.events, [
      {
        type: 'worker-lost',
        atMs: lab.clock.wallMs(),
        worker: 3,
        evidence: 'signal SIGKILL',
        flowsLost: 17,
      },
    ]);
    assert.equal(lab.plane.flowCount(), 0);
    await lab.clock.advanceAsync(49);
    assert.equal(lab.workers.length, 1);
    await lab.clock.advanceAsync(1);
    assert.deepEqual(lab.worker(2).plane.calls, ['start 2']);
  });

  test('workers that die young are replaced after 50 ms, doubling up to 5 s', async () => {
    const lab = await started();
    for (const delayMs of [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
      const before = lab.workers.length;
      await lab.kill();
      await lab.clock.advanceAsync(delayMs - 1);
      assert.equal(lab.workers.length, before, `too early, before ${delayMs} ms`);
      await lab.clock.advanceAsync(1);
      assert.equal(lab.workers.length, before + 1, `not after ${delayMs} ms`);
    }
  });

  test('a worker that lived for half a minute is replaced as fast as the first', async () => {
    const lab = await started();
    for (let i = 0; i < 4; i++) {
      await lab.kill();
      await lab.clock.advanceAsync(5000);
    }
    await lab.clock.advanceAsync(30_000);
    const before = lab.workers.length;
    await lab.kill();
    await lab.clock.advanceAsync(50);
    assert.equal(lab.workers.length, before + 1);
  });

  test('calls in the gap: no flows, apply() waits for the replacement and has its report', async () => {
    const lab = await started();
    await lab.kill();
    assert.deepEqual(await lab.plane.flows({ limit: 5 }), { flows: [] });
    const gap = lab.plane.apply(state(2));
    await lab.clock.advanceAsync(50);
    assert.deepEqual(await gap, { revision: 2, listeners: { tcp: 2, udp: 1 }, failures: [] });
    assert.deepEqual(lab.worker(2).plane.calls, ['start 2']);
  });

  test('apply() under way when the worker dies resolves with the replacement`s report', async () => {
    const lab = await started();
    lab.worker(1).plane.frozen = true;
    const under = lab.plane.apply(state(2));
    await turn();
    // The channel breaks before the exit is known.
    lab.worker(1).hangUp();
    await turn();
    lab.worker(1).exit('exit code 134');
    await turn();
    await lab.clock.advanceAsync(50);
    assert.equal((await under).revision, 2);
  });

  test('apply() while a replacement starts is not lost on it', async () => {
    const lab = await started();
    await lab.kill();
    lab.prepare = ({ plane }) => (plane.frozen = true);
    await lab.clock.advanceAsync(50);
    const during = lab.plane.apply(state(2));
    await turn();
    lab.worker(2).plane.thaw();
    assert.equal((await during).revision, 2);
    assert.ok(lab.worker(2).plane.calls.includes('apply 2'));
  });

  test('a replacement that cannot listen is killed, told of with its reason, and tried again', async () => {
    const lab = await started();
    await lab.kill();
    lab.prepare = ({ plane }) => (plane.startFailure = listenFailed);
    await lab.clock.advanceAsync(50);
    await turn();
    assert.equal(lab.worker(2).kills, 1);
    assert.equal(lab.events.length, 2);
    const [, second] = lab.events;
    assert.ok(second?.type === 'worker-lost');
    assert.match(second.evidence, /Cannot listen on any of 2 ports/);
    const waiting = lab.plane.apply(state(2));
    lab.prepare = () => undefined;
    await lab.clock.advanceAsync(100);
    assert.equal((await waiting).revision, 2);
    assert.equal((await lab.plane.counters()).workersLost, 2);
  });

  test('a replacement that dies while it starts is tried again', async () => {
    const lab = await started();
    await lab.kill();
    lab.prepare = ({ plane }) => (plane.frozen = true);
    await lab.clock.advanceAsync(50);
    lab.prepare = () => undefined;
    await lab.kill();
    await lab.clock.advanceAsync(100);
    assert.equal(lab.workers.length, 3);
    assert.equal((await lab.plane.apply(state(2))).revision, 2);
  });

  test('a replacement that cannot even be launched is tried again', async () => {
    const lab = await started();
    await lab.kill();
    lab.prepare = () => {
      throw new Error('spawn ENOMEM');
    };
    await lab.clock.advanceAsync(50);
    lab.prepare = () => undefined;
    await lab.clock.advanceAsync(100);
    assert.equal((await lab.plane.apply(state(2))).revision, 2);
    const evidence = lab.events.map((event) => (event.type === 'worker-lost' ? event.evidence : ''));
    assert.match(evidence[1] ?? '', /spawn ENOMEM/);
  });
});

describe('WorkerSupervisor with another configuration', () => {
  const other = (revision: number) => {
    const { configuration, ...rest } = aState();
    return { ...rest, configuration: { ...configuration, digest: 'other' }, revision };
  };

  test('a configuration that was refused is not what a replacement starts with', async () => {
    const lab = await started();
    await lab.plane.apply(state(2));
    lab.worker(1).plane.applyFailure = listenFailed;
    await assert.rejects(lab.plane.apply(other(3)), { code: 'LB_LISTEN_FAILED' });
    await lab.kill();
    await lab.clock.advanceAsync(50);
    assert.deepEqual(lab.worker(2).plane.calls, ['start 2']);
  });

  test('in the gap the replacement starts with the old one and is then asked for the new one', async () => {
    const lab = await started();
    await lab.kill();
    const applied = lab.plane.apply(other(2));
    await lab.clock.advanceAsync(50);
    assert.equal((await applied).revision, 2);
    assert.deepEqual(lab.worker(2).plane.calls, ['start 1', 'prepare 2', 'apply 2']);
    await lab.kill();
    await lab.clock.advanceAsync(100);
    assert.deepEqual(lab.worker(3).plane.calls, ['start 2']);
  });

  test('in the gap it may be refused as well', async () => {
    const lab = await started();
    await lab.kill();
    lab.prepare = ({ plane }) => (plane.applyFailure = listenFailed);
    const applied = assert.rejects(lab.plane.apply(other(2)), { code: 'LB_LISTEN_FAILED' });
    await lab.clock.advanceAsync(50);
    await applied;
    await lab.kill();
    await lab.clock.advanceAsync(100);
    assert.deepEqual(lab.worker(3).plane.calls, ['start 1']);
  });

  test('stop() in the gap ends an apply that waits', async () => {
    const lab = await started();
    await lab.kill();
    const waiting = assert.rejects(lab.plane.apply(other(2)), { code: 'LB_WORKER_LOST' });
    await turn();
    await lab.plane.stop(1000);
    await waiting;
    await lab.clock.advanceAsync(60_000, 1000);
    assert.equal(lab.workers.length, 1);
  });
});

describe('WorkerSupervisor with a worker that never answers its start', () => {
  /** What the fixture's rule listens on. */
  const SOCKETS = 2 * 65_535;
  const LIMIT_MS = 60_000 + 2 * SOCKETS;

  test('start() kills it in the end and rejects', async () => {
    const lab = new Lab();
    lab.prepare = ({ plane }) => (plane.frozen = true);
    const start = assert.rejects(lab.plane.start(state(1)), {
      code: 'LB_INTERNAL',
      message: `The data worker did not answer "start" within ${Math.round(LIMIT_MS / 1000)} s`,
    });
    await lab.clock.advanceAsync(LIMIT_MS - 1);
    assert.equal(lab.worker(1).kills, 0);
    await lab.clock.advanceAsync(1);
    await start;
    assert.ok(lab.worker(1).kills > 0);
  });

  test('a replacement is killed, told of with its reason, and replaced', async () => {
    const lab = await started();
    await lab.kill();
    lab.prepare = ({ plane }) => (plane.frozen = true);
    await lab.clock.advanceAsync(50);
    lab.prepare = () => undefined;
    const applied = lab.plane.apply(state(2));
    await lab.clock.advanceAsync(LIMIT_MS);
    await turn();
    assert.equal(lab.worker(2).kills > 0, true);
    const [, second] = lab.events;
    assert.ok(second?.type === 'worker-lost');
    assert.match(second.evidence, /signal SIGKILL: The data worker did not answer "start" within \d+ s/);
    await lab.clock.advanceAsync(100);
    assert.deepEqual(lab.worker(3).plane.calls, ['start 2']);
    assert.equal((await applied).revision, 2);
  });

  test('one that has answered in time is left alone', async () => {
    const lab = await started();
    await lab.clock.advanceAsync(2 * LIMIT_MS, LIMIT_MS / 4);
    assert.equal(lab.worker(1).kills, 0);
  });
});

describe('WorkerSupervisor with a worker that stops answering', () => {
  test('apply() past its deadline has it killed and replaced, with the call in the evidence', async () => {
    const lab = await started();
    lab.worker(1).plane.frozen = true;
    const applied = lab.plane.apply(state(2));
    await turn();
    await lab.clock.advanceAsync(10_000);
    assert.equal(lab.worker(1).kills, 1);
    await lab.clock.advanceAsync(50);
    assert.equal((await applied).revision, 2);
    assert.deepEqual(lab.worker(2).plane.calls, ['start 2']);
    const [lost] = lab.events;
    assert.ok(lost?.type === 'worker-lost');
    assert.match(lost.evidence, /signal SIGKILL: The data worker did not answer "apply" within 10 s/);
  });

  test('counters() past its deadline is answered from the last reading', async () => {
    const lab = await started();
    lab.worker(1).plane.present = countersOf(10);
    assert.equal(await lab.arrivals(), 10);
    lab.worker(1).plane.frozen = true;
    const scrape = lab.arrivals();
    await lab.clock.advanceAsync(10_000);
    assert.equal(await scrape, 10);
    assert.equal(lab.worker(1).kills, 1);
  });
});

describe('WorkerSupervisor.answer()', () => {
  test('answer() comes from the worker, and in the gap there is nobody who must answer', async () => {
    const lab = await started();
    lab.worker(1).plane.frozen = true;
    let answered = false;
    const answer = lab.plane.answer().then(() => (answered = true));
    await turn();
    assert.equal(answered, false);
    lab.worker(1).plane.thaw();
    await answer;
    await lab.kill();
    await lab.plane.answer();
  });
});

describe('WorkerSupervisor counters', () => {
  test('counters() go on from the dead worker`s totals, less what lived and was open in it', async () => {
    const lab = await started();
    lab.worker(1).plane.present = countersOf(10, 4);
    assert.equal(await lab.arrivals(), 10);
    await lab.kill();
    const gap = await lab.plane.counters();
    assert.equal(gap.workersLost, 1);
    assert.equal(gap.traffic[0]?.flowsOpened, 10);
    assert.equal(gap.traffic[0].flowsActive, 0);
    assert.deepEqual(gap.table.tcp, { used: 0, limit: 0 });
    assert.deepEqual(gap.listeners, {});
    assert.deepEqual(gap.eventLoopDelaySeconds, []);
    await lab.clock.advanceAsync(50);
    lab.worker(2).plane.present = countersOf(3, 1);
    const both = await lab.plane.counters();
    assert.equal(both.arrivals[0]?.arrivals, 13);
    assert.equal(both.traffic[0]?.flowsOpened, 13);
    assert.equal(both.traffic[0].flowsActive, 1);
    assert.deepEqual(both.table.tcp, { used: 1, limit: 100 });
    assert.deepEqual(both.listeners, { hub: { open: 5, wanted: 5 } });
  });

  test('counters() add up over any number of deaths', async () => {
    const lab = await started();
    for (let generation = 1; generation <= 5; generation++) {
      lab.worker(generation).plane.present = countersOf(generation);
      await lab.arrivals();
      await lab.kill();
      await lab.clock.advanceAsync(5000);
    }
    assert.equal(await lab.arrivals(), 15);
    assert.equal((await lab.plane.counters()).workersLost, 5);
  });

  test('counters() do not go backwards while a death is only half known', async () => {
    const lab = await started();
    lab.worker(1).plane.present = countersOf(10, 4);
    assert.equal(await lab.arrivals(), 10);
    lab.worker(1).plane.frozen = true;
    const scrape = lab.arrivals();
    await turn();
    lab.worker(1).hangUp();
    assert.equal(await scrape, 10, 'a scrape under way');
    assert.equal(await lab.arrivals(), 10, 'a scrape before the exit is known');
    lab.worker(1).exit('signal SIGKILL');
    await turn();
    assert.equal(await lab.arrivals(), 10, 'a scrape in the gap');
  });

  test('counters() take a dead worker`s late answer neither twice nor for its successor`s', async () => {
    const lab = await started();
    const { plane, ends } = lab.worker(1);
    plane.present = countersOf(10);
    assert.equal(await lab.arrivals(), 10);
    plane.present = countersOf(12);
    plane.frozen = true;
    const scrape = lab.arrivals();
    await turn();
    // The exit is known before the last of the pipe is read.
    lab.worker(1).exit('signal SIGKILL');
    await turn();
    plane.thaw();
    assert.equal(await scrape, 10);
    ends.control.close();
    await lab.clock.advanceAsync(50);
    lab.worker(2).plane.present = countersOf(1);
    assert.equal(await lab.arrivals(), 11);
  });

  test('counters() before the start are all zero', async () => {
    const { plane } = new Lab();
    const { traffic, arrivals, workersLost } = await plane.counters();
    assert.deepEqual({ traffic, arrivals, workersLost }, { traffic: [], arrivals: [], workersLost: 0 });
    assert.deepEqual(await plane.flows({ limit: 1 }), { flows: [] });
    assert.equal(plane.flowCount(), 0);
  });
});

describe('WorkerSupervisor.stop()', () => {
  test('stop() gives the worker`s report once its process is gone, and replaces nobody', async () => {
    const lab = await started();
    assert.deepEqual(await lab.plane.stop(1500), { finished: 3, reset: 1 });
    assert.deepEqual(lab.worker(1).plane.calls, ['start 1', 'stop 1500 lame-duck']);
    assert.equal(lab.worker(1).kills, 0);
    await lab.clock.advanceAsync(60_000, 1000);
    assert.equal(lab.workers.length, 1);
    assert.deepEqual(lab.events, []);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('stop() kills a worker that does not exit within two seconds of its answer', async () => {
    const lab = await started();
    lab.worker(1).lingers = true;
    const stop = lab.plane.stop(1500);
    await turn();
    await lab.clock.advanceAsync(1999);
    assert.equal(lab.worker(1).kills, 0);
    await lab.clock.advanceAsync(1);
    assert.equal(lab.worker(1).kills, 1);
    assert.deepEqual(await stop, { finished: 3, reset: 1 });
  });

  test('stop() kills a worker that does not keep the deadline: it may be frozen', async () => {
    const lab = await started();
    lab.worker(1).plane.live = 6;
    await lab.clock.advanceAsync(1000);
    lab.worker(1).plane.frozen = true;
    const stop = lab.plane.stop(1500);
    await turn();
    await lab.clock.advanceAsync(1500);
    assert.equal(lab.worker(1).kills, 0);
    await lab.clock.advanceAsync(2000);
    assert.equal(lab.worker(1).kills, 1);
    assert.deepEqual(await stop, { finished: 0, reset: 6 });
  });

  test('a second stop() shortens the deadline, and both have the one report', async () => {
    const lab = await started();
    lab.worker(1).plane.frozen = true;
    const first = lab.plane.stop(30_000);
    const second = lab.plane.stop(0);
    await turn();
    assert.deepEqual(lab.worker(1).plane.calls.slice(1), ['stop 30000 lame-duck', 'stop 0 lame-duck']);
    lab.worker(1).plane.thaw();
    assert.deepEqual(await Promise.all([first, second]), [
      { finished: 3, reset: 1 },
      { finished: 3, reset: 1 },
    ]);
    assert.deepEqual(await lab.plane.stop(0), { finished: 3, reset: 1 }, 'nor is a third one lost');
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('a second stop() kills a frozen worker within its own deadline', async () => {
    const lab = await started();
    lab.worker(1).plane.frozen = true;
    const stops = [lab.plane.stop(30_000), lab.plane.stop(0)];
    await lab.clock.advanceAsync(2000);
    await Promise.all(stops);
    assert.equal(lab.worker(1).kills, 1);
  });

  test('stop() of a worker that dies meanwhile counts its flows as reset', async () => {
    const lab = await started();
    lab.worker(1).plane.live = 9;
    await lab.clock.advanceAsync(1000);
    lab.worker(1).plane.frozen = true;
    const stop = lab.plane.stop(30_000);
    await turn();
    await lab.kill();
    assert.deepEqual(await stop, { finished: 0, reset: 9 });
    await lab.clock.advanceAsync(60_000, 1000);
    assert.equal(lab.workers.length, 1);
  });

  test('stop() in the gap starts no replacement and ends applies that wait for one', async () => {
    const lab = await started();
    await lab.kill();
    const waiting = assert.rejects(lab.plane.apply(state(2)), { code: 'LB_WORKER_LOST' });
    assert.deepEqual(await lab.plane.stop(1000), { finished: 0, reset: 0 });
    await waiting;
    await assert.rejects(lab.plane.apply(state(3)), { code: 'LB_WORKER_LOST' });
    await lab.clock.advanceAsync(60_000, 1000);
    assert.equal(lab.workers.length, 1);
  });

  test('stop() while a replacement starts stops it', async () => {
    const lab = await started();
    await lab.kill();
    lab.prepare = ({ plane }) => (plane.frozen = true);
    await lab.clock.advanceAsync(50);
    const stop = lab.plane.stop(1000);
    await turn();
    lab.worker(2).plane.thaw();
    assert.deepEqual(await stop, { finished: 3, reset: 1 });
    await lab.clock.advanceAsync(60_000, 1000);
    assert.equal(lab.workers.length, 2);
  });
});
