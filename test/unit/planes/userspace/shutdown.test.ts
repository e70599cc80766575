import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventQueue } from '../../../../src/flows/event-queue.js';
import { FlowManager } from '../../../../src/flows/flow-manager.js';
import { Shutdown } from '../../../../src/planes/userspace/plane.js';
import type { StopReport } from '../../../../src/planes/contract.js';
import type { CloseStyle, Flow, FlowTransport } from '../../../../src/flows/flow.js';
import type { Protocol } from '../../../../src/model/address.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { testState } from '../../../support/forwarding-state.js';
import { aTuple, placementOn } from '../../flows/flow-fixtures.js';

class Lab {
  readonly clock = new FakeClock();
  readonly manager: FlowManager;
  /** How each flow's sockets were closed, by flow id. */
  readonly closed = new Map<number, CloseStyle>();
  #nextPort = 40_000;

  constructor() {
    const deps = { clock: this.clock, events: new EventQueue(this.clock) };
    const state = testState({ backends: ['127.0.0.11'] });
    this.manager = new FlowManager(deps, { flowEvents: false, worker: 0, workers: 1 }, state);
  }

  open(protocol: Protocol): Flow {
    const transport: FlowTransport = {
      close: (style) => this.closed.set(opened.id, style),
      blackhole: () => undefined,
      unpin: () => undefined,
    };
    const [slot] = this.manager.slotsFor(this.manager.state.configuration);
    const opened = this.manager.open(
      aTuple(protocol, '127.0.0.1', this.#nextPort++),
      slot!,
      transport,
    ) as Flow;
    this.manager.place(opened, placementOn('nvas/127.0.0.11'));
    this.manager.establish(opened);
    return opened;
  }

  ended(reason: 'shutdown' | 'closed', protocol: Protocol): number {
    const found = this.manager.traffic.rows().find((one) => one.protocol === protocol);
    return found?.flowsEnded[reason] ?? 0;
  }
}

/** The report if it is there by now. */
async function reportOf(promise: Promise<StopReport>): Promise<StopReport | undefined> {
  await new Promise((resolve) => setImmediate(resolve));
  return Promise.race([promise, Promise.resolve(undefined)]);
}

describe('Shutdown', () => {
  test('within() without flows is done at once', async () => {
    const { clock, manager } = new Lab();
    const report = new Shutdown(clock, manager).within(30_000);
    assert.deepEqual(await reportOf(report), { finished: 0, reset: 0 });
    assert.equal(clock.pendingTimers, 0);
  });

  test('within() is done soon after the last flow has finished by itself', async () => {
    const lab = new Lab();
    const flows = [lab.open('tcp'), lab.open('tcp')];
    const report = new Shutdown(lab.clock, lab.manager).within(30_000);
    await lab.clock.advanceAsync(5000, 50);
    lab.manager.end(flows[0]!, 'closed', 'gone');
    await lab.clock.advanceAsync(5000, 50);
    assert.equal(await reportOf(report), undefined);
    lab.manager.end(flows[1]!, 'closed', 'gone');
    await lab.clock.advanceAsync(50, 50);
    assert.deepEqual(await reportOf(report), { finished: 2, reset: 0 });
    assert.equal(lab.clock.pendingTimers, 0);
    assert.equal(lab.ended('shutdown', 'tcp'), 0);
  });

  test('within() resets what is left at the deadline, not before', async () => {
    const lab = new Lab();
    const flows = [lab.open('tcp'), lab.open('tcp'), lab.open('tcp')];
    const report = new Shutdown(lab.clock, lab.manager).within(1000);
    lab.manager.end(flows[0]!, 'closed', 'gone');
    await lab.clock.advanceAsync(999, 1);
    assert.equal(await reportOf(report), undefined);
    assert.equal(lab.closed.size, 1);
    await lab.clock.advanceAsync(51, 1);
    assert.deepEqual(await reportOf(report), { finished: 1, reset: 2 });
    assert.deepEqual([...lab.closed.values()], ['gone', 'reset', 'reset']);
    assert.equal(lab.ended('shutdown', 'tcp'), 2);
    assert.equal(lab.manager.table.size, 0);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('a second within() may shorten the deadline, not extend it, and has the one report', async () => {
    const lab = new Lab();
    lab.open('tcp');
    const shutdown = new Shutdown(lab.clock, lab.manager);
    const first = shutdown.within(30_000);
    await lab.clock.advanceAsync(1000, 50);
    const longer = shutdown.within(60_000);
    assert.equal(await reportOf(first), undefined);
    const shorter = shutdown.within(0);
    assert.deepEqual(await reportOf(first), { finished: 0, reset: 1 });
    assert.deepEqual(await Promise.all([longer, shorter]), [await first, await first]);
    assert.equal(lab.clock.pendingTimers, 0);

    const other = new Lab();
    other.open('tcp');
    const again = new Shutdown(other.clock, other.manager);
    const report = again.within(1000);
    void again.within(60_000);
    await other.clock.advanceAsync(1100, 50);
    assert.deepEqual(await reportOf(report), { finished: 0, reset: 1 });
  });

  test('a UDP flow is taken for finished after a second of silence, however long the deadline', async () => {
    const lab = new Lab();
    const chatty = lab.open('udp');
    const quiet = lab.open('udp');
    const report = new Shutdown(lab.clock, lab.manager).within(30_000);
    for (let elapsedMs = 0; elapsedMs < 2000; elapsedMs += 50) {
      chatty.lastActivityMs = lab.clock.monotonicMs();
      if (elapsedMs < 1000) assert.equal(lab.closed.has(quiet.id), false, `after ${elapsedMs} ms`);
      await lab.clock.advanceAsync(50);
    }
    assert.equal(lab.closed.get(quiet.id), 'close');
    assert.equal(lab.closed.has(chatty.id), false);
    await lab.clock.advanceAsync(1000, 50);
    assert.deepEqual(await reportOf(report), { finished: 2, reset: 0 });
  });

  test('silence is for UDP only: an idle TCP flow stays', async () => {
    const lab = new Lab();
    lab.open('tcp');
    const report = new Shutdown(lab.clock, lab.manager).within(30_000);
    await lab.clock.advanceAsync(29_000, 500);
    assert.equal(await reportOf(report), undefined);
    assert.equal(lab.closed.size, 0);
  });

  test('endUdp() ends all UDP flows now and no TCP flow', async () => {
    const lab = new Lab();
    const tcp = lab.open('tcp');
    const udp = [lab.open('udp'), lab.open('udp')];
    const shutdown = new Shutdown(lab.clock, lab.manager);
    shutdown.endUdp();
    assert.deepEqual([...lab.closed.keys()].sort(), udp.map(({ id }) => id).sort());
    const report = shutdown.within(1000);
    lab.manager.end(tcp, 'closed', 'gone');
    await lab.clock.advanceAsync(50);
    assert.deepEqual(await reportOf(report), { finished: 3, reset: 0 });
  });
});
