import type { Cidr } from '../../model/address.js';
import type { KernelSetup } from '../netfilter/setup.js';
import { floatingSetup } from './ebpf/floating.js';
import { nextHopSetup } from './ebpf/next-hop.js';
import { natSetup } from './nat/rules.js';
import type { KernelInput } from './program.js';

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
