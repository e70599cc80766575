import { z } from 'zod';
import { cidrField, tableSizeField, textField } from './fields.js';

/**
 * A change of a table is one transaction, written as text and parsed by nft: about 5,000 slots take 24 ms, and 65,521, the
 * largest prime of 16 bits, 200 ms (measured, nftables 1.0.6).
 */
const MOST_SLOTS = 65_521;

export const kernelSchema = z.strictObject({
  mode: z
    .enum(['nat', 'floating-l2', 'floating-routed', 'next-hop'])
    .describe(
      'How packets reach a backend. nat: addressed to it. floating-l2: as they are, to its MAC address. floating-routed: as ' +
        'they are, by policy routing. next-hop: routed traffic for destinations beyond, through a backend',
    )
    .default('nat'),
  returnPath: z
    .enum(['route', 'masquerade'])
    .describe(
      'With nat, how answers come back. route: backends route them through this machine. masquerade: they are addressed to ' +
        'it, which hides the client',
    )
    .default('route'),
  interface: textField('the name of a network interface', /^[A-Za-z0-9_.-]{1,15}$/)
    .describe('Interface where flows arrive. Needed for floating-l2, by default all of them else')
    .exactOptional(),
  tableSize: tableSizeField(MOST_SLOTS)
    .describe('Slots of a table in the kernel, in place of the tableSize at the top; prime')
    .default(4093),
  flowState: z
    .enum(['pinned', 'stateless'])
    .describe(
      'pinned: a flow keeps its backend while it may. stateless: the hash alone decides, packet by packet; not with nat',
    )
    .default('pinned'),
  spokes: z
    .array(cidrField())
    .describe(
      'With next-hop: only traffic from one of these address blocks to another is balanced; empty: all that is routed',
    )
    .prefault([]),
  manageSysctls: z
    .boolean()
    .describe('Set the sysctls that the mode needs. false: check them and tell')
    .default(false),
  onStop: z
    .enum(['keep', 'remove'])
    .describe('What a stop leaves. keep: forwarding goes on until haports is back, or "haports kernel flush"')
    .default('keep'),
});

export type KernelInput = z.output<typeof kernelSchema>;
