import xxhash from 'xxhash-wasm';

/**
 * XXH32 of raw bytes: an unsigned 32-bit integer. The seed is 0 to 2^32-1. Synchronous, keeps nothing of the bytes,
 * never touches BigInt.
 */
export type Hash32 = (bytes: Uint8Array, seed: number) => number;

/** Loads the WebAssembly module once; call it at start-up and hand the function around. */
export async function createHasher(): Promise<Hash32> {
  const api = await xxhash();
  return (bytes, seed) => api.h32Raw(bytes, seed);
}
