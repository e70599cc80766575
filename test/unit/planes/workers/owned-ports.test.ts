import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ListeningSocket } from '../../../../src/planes/contract.js';
import { WorkerGroup } from '../../../../src/planes/workers/group.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { aState } from '../../selection/fixtures.js';
import { FakeSocket } from '../hand-over-fixtures.js';
import { FakeWorker } from './fake-worker.js';

/** UDP ports belong to the worker that is their remainder; TCP ports to the other one. */
function ownedGroup(): { readonly group: WorkerGroup; readonly workers: FakeWorker[] } {
  const clock = new FakeClock();
  const workers: FakeWorker[] = [];
  const group = new WorkerGroup(
    {
      clock,
      ownerOf: (_address, port) => port % 2,
      tcpOwnerOf: (_address, port) => 1 - (port % 2),
      tryTcpPort: () => assert.fail('tried a port that one worker has alone'),
      launch: () => {
        const worker = new FakeWorker(clock);
        workers.push(worker);
        return worker;
      },
    },
    { workers: 2, flowEvents: false, tcpPorts: 'owned' },
  );
  return { group, workers };
}

function names(sockets: readonly Pick<ListeningSocket, 'protocol' | 'port'>[]): readonly string[] {
  return sockets.map(({ protocol, port }) => `${protocol} ${port}`).sort();
}

void describe('WorkerGroup whose workers own TCP ports', () => {
  test('inherit() gives each worker its own sockets', async () => {
    const { group, workers } = ownedGroup();
    await group.inherit([
      ...[80, 81].map((port) => new FakeSocket('tcp', port)),
      ...[80, 81].map((port) => new FakeSocket('udp', port)),
    ]);
    await group.start(aState());
    assert.deepEqual(
      workers.map(({ plane }) => names(plane.inherited)),
      [
        ['tcp 81', 'udp 80'],
        ['tcp 80', 'udp 81'],
      ],
    );
  });

  test('lend() gives the TCP sockets of all workers', async () => {
    const { group, workers } = ownedGroup();
    await group.start(aState());
    for (const [index, { plane }] of workers.entries()) {
      plane.lent = [new FakeSocket('tcp', 80 + index), new FakeSocket('udp', 90 + index)];
    }
    const got: ListeningSocket[] = [];
    await group.lend((socket) => got.push(socket));
    assert.deepEqual(names(got), ['tcp 80', 'tcp 81', 'udp 90', 'udp 91']);
  });
});
