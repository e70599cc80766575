import type { Cidr } from '../../../model/cidr.js';
import type { KernelSetup } from '../../../nft/kernel-setup.js';
import type { KernelInput } from '../kernel-input.js';
import { floatingSetup } from './floating-setup.js';
import { natSetup } from './nat-setup.js';
import { nextHopSetup } from './next-hop-setup.js';

/** What a setup depends on besides its input. */
export interface Surroundings {
  /** Networks of this machine's own links. */
  readonly networks: readonly Cidr[];
}

/** What the kernel needs for the mode that is configured. */
export function setupOf(input: KernelInput, { networks }: Surroundings): KernelSetup {
  switch (input.options.mode) {
    case 'nat':
      return natSetup(input, { networks });
    case 'floating-l2':
    case 'floating-routed':
      return floatingSetup(input);
    case 'next-hop':
      return nextHopSetup(input);
  }
}
