import { InstanceLock } from './dataplane/capture/instance-lock.js';
import { NO_FLOWS } from './dataplane/kernel/flow-source.js';
import { KernelPlane } from './dataplane/kernel/kernel-plane.js';
import { ownNetworks } from './dataplane/kernel/own-networks.js';
import { setupOf } from './dataplane/kernel/setup/setup-of.js';
import type { Configuration } from './model/configuration.js';
import { Reconciler } from './nft/reconciler.js';
import { systemTools } from './nft/runner.js';
import { systemClock as clock } from './runtime/clock.js';

/** Of a configuration that asks for it. */
export function createKernelPlane({ instance }: Configuration): KernelPlane {
  const tools = systemTools();
  return new KernelPlane({
    clock,
    createKeeper: (onChange) => new Reconciler({ clock, tools, onChange }, { instance }),
    lock: new InstanceLock({ clock }, { instance }),
    flows: NO_FLOWS,
    setupOf: (input) => setupOf(input, { networks: ownNetworks() }),
  });
}
