import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { PlaneEvent } from '../../../../src/model/events.js';
import { turn } from './channel-pair.js';
import { countersOf } from './scripted-plane.js';
import { WorkerLab } from './worker-story.js';

describe('One worker', () => {
  test('flows() come from the worker; in the gap there are none', async () => {
    const lab = await WorkerLab.started();
    assert.deepEqual(await lab.plane.flows({ limit: 5 }), { flows: [], next: 9 });
    assert.equal(lab.worker(0).plane.calls.at(-1), 'flows 5');
    lab.worker(0).plane.live = 17;
    await lab.clock.advanceAsync(1000);
    assert.equal(lab.plane.flowCount(), 17);
    await lab.kill(0);
    assert.deepEqual(await lab.plane.flows({ limit: 5 }), { flows: [] });
    assert.equal(lab.plane.flowCount(), 0);
  });

  test('events of each worker in turn reach the subscribers', async () => {
    const lab = await WorkerLab.started();
    const overload: PlaneEvent = { type: 'overload', atMs: 1, phase: 'started', reason: 'table-full' };
    lab.worker(0).plane.emit(overload);
    await turn();
    await lab.kill(0);
    const atMs = lab.clock.wallMs();
    await lab.clock.advanceAsync(50);
    const failure = {
      type: 'passive-failure',
      atMs: 2,
      backendId: 'nvas/10.0.0.1',
      evidence: 'ECONNREFUSED',
    } as const;
    lab.worker(1).plane.emit(failure);
    await turn();
    const lost = { worker: 0, evidence: 'signal SIGKILL', flowsLost: 0 };
    // What is lost is overloaded no more.
    const relieved = { ...overload, atMs, phase: 'ended' };
    assert.deepEqual(lab.events, [overload, { type: 'worker-lost', atMs, ...lost }, relieved, failure]);
  });

  test('counters() continue from the totals of a dead worker, less what lived and was open in it', async () => {
    const lab = await WorkerLab.started();
    lab.worker(0).plane.present = countersOf(10, 4);
    assert.equal(await lab.arrivals(), 10);
    await lab.kill(0);
    const gap = await lab.plane.counters();
    assert.deepEqual([gap.workersLost, gap.traffic[0]?.flowsOpened, gap.traffic[0]?.flowsActive], [1, 10, 0]);
    assert.deepEqual([gap.table.tcp, gap.listeners], [{ used: 0, limit: 100 }, {}]);
    assert.deepEqual(gap.eventLoopDelaySeconds, [Number.NaN]);
    await lab.clock.advanceAsync(50);
    lab.worker(1).plane.present = countersOf(3, 1);
    const both = await lab.plane.counters();
    const { flowsOpened, flowsActive } = both.traffic[0] ?? assert.fail();
    assert.deepEqual([both.arrivals[0]?.arrivals, flowsOpened, flowsActive], [13, 13, 1]);
    assert.deepEqual(
      [both.table.tcp, both.listeners],
      [{ used: 1, limit: 100 }, { hub: { open: 5, wanted: 5 } }],
    );
  });

  test('counters() before the start are all zero', async () => {
    const { plane } = new WorkerLab();
    const { traffic, arrivals, workersLost } = await plane.counters();
    assert.deepEqual({ traffic, arrivals, workersLost }, { traffic: [], arrivals: [], workersLost: 0 });
    assert.deepEqual(await plane.flows({ limit: 1 }), { flows: [] });
    assert.equal(plane.flowCount(), 0);
  });
});
