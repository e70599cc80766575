import type { ConntrackEntry } from '../../../nft/conntrack-entry.js';
import type { EntryFollower } from '../../../nft/conntrack-flows.js';

/** Where the kernel's flows are read from. `ConntrackFlows` is one; a flow map of the floating modes another. */
export interface EntrySource {
  /** Tells of flows that come and go until the returned function is called; absent: they can only be listed. */
  follow?(follower: EntryFollower): () => void;
  /** All there are now, in batches. False: they could not be read. Never rejects. */
  list(onEntries: (entries: readonly ConntrackEntry[]) => void): Promise<boolean>;
}

/** What a flow is known by. Ids have 32 bits: of 100,000 flows two may well have the same. */
export function flowKey({ id, original }: Pick<ConntrackEntry, 'id' | 'original'>): number {
  return id * 0x10000 + original.sourcePort;
}
