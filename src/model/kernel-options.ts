import type { Cidr } from './cidr.js';

/**
 * How packets reach a backend. `nat`: addressed to the backend itself, by conntrack. `floating-l2`: as they are, to the
 * backend's MAC address, from the ingress of an interface. `floating-routed`: as they are, by policy routing.
 * `next-hop`: routed traffic for destinations beyond, through one of the backends.
 */
export type KernelMode = 'nat' | 'floating-l2' | 'floating-routed' | 'next-hop';

/** Options of the kernel data plane. */
export interface KernelOptions {
  /** @default 'nat' */
  readonly mode: KernelMode;
  /** With `nat`: whether answers are routed back through this machine, or come back since it hides the client. @default 'route' */
  readonly returnPath: 'route' | 'masquerade';
  /** Where flows arrive; needed for `floating-l2`. */
  readonly interface?: string;
  /** `pinned`: a flow keeps its backend while it may. `stateless`: the hash alone decides, packet by packet. @default 'pinned' */
  readonly flowState: 'pinned' | 'stateless';
  /** With `next-hop`: only traffic from one of these to another; empty: all routed traffic. */
  readonly spokes: readonly Cidr[];
  /** What a stop leaves: `keep`: forwarding goes on without this process, until it comes back or is flushed. @default 'keep' */
  readonly onStop: 'keep' | 'remove';
  /** Whether sysctls that the mode needs are set. @default false: they are checked */
  readonly manageSysctls: boolean;
}
