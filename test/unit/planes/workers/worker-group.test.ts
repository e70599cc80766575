import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { FlowRecord } from '../../../../src/model/flow.js';
import { WorkerGroup } from '../../../../src/planes/workers/group.js';
import { BalancerError } from '../../../../src/model/errors.js';
import type { PlaneEvent } from '../../../../src/model/events.js';
import type { FlowPage, ListenFailure } from '../../../../src/planes/contract.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { aState } from '../../selection/fixtures.js';
import { turn } from './channel-pair.js';
import { FakeWorker } from './fake-worker.js';
import { countersOf } from './scripted-plane.js';

const state = (revision: number) => ({ ...aState(), revision });
const failureOn = (port: number): ListenFailure => ({
  rule: 'ha-ports',
  protocol: 'udp',
  address: '127.0.0.1',
  port,
  errorCode: 'EADDRINUSE',
});

class Lab {
  readonly clock = new FakeClock();
  /** In the order of their launch: first one a worker, then replacements. */
  readonly launched: FakeWorker[] = [];
  readonly events: PlaneEvent[] = [];
  prepare: (worker: FakeWorker, index: number) => void = () => undefined;
  readonly group: WorkerGroup;

  constructor(workers: number) {
    this.group = new WorkerGroup(
      {
        clock: this.clock,
        ownerOf: (_address, port) => port % workers,
        tryTcpPort: () => Promise.resolve(undefined),
        launch: () => {
          const worker = new FakeWorker(this.clock);
          this.prepare(worker, this.launched.length);
          this.launched.push(worker);
          return worker;
        },
      },
      { workers, flowEvents: false },
    );
    this.group.subscribe((events) => this.events.push(...events));
  }

  worker(index: number): FakeWorker {
    const worker = this.launched[index];
    assert.ok(worker !== undefined, `Only ${this.launched.length} workers were launched`);
    return worker;
  }

  calls(): readonly (readonly string[])[] {
    return this.launched.map(({ plane }) => plane.calls);
  }
}

async function started(workers = 2): Promise<Lab> {
  const lab = new Lab(workers);
  await lab.group.start(state(1));
  return lab;
}

