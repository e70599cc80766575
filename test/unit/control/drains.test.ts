import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Drains } from '../../../src/control/drains.js';
import { OperatorState } from '../../../src/control/overrides.js';
import type { PlaneCounters } from '../../../src/planes/contract.js';
import type { DrainRequest } from '../../../src/model/forwarding.js';
import { FakeClock } from '../../support/fake-clock.js';
import { aPool } from './settings.js';

const [backend] = aPool(1).backends;
const ID = 'nvas/10.0.0.1';
const MINUTE: DrainRequest = { deadlineMs: 60_000, then: 'reset', spreadMs: 5000 };

class Lab {
  readonly clock = new FakeClock();
  readonly operator = new OperatorState();
  readonly told: string[] = [];
  refreshes = 0;
  tcp = 10;
  udp = 4;
  readonly drains = new Drains({
    clock: this.clock,
    operator: this.operator,
    plane: {
      flows: () => Promise.resolve({ flows: [] }),
      counters: () => Promise.resolve(this.#counters()),
    },
    refresh: () => {
      this.refreshes++;
      return Promise.resolve();
    },
    onEvent: (event) => {
      if (event.type === 'drain-changed') this.told.push(event.phase);
    },
  });

  /** In steps of the watch, so that each look sees its own moment. */
  async pass(ms: number): Promise<void> {
    await this.clock.advanceAsync(ms, 250);
  }

  #counters(): PlaneCounters {
    const row = (protocol: 'tcp' | 'udp', backendId: string, flowsActive: number, lastFlowAtMs: number) => ({
      ...{ rule: 'ha-ports', backendId, protocol, flowsActive, lastFlowAtMs, flowsOpened: 0, flowsEnded: {} },
      ...{ bytesToBackend: 0, packetsToBackend: 0, bytesToClient: 0, packetsToClient: 0 },
      ...{ connectRetries: 0, connectFailures: 0, resets: 0 },
    });
    const traffic = [
      row('tcp', ID, this.tcp, 17),
      row('udp', ID, this.udp, 23),
      row('tcp', 'nvas/x', 99, 99),
    ];
    return { traffic } as unknown as PlaneCounters;
  }
}

describe('Drains', () => {
  test('start() lets no new flows in before it resolves, and counts this backend`s flows only', async () => {
    const lab = new Lab();
    const status = await lab.drains.start('nvas', backend!, MINUTE);
    assert.deepEqual(lab.operator.drainStage(ID), { ending: false });
    assert.equal(lab.refreshes, 1);
    assert.equal(status.phase, 'draining');
    assert.equal(status.flowsAtStart, 14);
    assert.deepEqual(status.flows, { tcp: 10, udp: 4 });
    assert.equal(status.lastNewFlowAtMs, 23);
    assert.equal(status.deadlineAtMs - status.startedAtMs, 60_000);
    assert.deepEqual(lab.told, ['started']);
  });

  test('a drain is finished when the last flow is gone, before its deadline, and keeps the backend out', async () => {
    const lab = new Lab();
    await lab.drains.start('nvas', backend!, MINUTE);
    lab.tcp = 5;
    lab.udp = 0;
    await lab.pass(10_000);
    const status = await lab.drains.status(ID);
    assert.ok(status.predictedFinishAtMs !== undefined && status.predictedFinishAtMs > lab.clock.wallMs());
    lab.tcp = 0;
    await lab.pass(500);
    assert.deepEqual(lab.told, ['started', 'finished']);
    assert.equal((await lab.drains.status(ID)).phase, 'done');
    assert.deepEqual(lab.operator.drainStage(ID), { ending: false });
    await lab.pass(120_000);
    assert.deepEqual(lab.told, ['started', 'finished'], 'no deadline after the end');
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('at the deadline flows that are left are ended over the window', async () => {
    const lab = new Lab();
    await lab.drains.start('nvas', backend!, MINUTE);
    await lab.pass(59_750);
    assert.deepEqual(lab.operator.drainStage(ID), { ending: false });
    await lab.pass(250);
    assert.deepEqual(lab.operator.drainStage(ID), { ending: true, spreadMs: 5000 });
    assert.equal((await lab.drains.status(ID)).phase, 'ending');
    assert.deepEqual(lab.told, ['started', 'deadline']);
    lab.tcp = lab.udp = 0;
    await lab.pass(500);
    assert.deepEqual(lab.told, ['started', 'deadline', 'finished']);
  });

  test('a drain goes on in another process, with the deadline that it had', async () => {
    const old = new Lab();
    await old.drains.start('nvas', backend!, MINUTE);
    await old.pass(40_000);
    const fresh = new Lab();
    fresh.clock.wallOffsetMs += 40_000;
    fresh.operator.restore(old.operator.record());
    const [record] = structuredClone(old.drains.records());
    fresh.drains.resume(record!, backend!);
    assert.equal((await fresh.drains.status(ID)).deadlineAtMs, (await old.drains.status(ID)).deadlineAtMs);
    await fresh.pass(19_750);
    assert.deepEqual(fresh.operator.drainStage(ID), { ending: false });
    await fresh.pass(500);
    assert.deepEqual(fresh.operator.drainStage(ID), { ending: true, spreadMs: 5000 });
    assert.deepEqual(fresh.told, ['deadline']);
  });

  test('then: leave leaves flows alone at the deadline', async () => {
    const lab = new Lab();
    await lab.drains.start('nvas', backend!, { ...MINUTE, then: 'leave' });
    await lab.pass(61_000);
    assert.deepEqual(lab.operator.drainStage(ID), { ending: false });
    assert.equal((await lab.drains.status(ID)).phase, 'done');
    assert.deepEqual(lab.told, ['started', 'deadline']);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('cancel() gives the backend new flows again; what is not drained cannot be cancelled', async () => {
    const lab = new Lab();
    assert.equal(await lab.drains.cancel(ID), false);
    await lab.drains.start('nvas', backend!, MINUTE);
    assert.equal(await lab.drains.cancel(ID), true);
    assert.equal(lab.operator.drainStage(ID), undefined);
    assert.equal(lab.refreshes, 2);
    assert.deepEqual(lab.told, ['started', 'cancelled']);
    assert.equal(lab.drains.size, 0);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('a second start() begins anew with the new wishes', async () => {
    const lab = new Lab();
    await lab.drains.start('nvas', backend!, MINUTE);
    await lab.pass(50_000);
    await lab.drains.start('nvas', backend!, { ...MINUTE, deadlineMs: 20_000 });
    await lab.pass(19_000);
    assert.deepEqual(lab.operator.drainStage(ID), { ending: false });
    await lab.pass(1000);
    assert.deepEqual(lab.operator.drainStage(ID), { ending: true, spreadMs: 5000 });
  });

  test('retain() ends drains of backends that are gone', async () => {
    const lab = new Lab();
    await lab.drains.start('nvas', backend!, MINUTE);
    lab.drains.retain(new Set(['nvas/other']));
    assert.equal(lab.drains.size, 0);
    assert.equal(lab.clock.pendingTimers, 0);
  });
});
