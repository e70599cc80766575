/** JHASH_INITVAL of linux/include/linux/jhash.h: an arbitrary number. */
const INITIAL = 0xdeadbeef;

/**
 * The hash of Linux (include/linux/jhash.h, from Bob Jenkins' lookup3.c) as nftables' `jhash` applies it to the registers of
 * a concatenation on a little-endian machine: an unsigned 32-bit integer. The length must be a multiple of 4, as that of
 * registers is.
 */
export function jhash(key: Uint8Array, seed: number): number {
  let length = key.length;
  let offset = 0;
  let a = (INITIAL + length + seed) | 0;
  let b = a;
  let c = a;
  while (length > 12) {
    a = (a + word(key, offset)) | 0;
    b = (b + word(key, offset + 4)) | 0;
    c = (c + word(key, offset + 8)) | 0;
    // __jhash_mix
    a = (a - c) ^ rotate(c, 4);
    c = (c + b) | 0;
    b = (b - a) ^ rotate(a, 6);
    a = (a + c) | 0;
    c = (c - b) ^ rotate(b, 8);
    b = (b + a) | 0;
    a = (a - c) ^ rotate(c, 16);
    c = (c + b) | 0;
    b = (b - a) ^ rotate(a, 19);
    a = (a + c) | 0;
    c = (c - b) ^ rotate(b, 4);
    b = (b + a) | 0;
    length -= 12;
    offset += 12;
  }
  if (length === 0) return c >>> 0;
  a = (a + word(key, offset)) | 0;
  if (length > 4) b = (b + word(key, offset + 4)) | 0;
  if (length > 8) c = (c + word(key, offset + 8)) | 0;
  // __jhash_final
  c = ((c ^ b) - rotate(b, 14)) | 0;
  a = ((a ^ c) - rotate(c, 11)) | 0;
  b = ((b ^ a) - rotate(a, 25)) | 0;
  c = ((c ^ b) - rotate(b, 16)) | 0;
  a = ((a ^ c) - rotate(c, 4)) | 0;
  b = ((b ^ a) - rotate(a, 14)) | 0;
  c = ((c ^ b) - rotate(b, 24)) | 0;
  return c >>> 0;
}

/** The kernel's reciprocal_scale(): 0 to `size` - 1. It is not `hash % size`. */
export function reciprocalScale(hash: number, size: number): number {
  // In two halves: the product of both may have 64 bits, more than a double holds.
  const high = Math.floor(hash / 65536) * size;
  const low = (hash % 65536) * size;
  return Math.floor((high + Math.floor(low / 65536)) / 65536);
}

function word(key: Uint8Array, at: number): number {
  return key[at]! | (key[at + 1]! << 8) | (key[at + 2]! << 16) | (key[at + 3]! << 24);
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}
