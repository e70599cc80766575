import { fileURLToPath } from 'node:url';
import { createCapturedPlane } from './compose-capture.js';
import { createKernelPlane } from './compose-kernel.js';
import type { DecidedCapture } from './dataplane/capture/capture-plan.js';
import type { DataPlane } from './dataplane/data-plane.js';
import type { HandOverPlane } from './dataplane/hand-over.js';
import { PlaneHost } from './dataplane/remote/plane-host.js';
import { RemotePortGate } from './dataplane/remote/remote-port-gate.js';
import { SupervisedPlane } from './dataplane/remote/supervised-plane.js';
import { WorkerGroup } from './dataplane/remote/worker-group.js';
import {
  forkSharingWorker,
  forkWorker,
  handedOn,
  parentChannel,
} from './dataplane/remote/worker-launcher.js';
import type { WorkerOptions } from './dataplane/remote/worker-protocol.js';
import { ownAddresses } from './dataplane/userspace/own-addresses.js';
import { socketBudget, type SocketBudget } from './dataplane/userspace/socket-budget.js';
import { tryTcpPort } from './dataplane/userspace/tcp/try-port.js';
import { rendezvousOwner, tcpOwner } from './dataplane/userspace/udp-owner.js';
import { UserspacePlane, type UserspacePlaneDeps } from './dataplane/userspace/userspace-plane.js';
import type { CapturePlan } from './model/capture.js';
import type { Configuration } from './model/configuration.js';
import { ConntrackEvents } from './nft/conntrack-events.js';
import { systemTools } from './nft/runner.js';
import { systemClock as clock } from './runtime/clock.js';
import { descriptorLimit } from './runtime/descriptor-limit.js';
import type { Logger } from './runtime/logger.js';
import { createHasher, type Hash32 } from './selection/hasher.js';

/** What listening takes of the processes, and how workers have TCP ports. To be asked before there are sockets. */
export function budgetFor(configuration: Configuration, capture?: CapturePlan): SocketBudget {
  const { workers, kernel } = configuration;
  if (kernel !== undefined) return { tcpPorts: 'shared', sockets: 0 };
  const limit = descriptorLimit();
  return socketBudget({ configuration, workers, limit, ownAddresses, ...(capture && { capture }) });
}

/**
 * The data plane that a configuration asks for: the kernel, or in this process, in one worker, or in several.
 * `capture`: how ports are captured; absent: they are bound.
 */
export function createPlane(
  configuration: Configuration,
  hash: Hash32,
  {
    tcpPorts,
    capture,
    logger,
  }: Pick<SocketBudget, 'tcpPorts'> & {
    readonly capture?: DecidedCapture | undefined;
    readonly logger: Logger;
  },
): DataPlane {
  if (configuration.kernel !== undefined) return createKernelPlane(configuration, hash, logger);
  const serving = createServingPlane(configuration, hash, { tcpPorts, plan: capture?.plan });
  return capture === undefined ? serving : createCapturedPlane(configuration, serving, capture);
}

function createServingPlane(
  configuration: Configuration,
  hash: Hash32,
  { tcpPorts, plan }: Pick<SocketBudget, 'tcpPorts'> & { readonly plan: CapturePlan | undefined },
): HandOverPlane {
  const { workers } = configuration;
  const flowEvents = configuration.flowLog !== undefined;
  const handed = plan === undefined ? undefined : handedOn(plan);
  const descriptors = handed?.descriptors ?? [];
  const capture = handed === undefined ? {} : { capture: handed.plan };
  const script = fileURLToPath(new URL('./worker.js', import.meta.url));
  switch (workers) {
    case 0:
      return createUserspacePlane(
        { hash, limit: descriptorLimit() },
        {
          ...{ flowEvents, worker: 0, workers: 1 },
          ...(plan === undefined ? {} : { capture: plan }),
        },
      );
    case 1:
      return new SupervisedPlane(
        { clock, launch: () => forkWorker(script, descriptors) },
        { flowEvents, worker: 0, workers, ...capture },
      );
    default: {
      const ownerOf = rendezvousOwner(hash, workers);
      const owned = { launch: () => forkWorker(script, descriptors), tcpOwnerOf: tcpOwner(ownerOf) };
      const shared = { launch: () => forkSharingWorker(script, descriptors) };
      return new WorkerGroup(
        { clock, tryTcpPort, ownerOf, ...(tcpPorts === 'owned' ? owned : shared) },
        { flowEvents, workers, tcpPorts, ...capture },
      );
    }
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
      createUserspacePlane({ hash, limit, ...(sharesTcp(options) ? { tcpGate } : {}) }, options),
    onStopped: () => {
      if (process.connected) process.disconnect();
    },
  });
}

function sharesTcp({ workers, tcpPorts }: WorkerOptions): boolean {
  return workers > 1 && tcpPorts !== 'owned';
}

function createUserspacePlane(
  { limit, ...deps }: Pick<UserspacePlaneDeps, 'hash' | 'tcpGate'> & { readonly limit: number | undefined },
  options: WorkerOptions,
): UserspacePlane {
  const origins = new ConntrackEvents({ clock, tools: systemTools() });
  return new UserspacePlane({ clock, ownAddresses, descriptorLimit: limit, origins, ...deps }, options);
}
