import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Drains } from '../../../src/control/drains.js';
import { Overrides } from '../../../src/control/overrides.js';
import type { PlaneCounters } from '../../../src/planes/contract.js';
import type { DrainRequest } from '../../../src/model/forwarding.js';
import { FakeClock } from '../../support/fake-clock.js';
import { aPool } from './settings.js';

const [backend] = aPool(1).backends;
const ID = 'nvas/10.0.0.1';
const MINUTE: DrainRequest = { deadlineMs: 60_000, then: 'reset', spreadMs: 5000 };

class Lab {
  readonly clock = new FakeClock();
  readonly overrides = new Overrides();
  readonly told: string[] = [];
  refreshes = 0;
  tcp = 10;
  udp = 4;
  readonly drains = new Drains({
    clock: this.clock,
    overrides: this.overrides,
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
    assert.deepEqual(lab.overrides.of(ID).drain, { ending: false });
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
    assert.deepEqual(lab.overrides.of(ID).drain, { ending: false });
    await lab.pass(120_000);
    assert.deepEqual(lab.told, ['started', 'finished'], 'no deadline after the end');
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('a drain goes on in another process, with the deadline that it had', async () => {
    const old = new Lab();
    await old.drains.start('nvas', backend!, MINUTE);
    await old.pass(40_000);
    const fresh = new Lab();
    fresh.clock.wallOffsetMs += 40_000;
    fresh.overrides.restore(old.overrides.record());
    const [record] = structuredClone(old.drains.records());
    fresh.drains.resume(record!, backend!);
    assert.equal((await fresh.drains.status(ID)).deadlineAtMs, (await old.drains.status(ID)).deadlineAtMs);
    await fresh.pass(19_750);
    assert.deepEqual(fresh.overrides.of(ID).drain, { ending: false });
    await fresh.pass(500);
    assert.deepEqual(fresh.overrides.of(ID).drain, { ending: true, spreadMs: 5000 });
    assert.deepEqual(fresh.told, ['deadline']);
  });
});
