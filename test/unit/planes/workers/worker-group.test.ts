import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { FlowRecord } from '../../../../src/model/flow.js';
import type { ListenFailure } from '../../../../src/model/events.js';
import type { FlowPage } from '../../../../src/planes/contract.js';
import { aState } from '../../selection/fixtures.js';
import { turn } from './channel-pair.js';
import { countersOf } from './scripted-plane.js';
import { WorkerLab, stateOf } from './worker-story.js';

const failureOn = (port: number): ListenFailure => ({
  rule: 'ha-ports',
  protocol: 'udp',
  address: '127.0.0.1',
  port,
  errorCode: 'EADDRINUSE',
});

void describe('WorkerGroup', () => {
  test('start() starts every worker and adds up what they listen on and what they cannot', async () => {
    const lab = new WorkerLab(3);
    lab.prepare = ({ plane }, index) => (plane.listening = index === 1 ? { failures: [failureOn(53)] } : {});
    assert.deepEqual(await lab.plane.start(stateOf(1)), {
      revision: 1,
      listeners: { tcp: 6, udp: 3 },
      failures: [failureOn(53)],
    });
    assert.deepEqual(
      lab.launched.map(({ plane }) => plane.calls),
      [['start 1'], ['start 1'], ['start 1']],
    );
  });

  test('start() fails if no worker can listen on anything, and one that can is enough', async () => {
    const deaf = { listeners: { tcp: 0, udp: 0 }, failures: [failureOn(53)] };
    const lab = new WorkerLab(2);
    lab.prepare = ({ plane }) => (plane.listening = deaf);
    await assert.rejects(lab.plane.start(stateOf(1)), {
      code: 'LB_LISTEN_FAILED',
      message: /any of 2 ports/,
    });
    assert.ok(lab.launched.every(({ plane }) => plane.calls.at(-1)?.startsWith('stop 0')));
    const half = new WorkerLab(2);
    half.prepare = ({ plane }, index) => (plane.listening = index === 0 ? deaf : {});
    assert.deepEqual((await half.plane.start(stateOf(1))).listeners, { tcp: 2, udp: 1 });
  });

  test('flows() pages through one worker after the other', async () => {
    const lab = await WorkerLab.started(3);
    const flow = (id: number): FlowRecord => ({ id }) as FlowRecord;
    const pages: readonly (readonly FlowPage[])[] = [
      [{ flows: [flow(3)], next: 1 }, { flows: [flow(6)] }],
      [{ flows: [] }],
      [{ flows: [flow(5)], next: 1 }, { flows: [flow(8), flow(11)] }],
    ];
    for (const [index, own] of pages.entries()) lab.worker(index).plane.pages = own;
    const ids: number[][] = [];
    let after: number | undefined;
    do {
      const page: FlowPage = await lab.plane.flows({ limit: 2, after });
      ids.push(page.flows.map(({ id }) => id));
      after = page.next;
    } while (after !== undefined && ids.length < 10);
    assert.deepEqual(ids.flat(), [3, 6, 5, 8, 11]);
  });

  test('counters() are those of one plane: sums, the whole limits, and the delay of each worker at its place', async () => {
    const lab = await WorkerLab.started(3);
    for (const [index, count] of [5, 7, 11].entries()) lab.worker(index).plane.present = countersOf(count, 2);
    const counters = await lab.plane.counters();
    assert.equal(counters.arrivals[0]?.arrivals, 23);
    assert.deepEqual(counters.listeners, { hub: { open: 15, wanted: 15 } });
    const { tcpFlows } = aState().configuration.limits;
    assert.deepEqual(counters.table.tcp, { used: 6, limit: tcpFlows });
    lab.worker(1).die('signal SIGKILL');
    await turn();
    const after = await lab.plane.counters();
    assert.equal(after.arrivals[0]?.arrivals, 23, 'a total went backwards');
    assert.equal(after.workersLost, 1);
    assert.deepEqual(after.eventLoopDelaySeconds, [0.001, Number.NaN, 0.001]);
  });

  test('flowCount() is the sum of the last pulses', async () => {
    const lab = await WorkerLab.started(2);
    lab.worker(0).plane.live = 3;
    lab.worker(1).plane.live = 4;
    await lab.clock.advanceAsync(250);
    assert.equal(lab.plane.flowCount(), 7);
  });

  test('workers get new shares of the caps with their pulses', async () => {
    const lab = await WorkerLab.started(2);
    const { udpFlows } = aState().configuration.limits;
    lab.worker(0).plane.uses = new Map([['udp', { used: udpFlows / 2, wanting: false }]]);
    lab.worker(1).plane.uses = new Map([['udp', { used: 0, wanting: false }]]);
    for (let pulse = 0; pulse < 4; pulse++) await lab.clock.advanceAsync(250);
    assert.equal(lab.worker(1).plane.shares.get('udp'), udpFlows / 4);
    assert.equal(lab.worker(0).plane.shares.get('udp'), (udpFlows * 3) / 4);
  });

  test('answer() comes when every worker has answered that lives', async () => {
    const lab = await WorkerLab.started(2);
    lab.worker(1).plane.frozen = true;
    let answered = false;
    const answer = lab.plane.answer().then(() => (answered = true));
    await turn();
    assert.equal(answered, false);
    lab.worker(1).plane.thaw();
    await answer;
    await lab.kill(0);
    await lab.kill(1);
    await lab.plane.answer();
  });
});
