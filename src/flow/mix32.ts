/**
 * A hash of a 32-bit number, unsigned: each bit of it sways half of the bits (MurmurHash3, fmix32). Different numbers
 * have different hashes. Not against people who choose the numbers.
 */
export function mix32(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
