/**
 * Whether a flow is in a sample of the given share (0 to 1). Depends on the id alone, so that a flow's start, moves
 * and end are all logged or none is, also across restarts of the log. Consecutive ids spread evenly.
 */
export function isSampled(flowId: number, share: number): boolean {
  if (share >= 1) return true;
  return mix32((flowId >>> 0) ^ mix32(Math.floor(flowId / 2 ** 32))) / 2 ** 32 < share;
}

/** The finaliser of MurmurHash3 (Austin Appleby, public domain): every input bit sways every output bit. */
function mix32(value: number): number {
  let hash = value >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
