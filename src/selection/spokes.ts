import type { IpAddress } from '../model/address.js';
import { cidrContains, type Cidr } from '../model/cidr.js';
import type { FiveTuple } from '../model/five-tuple.js';
import type { KernelOptions } from '../model/kernel-options.js';

/** The index of the spoke that an address is in, or -1. */
export function spokeOf(spokes: readonly Cidr[], address: IpAddress): number {
  return spokes.findIndex((spoke) => cidrContains(spoke, address));
}

/** Whether a configuration takes in such traffic: with spokes, only what goes from one to another. */
export function crossesSpokes(
  kernel: Pick<KernelOptions, 'mode' | 'spokes'> | undefined,
  { source, destination }: FiveTuple,
): boolean {
  if (kernel?.mode !== 'next-hop' || kernel.spokes.length === 0) return true;
  const from = spokeOf(kernel.spokes, source);
  const to = spokeOf(kernel.spokes, destination);
  return from >= 0 && to >= 0 && from !== to;
}
