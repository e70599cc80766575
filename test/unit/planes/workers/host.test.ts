import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  PlaneHost,
  WORKER_DEADLINES,
  type ControlApi,
  type WorkerApi,
} from '../../../../src/planes/workers/host.js';
import type { WorkerOptions } from '../../../../src/planes/contract.js';
import { expose, remote } from '../../../../src/planes/workers/rpc.js';
import { BalancerError } from '../../../../src/model/errors.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { aState } from '../../selection/fixtures.js';
import { channelPair, turn } from './channel-pair.js';
import { ScriptedPlane } from './scripted-plane.js';

const OPTIONS: WorkerOptions = { flowEvents: true, worker: 2, workers: 4 };
const STOP = [1500, 'lame-duck'] as const;
const state = (revision: number) => ({ ...aState(), revision });

class Lab {
  readonly clock = new FakeClock();
  readonly ends = channelPair();
  readonly inner = new ScriptedPlane();
  readonly created: WorkerOptions[] = [];
  stopped = 0;
  readonly host = new PlaneHost({
    channel: this.ends.worker,
    clock: this.clock,
    createPlane: (options) => {
      this.created.push(options);
      return this.inner;
    },
    onStopped: () => {
      this.stopped++;
    },
  });
  readonly batches: (readonly PlaneEvent[])[] = [];
  /** As of the last pulse. */
  flows = 0;
  readonly overdue: string[] = [];
  readonly remote = remote<WorkerApi>(this.ends.control, WORKER_DEADLINES, {
    clock: this.clock,
    onOverdue: ({ message }) => this.overdue.push(message),
  });

  constructor() {
    expose<ControlApi>(this.ends.control, {
      events: (events) => void this.batches.push(events),
      pulse: ({ flows }) => (this.flows = flows),
      claim: () => assert.fail('one worker alone shares no port'),
      release: () => assert.fail('one worker alone shares no port'),
      lent: () => assert.fail('nothing is lent here'),
    });
  }
}

async function started(): Promise<Lab> {
  const lab = new Lab();
  await lab.remote.start(state(1), OPTIONS, []);
  return lab;
}

const lost: Partial<BalancerError> = {
  name: 'BalancerError',
  code: 'LB_WORKER_LOST',
  source: 'system',
};

describe('WorkerApi over a channel', () => {
  test('every call reaches the plane with its arguments, and its answer comes back', async () => {
    const lab = new Lab();
    const { remote, inner } = lab;
    const report = { listeners: { tcp: 2, udp: 1 }, failures: [] };
    assert.deepEqual(await remote.start(state(1), OPTIONS, []), { revision: 1, ...report });
    assert.deepEqual(lab.created, [OPTIONS]);
    assert.deepEqual(await remote.apply(state(2)), { revision: 2, ...report });
    assert.deepEqual(await remote.flows({ limit: 7 }), { flows: [], next: 9 });
    assert.deepEqual(await remote.counters(), inner.present);
    assert.deepEqual(await remote.stop(...STOP), { finished: 3, reset: 1 });
    assert.deepEqual(inner.calls, ['start 1', 'apply 2', 'flows 7', 'counters', 'stop 1500 lame-duck']);
  });

  test('stop() passes on how UDP is to end', async () => {
    const { remote, inner } = await started();
    await remote.stop(0, 'at-once');
    assert.equal(inner.calls.at(-1), 'stop 0 at-once');
  });

  test('answers find their calls in whatever order they come', async () => {
    const { remote, inner } = await started();
    inner.frozen = true;
    const slow = remote.apply(state(2));
    await turn();
    inner.frozen = false;
    assert.equal((await remote.apply(state(3))).revision, 3);
    inner.thaw();
    assert.equal((await slow).revision, 2);
  });

  test('an error keeps its code, source and message', async () => {
    const lab = new Lab();
    lab.inner.startFailure = new BalancerError('Cannot listen on any of 2 ports', {
      code: 'LB_LISTEN_FAILED',
      source: 'system',
      cause: new Error('not sent'),
    });
    await assert.rejects(lab.remote.start(state(1), OPTIONS, []), (error) => {
      assert.ok(error instanceof BalancerError);
      assert.deepEqual(
        [error.code, error.source, error.message],
        ['LB_LISTEN_FAILED', 'system', 'Cannot listen on any of 2 ports'],
      );
      return true;
    });
  });

  test('an error that is no BalancerError arrives as an internal one', async () => {
    const { remote, inner } = await started();
    inner.applyFailure = new RangeError('Off by one');
    await assert.rejects(remote.apply(state(2)), {
      name: 'BalancerError',
      code: 'LB_INTERNAL',
      source: 'internal',
      message: 'Off by one',
    });
  });

  test('a call before start() is refused by name, and ends nothing', async () => {
    const lab = new Lab();
    await assert.rejects(lab.remote.counters(), { code: 'LB_INTERNAL', message: /"counters"/ });
    await assert.rejects(lab.remote.apply(state(1)), { code: 'LB_INTERNAL', message: /"apply"/ });
    assert.equal((await lab.remote.start(state(1), OPTIONS, [])).revision, 1);
    assert.equal(lab.stopped, 0);
  });

  test('events cross in their batches', async () => {
    const { batches, inner } = await started();
    const batch: PlaneEvent[] = [
      { type: 'passive-failure', atMs: 1, backendId: 'nvas/10.0.0.1', evidence: 'ECONNREFUSED' },
      { type: 'overload', atMs: 2, phase: 'started', reason: 'table-full' },
    ];
    inner.emit(...batch);
    await turn();
    inner.emit(batch[1]!);
    await turn();
    assert.deepEqual(batches, [batch, [batch[1]]]);
  });

  test('a pulse tells four times a second how many flows there are', async () => {
    const lab = await started();
    const { inner, clock } = lab;
    inner.live = 41;
    await clock.advanceAsync(249);
    assert.equal(lab.flows, 0);
    await clock.advanceAsync(1);
    assert.equal(lab.flows, 41);
    inner.live = 5;
    await clock.advanceAsync(250);
    assert.equal(lab.flows, 5);
  });
});

