import type { DataPlane } from '../../src/planes/contract.js';
import { ConntrackFlows } from '../../src/planes/kernel/nat/kernel-flows.js';
import { KernelPlane } from '../../src/planes/kernel/plane.js';
import { systemTools } from '../../src/planes/netfilter/tools.js';
import { systemClock as clock } from '../../src/runtime/clock.js';
import { systemFiles as files } from '../../src/runtime/files.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { Picker } from '../../src/selection/picker.js';
import { loopbackBlock } from '../support/loopback.js';
import { conformanceSuite } from './data-plane-suite.js';

/* Run by kernel.test.ts in a network namespace of its own: what is done to its kernel nobody else notices. */

async function createKernelPlane(): Promise<DataPlane> {
  const tools = systemTools();
  const picker = new Picker(await createHasher());
  return new KernelPlane(
    {
      ...{ clock, tools },
      lock: { take: () => Promise.resolve(), release: () => undefined },
      flows: new ConntrackFlows({ clock, tools, files, picker }, { flowEvents: true }),
      networks: () => [],
      interfaces: () => [],
      onWarning: () => undefined,
    },
    { instance: 'haports' },
  );
}

conformanceSuite('the kernel plane', {
  host: loopbackBlock(4),
  createPlane: createKernelPlane,
  dataPlane: { kind: 'kernel', kernel: { mode: 'nat' } },
  lacks: {
    'prompt-resets': 'the kernel answers packets, and sends none by itself',
    sockets: 'packets are sent on before any socket sees them, so a port cannot be taken',
    'local-wildcard': 'services that this machine offers to itself on all its addresses stay its own',
    'prompt-counts': 'they are in the kernel, and read at most once a second',
    'udp-moves':
      'conntrack cannot change where a flow goes: it forgets it, and the next datagram is the first of another',
  },
});
