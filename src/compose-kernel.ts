import { networkInterfaces } from 'node:os';
import { ForwardingCompiler } from './control/forwarding-compiler.js';
import { InstanceLock } from './dataplane/capture/instance-lock.js';
import { setupText } from './dataplane/capture/setup-text.js';
import { FlowMirror } from './dataplane/kernel/flows/flow-mirror.js';
import { kernelInput } from './dataplane/kernel/kernel-input.js';
import { KernelPlane } from './dataplane/kernel/kernel-plane.js';
import { ownNetworks } from './dataplane/kernel/own-networks.js';
import { setupOf } from './dataplane/kernel/setup/setup-of.js';
import type { Configuration } from './model/configuration.js';
import { Reconciler } from './nft/reconciler.js';
import { systemTools } from './nft/runner.js';
import { systemClock as clock } from './runtime/clock.js';
import { systemFiles as files } from './runtime/files.js';
import type { Logger } from './runtime/logger.js';
import { createHasher, type Hash32 } from './selection/hasher.js';
import { createPicker } from './selection/picker.js';

/** Of a configuration that asks for it. */
export function createKernelPlane(
  { instance, flowLog }: Configuration,
  hash: Hash32,
  logger: Logger,
): KernelPlane {
  const tools = systemTools();
  const mirror = { clock, tools, files, picker: createPicker(hash) };
  return new KernelPlane({
    ...{ clock, tools },
    createKeeper: (onChange) => new Reconciler({ clock, tools, onChange }, { instance, adopts: true }),
    lock: new InstanceLock({ clock }, { instance }),
    flows: new FlowMirror(mirror, { flowEvents: flowLog !== undefined }),
    setupOf: (input) => setupOf(input, { networks: ownNetworks() }),
    interfaces: () =>
      Object.entries(networkInterfaces()).flatMap(([name, entries]) =>
        entries?.some(({ internal }) => internal) === true ? [] : [name],
      ),
    onWarning: (text) => logger.warn({ event: 'kernel-machine' }, text),
  });
}

/** What a start would write where all probes say up, as text. Not `full`: the first elements of each set. */
export async function kernelRuleset(
  configuration: Configuration,
  { full }: { readonly full: boolean },
): Promise<string> {
  const state = new ForwardingCompiler(await createHasher()).compile(configuration, {
    health: () => ({ state: 'up' }),
    adminState: ({ adminState }) => adminState,
    draining: () => false,
  });
  return setupText(setupOf(kernelInput(state), { networks: ownNetworks() }), { full });
}