describe('A call that is not answered by its deadline', () => {
  test('rejects as one to a lost worker and is reported, and its late answer is ignored', async () => {
    const { remote, inner, clock, overdue } = await started();
    inner.frozen = true;
    const call = assert.rejects(remote.counters(), lost);
    await clock.advanceAsync(9999);
    assert.deepEqual(overdue, []);
    await clock.advanceAsync(1);
    await call;
    assert.deepEqual(overdue, ['The data worker did not answer "counters" within 10 s']);
    inner.thaw();
    await turn();
    assert.deepEqual(await remote.flows({ limit: 7 }), { flows: [], next: 9 });
  });

  test('has its deadline from its arguments where they say how long it takes', async () => {
    const { remote, inner, clock, overdue } = await started();
    inner.frozen = true;
    const call = assert.rejects(remote.stop(30_000), lost);
    await clock.advanceAsync(31_999);
    assert.deepEqual(overdue, []);
    await clock.advanceAsync(1);
    await call;
    assert.equal(overdue.length, 1);
  });
});

describe('WorkerApi of a lost worker', () => {
  test('calls under way and calls after reject with LB_WORKER_LOST', async () => {
    const { remote, inner, ends } = await started();
    inner.frozen = true;
    const pending = [remote.apply(state(2)), remote.counters(), remote.stop(1000)];
    const outcomes = Promise.all(pending.map((call) => assert.rejects(call, lost)));
    await turn();
    ends.control.close();
    await outcomes;
    const later = [
      remote.start(state(3), OPTIONS, []),
      remote.apply(state(3)),
      remote.flows({ limit: 1 }),
      remote.stop(0),
    ];
    await Promise.all(later.map((call) => assert.rejects(call, lost)));
  });

  test('an answer that nobody waits for is ignored', async () => {
    const { remote, ends } = await started();
    ends.control.receive({ answer: 999, value: 1 });
    ends.control.receive({ answer: 999, error: { message: '', code: 'LB_INTERNAL', source: 'internal' } });
    assert.equal((await remote.apply(state(2))).revision, 2);
  });
});

describe('PlaneHost', () => {
  test('stop() is answered before the process is told to end, once', async () => {
    const lab = await started();
    const stoppedWhenSent: number[] = [];
    const send = lab.ends.worker.send.bind(lab.ends.worker);
    lab.ends.worker.send = (message) => {
      stoppedWhenSent.push(lab.stopped);
      send(message);
    };
    await lab.remote.stop(1000);
    await turn();
    assert.deepEqual(stoppedWhenSent, [0]);
    assert.equal(lab.stopped, 1);
    // The process is then gone, which its channel tells.
    lab.ends.worker.close();
    await turn();
    assert.equal(lab.stopped, 1);
  });

  test('two stops end the process once', async () => {
    const lab = await started();
    lab.inner.frozen = true;
    const stops = [lab.remote.stop(30_000), lab.remote.stop(0)];
    await turn();
    assert.equal(lab.stopped, 0);
    lab.inner.thaw();
    await Promise.all(stops);
    await turn();
    assert.equal(lab.stopped, 1);
  });

  test('a stop that fails ends the process all the same', async () => {
    const lab = await started();
    lab.inner.stopFailure = new Error('No');
    await assert.rejects(lab.remote.stop(0), { message: 'No' });
    await turn();
    assert.equal(lab.stopped, 1);
  });

  test('an orphan lets TCP flows finish within the newest shutdown deadline, ends UDP at once, and ends', async () => {
    const lab = await started();
    const patient = aState({ configuration: { shutdownDeadlineMs: 7000 } });
    await lab.remote.apply({ ...patient, revision: 2 });
    lab.inner.frozen = true;
    lab.ends.worker.close();
    await turn();
    assert.equal(lab.inner.calls.at(-1), 'stop 7000 at-once');
    assert.equal(lab.stopped, 0, 'flows are finishing');
    lab.inner.thaw();
    await turn();
    assert.equal(lab.stopped, 1);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('an orphan that was never started ends at once', async () => {
    const lab = new Lab();
    lab.ends.worker.close();
    await turn();
    assert.equal(lab.stopped, 1);
  });

  test('an orphan whose stop fails ends all the same', async () => {
    const lab = await started();
    lab.inner.stopFailure = new Error('No');
    lab.ends.worker.close();
    await turn();
    assert.equal(lab.stopped, 1);
  });

  test('a control process that dies during a stop leaves an orphan that ends once', async () => {
    const lab = await started();
    lab.inner.frozen = true;
    const stopping = assert.rejects(lab.remote.stop(30_000), lost);
    await turn();
    lab.ends.worker.close();
    lab.ends.control.close();
    await stopping;
    lab.inner.thaw();
    await turn();
    assert.equal(lab.stopped, 1);
  });
});
