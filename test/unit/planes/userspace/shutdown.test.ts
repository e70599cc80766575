import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Shutdown } from '../../../../src/planes/userspace/plane.js';
import type { StopReport } from '../../../../src/planes/contract.js';
import { A, FlowBench } from '../../flows/flow-fixtures.js';

function shutDownTcp({ manager }: FlowBench): number {
  return manager.traffic.of('ha-ports', A, 'tcp').flowsEnded.shutdown ?? 0;
}

/** The report if it is there by now. */
async function reportOf(promise: Promise<StopReport>): Promise<StopReport | undefined> {
  await new Promise((resolve) => setImmediate(resolve));
  return Promise.race([promise, Promise.resolve(undefined)]);
}

describe('Shutdown', () => {
  test('within() without flows is done at once', async () => {
    const { clock, manager } = new FlowBench();
    const report = new Shutdown(clock, manager).within(30_000);
    assert.deepEqual(await reportOf(report), { finished: 0, reset: 0 });
    assert.equal(clock.pendingTimers, 0);
  });

  test('within() is done soon after the last flow has finished by itself', async () => {
    const bench = new FlowBench();
    const { clock, manager } = bench;
    const [one, other] = [bench.established('tcp'), bench.established('tcp')];
    bench.events();
    const report = new Shutdown(clock, manager).within(30_000);
    await clock.advanceAsync(5000, 50);
    manager.end(one.flow, 'closed', 'gone');
    await clock.advanceAsync(5000, 50);
    assert.equal(await reportOf(report), undefined);
    manager.end(other.flow, 'closed', 'gone');
    await clock.advanceAsync(50, 50);
    assert.deepEqual(await reportOf(report), { finished: 2, reset: 0 });
    bench.events();
    assert.equal(clock.pendingTimers, 0);
    assert.equal(shutDownTcp(bench), 0);
  });

  test('within() resets what is left at the deadline, not before', async () => {
    const bench = new FlowBench();
    const { clock, manager } = bench;
    const flows = [bench.established('tcp'), bench.established('tcp'), bench.established('tcp')];
    const report = new Shutdown(clock, manager).within(1000);
    manager.end(flows[0]!.flow, 'closed', 'gone');
    await clock.advanceAsync(999, 1);
    assert.equal(await reportOf(report), undefined);
    assert.deepEqual(
      flows.map(({ calls }) => calls),
      [['close gone'], [], []],
    );
    await clock.advanceAsync(51, 1);
    assert.deepEqual(await reportOf(report), { finished: 1, reset: 2 });
    assert.deepEqual(
      flows.map(({ calls }) => calls),
      [['close gone'], ['close reset'], ['close reset']],
    );
    assert.equal(shutDownTcp(bench), 2);
    assert.equal(manager.table.size, 0);
    bench.events();
    assert.equal(clock.pendingTimers, 0);
  });

  test('a second within() may shorten the deadline, not extend it, and has the one report', async () => {
    const bench = new FlowBench();
    bench.established('tcp');
    const shutdown = new Shutdown(bench.clock, bench.manager);
    const first = shutdown.within(30_000);
    await bench.clock.advanceAsync(1000, 50);
    const longer = shutdown.within(60_000);
    assert.equal(await reportOf(first), undefined);
    const shorter = shutdown.within(0);
    assert.deepEqual(await reportOf(first), { finished: 0, reset: 1 });
    assert.deepEqual(await Promise.all([longer, shorter]), [await first, await first]);
    bench.events();
    assert.equal(bench.clock.pendingTimers, 0);

    const other = new FlowBench();
    other.established('tcp');
    const again = new Shutdown(other.clock, other.manager);
    const report = again.within(1000);
    void again.within(60_000);
    await other.clock.advanceAsync(1100, 50);
    assert.deepEqual(await reportOf(report), { finished: 0, reset: 1 });
  });

  test('a UDP flow is taken for finished after a second of silence, however long the deadline', async () => {
    const bench = new FlowBench();
    const { clock } = bench;
    const [chatty, quiet] = [bench.established('udp'), bench.established('udp')];
    const report = new Shutdown(clock, bench.manager).within(30_000);
    for (let elapsedMs = 0; elapsedMs < 2000; elapsedMs += 50) {
      chatty.flow.lastActivityMs = clock.monotonicMs();
      if (elapsedMs < 1000) assert.deepEqual(quiet.calls, [], `after ${elapsedMs} ms`);
      await clock.advanceAsync(50);
    }
    assert.deepEqual([quiet.calls, chatty.calls], [['close close'], []]);
    await clock.advanceAsync(1000, 50);
    assert.deepEqual(await reportOf(report), { finished: 2, reset: 0 });
  });

  test('silence is for UDP only: an idle TCP flow stays', async () => {
    const bench = new FlowBench();
    const { calls } = bench.established('tcp');
    const report = new Shutdown(bench.clock, bench.manager).within(30_000);
    await bench.clock.advanceAsync(29_000, 500);
    assert.equal(await reportOf(report), undefined);
    assert.deepEqual(calls, []);
  });

  test('endUdp() ends all UDP flows now and no TCP flow', async () => {
    const bench = new FlowBench();
    const tcp = bench.established('tcp');
    const udp = [bench.established('udp'), bench.established('udp')];
    const shutdown = new Shutdown(bench.clock, bench.manager);
    shutdown.endUdp();
    assert.deepEqual(
      [tcp, ...udp].map(({ calls }) => calls),
      [[], ['close close'], ['close close']],
    );
    const report = shutdown.within(1000);
    bench.manager.end(tcp.flow, 'closed', 'gone');
    await bench.clock.advanceAsync(50);
    assert.deepEqual(await reportOf(report), { finished: 3, reset: 0 });
  });
});
