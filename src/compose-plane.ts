import { fileURLToPath } from 'node:url';
import type { DataPlane } from './dataplane/data-plane.js';
import { PlaneHost } from './dataplane/remote/plane-host.js';
import { RemotePortGate } from './dataplane/remote/remote-port-gate.js';
import { SupervisedPlane } from './dataplane/remote/supervised-plane.js';
import { WorkerGroup } from './dataplane/remote/worker-group.js';
import { forkSharingWorker, forkWorker, parentChannel } from './dataplane/remote/worker-launcher.js';
import type { WorkerOptions } from './dataplane/remote/worker-protocol.js';
import { ownAddresses } from './dataplane/userspace/own-addresses.js';
import { tryTcpPort } from './dataplane/userspace/tcp/try-port.js';
import { rendezvousOwner } from './dataplane/userspace/udp-owner.js';
import { UserspacePlane, type UserspacePlaneDeps } from './dataplane/userspace/userspace-plane.js';
import type { Configuration } from './model/configuration.js';
import { systemClock as clock } from './runtime/clock.js';
import { descriptorLimit } from './runtime/descriptor-limit.js';
import { createHasher, type Hash32 } from './selection/hasher.js';

/** The data plane that a configuration asks for: in this process, in one worker, or in several. */
export function createPlane(configuration: Configuration, hash: Hash32): DataPlane {
  const { workers } = configuration;
  const flowEvents = configuration.flowLog !== undefined;
  const script = fileURLToPath(new URL('./worker.js', import.meta.url));
  switch (workers) {
    case 0:
      return createUserspacePlane({ hash, limit: descriptorLimit() }, { flowEvents, worker: 0, workers: 1 });
    case 1:
      return new SupervisedPlane(
        { clock, launch: () => forkWorker(script) },
        { flowEvents, worker: 0, workers },
      );
    default:
      return new WorkerGroup(
        {
          clock,
          launch: () => forkSharingWorker(script),
          tryTcpPort,
          ownerOf: rendezvousOwner(hash, workers),
        },
        { flowEvents, workers },
      );
  }
}

/** The data worker's process: serves the process that forked it, and ends when that says so or is gone. */
export async function serveAsWorker(): Promise<void> {
  // Signals of the terminal reach the whole process group; what to do about them is the control process's decision.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const)
    process.on(signal, () => undefined);
  // Now, for with sockets in this process the question takes seconds: see descriptorLimit.
  const limit = descriptorLimit();
  // The first message may come at any time from now on, and waits for the hasher.
  const channel = parentChannel();
  const hash = await createHasher();
  const tcpGate = new RemotePortGate(channel);
  new PlaneHost({
    channel,
    clock,
    createPlane: (options) =>
      createUserspacePlane({ hash, limit, ...(options.workers > 1 ? { tcpGate } : {}) }, options),
    onStopped: () => {
      if (process.connected) process.disconnect();
    },
  });
}

function createUserspacePlane(
  { limit, ...deps }: Pick<UserspacePlaneDeps, 'hash' | 'tcpGate'> & { readonly limit: number | undefined },
  options: WorkerOptions,
): UserspacePlane {
  return new UserspacePlane({ clock, ownAddresses, descriptorLimit: limit, ...deps }, options);
}
