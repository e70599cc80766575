const OFFSET_BASIS = 0x811c9dc5;
const PRIME = 0x01000193;

/**
 * FNV-1a, 32 bits (draft-eastlake-fnv): an unsigned number. For what must follow from a name or address
 * and be spread a little; flows are hashed by others.
 */
export function fnv1a(bytes: Iterable<number>): number {
  let hash = OFFSET_BASIS;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, PRIME);
  return hash >>> 0;
}
