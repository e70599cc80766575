import type { ConntrackEntry } from '../../../nft/conntrack-entry.js';
import type { EntryFollower } from '../../../nft/conntrack-flows.js';

/** An entry of conntrack, or what is made to look like one. */
export interface KernelFlowEntry extends ConntrackEntry {
  /** Since its last packet; absent: to be told from the time that is left. */
  readonly idleMs?: number;
}

/** Where the kernel's flows are read from. */
export interface EntrySource {
  /** Tells of flows that come and go until the returned function is called; absent: they can only be listed. */
  follow?(follower: EntryFollower): () => void;
  /** All there are now, in batches. False: they could not be read. Never rejects. */
  list(onEntries: (entries: readonly KernelFlowEntry[]) => void): Promise<boolean>;
}

/** What a flow is known by. Ids have 32 bits: of 100,000 flows two may well have the same. */
export function flowKey({ id, original }: Pick<ConntrackEntry, 'id' | 'original'>): number {
  return id * 0x10000 + original.sourcePort;
}
