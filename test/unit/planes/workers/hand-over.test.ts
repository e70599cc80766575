import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ListeningSocket } from '../../../../src/planes/contract.js';
import { aState } from '../../selection/fixtures.js';
import { aUdpFlow, FakeSocket } from '../hand-over-fixtures.js';
import { WorkerLab } from './worker-story.js';

describe('One worker, handing over', () => {
  test('inherit() has the sockets in the worker before it starts, and keeps no copy here', async () => {
    const { plane, launched: workers } = new WorkerLab();
    const sockets = [new FakeSocket('tcp', 80), new FakeSocket('udp', 53)];
    await plane.inherit(sockets);
    assert.deepEqual(
      sockets.map(({ released }) => released),
      [1, 1],
    );
    plane.inheritFlows([aUdpFlow(7)]);
    await plane.start(aState());
    assert.equal(workers.length, 1, 'the worker that has the sockets is the one that starts');
    const { inherited, inheritedFlows } = workers[0]!.plane;
    assert.deepEqual(
      inherited.map(({ protocol, address, port, handle }) => [protocol, address, port, handle]),
      sockets.map(({ protocol, address, port, handle }) => [protocol, address, port, handle]),
    );
    assert.deepEqual(inheritedFlows, [aUdpFlow(7)]);
  });

  test('a worker that is replaced has nothing of the inheritance', async () => {
    const { clock, plane, launched: workers } = new WorkerLab();
    await plane.inherit([new FakeSocket('tcp', 80)]);
    plane.inheritFlows([aUdpFlow(7)]);
    await plane.start(aState());
    workers[0]!.die('exit code 1');
    await clock.advanceAsync(1000, 50);
    assert.equal(workers.length, 2);
    assert.deepEqual([workers[1]!.plane.inherited, workers[1]!.plane.inheritedFlows], [[], []]);
  });

  test('lend(), freezeUdp() and thawUdp() reach the worker; what is lent is let go of there', async () => {
    const { plane, launched: workers } = new WorkerLab();
    await plane.start(aState());
    const inner = workers[0]!.plane;
    const socket = new FakeSocket('tcp', 80);
    inner.lent = [socket];
    inner.frozenFlows = [aUdpFlow(7)];
    const got: ListeningSocket[] = [];
    await plane.lend((one) => got.push(one));
    assert.deepEqual(
      got.map(({ port, handle }) => [port, handle]),
      [[80, socket.handle]],
    );
    assert.equal(socket.released, 1);
    got[0]!.release();
    got[0]!.release();
    assert.equal(socket.handle.closed, 1, 'a copy that came is closed once');
    assert.deepEqual(await plane.freezeUdp(), [aUdpFlow(7)]);
    await plane.thawUdp();
    assert.deepEqual(inner.calls.slice(-3), ['lend', 'freeze', 'thaw']);
  });

  test('freezeUdp() rejects where there is no worker, so that an upgrade fails', async () => {
    await assert.rejects(new WorkerLab().plane.freezeUdp(), { code: 'LB_WORKER_LOST' });
  });
});