void describe('WorkerGroup', () => {
  test('start() starts every worker and adds up what they listen on and what they cannot', async () => {
    const lab = new Lab(3);
    lab.prepare = ({ plane }, index) => (plane.listening = index === 1 ? { failures: [failureOn(53)] } : {});
    assert.deepEqual(await lab.group.start(state(1)), {
      revision: 1,
      listeners: { tcp: 6, udp: 3 },
      failures: [failureOn(53)],
    });
    assert.deepEqual(lab.calls(), [['start 1'], ['start 1'], ['start 1']]);
  });

  test('start() fails if no worker can listen on anything, and one that can is enough', async () => {
    const deaf = { listeners: { tcp: 0, udp: 0 }, failures: [failureOn(53)] };
    const lab = new Lab(2);
    lab.prepare = ({ plane }) => (plane.listening = deaf);
    await assert.rejects(lab.group.start(state(1)), { code: 'LB_LISTEN_FAILED', message: /any of 2 ports/ });
    assert.ok(lab.calls().every((calls) => calls.at(-1)?.startsWith('stop 0')));
    const half = new Lab(2);
    half.prepare = ({ plane }, index) => (plane.listening = index === 0 ? deaf : {});
    assert.deepEqual((await half.group.start(state(1))).listeners, { tcp: 2, udp: 1 });
  });

  test('start() fails and stops the others if a worker dies meanwhile', async () => {
    const lab = new Lab(2);
    lab.prepare = ({ plane }, index) => (plane.frozen = index === 1);
    const start = assert.rejects(lab.group.start(state(1)), { code: 'LB_WORKER_LOST' });
    await turn();
    lab.worker(1).die('exit code 1');
    await start;
    assert.equal(lab.worker(0).plane.calls.at(-1), 'stop 0 lame-duck');
  });

  test('apply() does not wait for a worker that is dead, whose replacement starts with it', async () => {
    const lab = await started();
    lab.worker(0).die('signal SIGKILL');
    await turn();
    assert.deepEqual(await lab.group.apply(state(2)), {
      revision: 2,
      listeners: { tcp: 4, udp: 2 },
      failures: [],
    });
    await lab.clock.advanceAsync(100);
    assert.deepEqual(lab.calls(), [['start 1'], ['start 1', 'apply 2'], ['start 2']]);
    assert.deepEqual(
      lab.events.map((event) => event.type === 'worker-lost' && event.worker),
      [0],
    );
  });

  test('apply() waits for the first replacement if every worker is dead', async () => {
    const lab = await started();
    for (const worker of [0, 1]) lab.worker(worker).die('signal SIGKILL');
    await turn();
    let done = false;
    const applied = lab.group.apply(state(2)).then(({ revision }) => {
      done = true;
      return revision;
    });
    await turn();
    assert.equal(done, false);
    await lab.clock.advanceAsync(100);
    assert.equal(await applied, 2);
  });

  const another = (revision: number) => {
    const { configuration, ...rest } = aState();
    return { ...rest, configuration: { ...configuration, digest: 'another' }, revision };
  };
  const listenFailed = new BalancerError('Cannot listen on a port', {
    code: 'LB_LISTEN_FAILED',
    source: 'system',
  });

  test('apply() of another configuration is prepared by all before any takes it over', async () => {
    const lab = await started();
    lab.worker(1).plane.frozen = true;
    const applied = lab.group.apply(another(2));
    await turn();
    assert.deepEqual(lab.calls(), [
      ['start 1', 'prepare 2'],
      ['start 1', 'prepare 2'],
    ]);
    lab.worker(1).plane.thaw();
    assert.equal((await applied).revision, 2);
    assert.deepEqual(lab.calls(), [
      ['start 1', 'prepare 2', 'apply 2'],
      ['start 1', 'prepare 2', 'apply 2'],
    ]);
    await lab.group.apply(another(3));
    assert.equal(lab.worker(0).plane.calls.at(-1), 'apply 3');
    assert.equal(lab.worker(0).plane.calls.length, 4, 'the same configuration needs no preparation');
  });

  for (const phase of ['prepareFailure', 'applyFailure'] as const) {
    test(`apply() that one worker refuses (${phase}) rejects, and all are where they were`, async () => {
      const lab = await started();
      await lab.group.apply(state(2));
      lab.worker(1).plane[phase] = listenFailed;
      const applied = lab.group.apply(another(3));
      const next = lab.group.apply(state(4)).catch(() => undefined);
      await assert.rejects(applied, { code: 'LB_LISTEN_FAILED' });
      await next;
      for (const [worker, calls] of lab.calls().entries()) {
        const back = calls.indexOf('apply 2', calls.indexOf('prepare 3'));
        assert.ok(back > 0, `worker ${worker}: ${calls.join(', ')}`);
        assert.ok(calls.indexOf('apply 4') > back, 'the next apply waits until all are back');
      }
      lab.worker(0).die('signal SIGKILL');
      await turn();
      await lab.clock.advanceAsync(100);
      assert.deepEqual(lab.launched.at(-1)?.plane.calls, ['start 4']);
    });
  }

  test('apply() of another configuration does not wait for a worker that dies meanwhile', async () => {
    const lab = await started();
    lab.worker(1).plane.frozen = true;
    const applied = lab.group.apply(another(2));
    await turn();
    lab.worker(1).die('signal SIGKILL');
    await turn();
    assert.equal((await applied).revision, 2);
    await lab.clock.advanceAsync(100);
    assert.deepEqual(lab.launched.at(-1)?.plane.calls, ['start 2']);
  });

  test('flows() pages through one worker after the other', async () => {
    const lab = await started(3);
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
      const page: FlowPage = await lab.group.flows({ limit: 2, ...(after === undefined ? {} : { after }) });
      ids.push(page.flows.map(({ id }) => id));
      after = page.next;
    } while (after !== undefined && ids.length < 10);
    assert.deepEqual(ids.flat(), [3, 6, 5, 8, 11]);
  });

  test('counters() are those of one plane: sums, the whole limits, and the delay of each worker at its place', async () => {
    const lab = await started(3);
    for (const [index, count] of [5, 7, 11].entries()) lab.worker(index).plane.present = countersOf(count, 2);
    const counters = await lab.group.counters();
    assert.equal(counters.arrivals[0]?.arrivals, 23);
    assert.deepEqual(counters.listeners, { hub: { open: 15, wanted: 15 } });
    const { tcpFlows } = aState().configuration.limits;
    assert.deepEqual(counters.table.tcp, { used: 6, limit: tcpFlows });
    lab.worker(1).die('signal SIGKILL');
    await turn();
    const after = await lab.group.counters();
    assert.equal(after.arrivals[0]?.arrivals, 23, 'a total went backwards');
    assert.equal(after.workersLost, 1);
    assert.deepEqual(after.eventLoopDelaySeconds, [0.001, Number.NaN, 0.001]);
  });

  test('flowCount() is the sum of the last pulses', async () => {
    const lab = await started();
    lab.worker(0).plane.live = 3;
    lab.worker(1).plane.live = 4;
    await lab.clock.advanceAsync(250);
    assert.equal(lab.group.flowCount(), 7);
  });

  test('workers get new shares of the caps with their pulses', async () => {
    const lab = await started();
    const { udpFlows } = aState().configuration.limits;
    lab.worker(0).plane.uses = new Map([['udp', { used: udpFlows / 2, wanting: false }]]);
    lab.worker(1).plane.uses = new Map([['udp', { used: 0, wanting: false }]]);
    for (let pulse = 0; pulse < 4; pulse++) await lab.clock.advanceAsync(250);
    assert.equal(lab.worker(1).plane.shares.get('udp'), udpFlows / 4);
    assert.equal(lab.worker(0).plane.shares.get('udp'), (udpFlows * 3) / 4);
  });

  test('stop() stops all and adds up', async () => {
    const lab = await started(3);
    assert.deepEqual(await lab.group.stop(500), { finished: 9, reset: 3 });
    assert.deepEqual(
      lab.calls().map((calls) => calls.at(-1)),
      Array(3).fill('stop 500 lame-duck'),
    );
  });

  test('answer() comes when every worker has answered', async () => {
    const lab = await started();
    lab.worker(1).plane.frozen = true;
    let answered = false;
    const answer = lab.group.answer().then(() => (answered = true));
    await turn();
    assert.equal(answered, false);
    lab.worker(1).plane.thaw();
    await answer;
  });
});
