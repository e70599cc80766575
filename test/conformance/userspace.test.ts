import { join } from 'node:path';
import type { DataPlane } from '../../src/planes/contract.js';
import { PlaneHost } from '../../src/planes/workers/host.js';
import { WorkerGroup } from '../../src/planes/workers/group.js';
import { forkSharingWorker } from '../../src/planes/workers/process.js';
import { ownAddresses } from '../../src/planes/userspace/listen-plan.js';
import { tryTcpPort } from '../../src/planes/userspace/sockets/net.js';
import { UserspacePlane } from '../../src/planes/userspace/plane.js';
import { systemClock } from '../../src/runtime/clock.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { loopbackBlock } from '../support/loopback.js';
import { channelPair } from '../unit/planes/workers/channel-pair.js';
import { conformanceSuite } from './data-plane-suite.js';

const OPTIONS = { flowEvents: true, worker: 0, workers: 1 };

async function createUserspacePlane(): Promise<DataPlane> {
  const hash = await createHasher();
  return new UserspacePlane({ clock: systemClock, hash, ownAddresses }, OPTIONS);
}

/** A process boundary without the process. */
async function createRemotePlane(): Promise<DataPlane> {
  const hash = await createHasher();
  const { control, worker } = channelPair();
  const exited = new Promise<string>((resolve) => {
    new PlaneHost({
      channel: worker,
      clock: systemClock,
      createPlane: (options) => new UserspacePlane({ clock: systemClock, hash, ownAddresses }, options),
      onStopped: () => resolve('exit code 0'),
    });
  });
  const launch = () => ({ pid: 1, channel: control, exited, kill: () => undefined });
  const alone = { tryTcpPort, ownerOf: () => 0, tcpOwnerOf: () => 0 };
  return new WorkerGroup({ clock: systemClock, launch, ...alone }, { flowEvents: true, workers: 1 });
}

/** On real processes of the built worker. */
function createWorkerGroup(): Promise<DataPlane> {
  const script = join(process.cwd(), 'dist', 'worker.js');
  const deps = {
    clock: systemClock,
    launch: () => forkSharingWorker(script),
    tryTcpPort,
    ownerOf: (_address: unknown, port: number) => port % 2,
  };
  return Promise.resolve(new WorkerGroup(deps, { flowEvents: true, workers: 2 }));
}

conformanceSuite('the userspace plane', { host: loopbackBlock(1), createPlane: createUserspacePlane });
conformanceSuite('the userspace plane behind a structured-clone channel', {
  host: loopbackBlock(2),
  createPlane: createRemotePlane,
});
conformanceSuite('a group of two workers', { host: loopbackBlock(3), createPlane: createWorkerGroup });
