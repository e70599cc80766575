// XXH32 written from the specification (Cyan4973/xxHash, doc/xxhash_spec.md), as an oracle for the WebAssembly one.
const PRIME_1 = 0x9e3779b1;
const PRIME_2 = 0x85ebca77;
const PRIME_3 = 0xc2b2ae3d;
const PRIME_4 = 0x27d4eb2f;
const PRIME_5 = 0x165667b1;

const rotate = (value: number, by: number): number => (value << by) | (value >>> (32 - by));

export function referenceXxh32(bytes: Uint8Array, seed: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  let sum = (seed + PRIME_5) | 0;
  if (bytes.length >= 16) {
    const lanes = [seed + PRIME_1 + PRIME_2, seed + PRIME_2, seed, seed - PRIME_1].map((lane) => lane | 0);
    for (; offset + 16 <= bytes.length; offset += 16) {
      for (let lane = 0; lane < 4; lane++) {
        const input = view.getUint32(offset + 4 * lane, true);
        const mixed = rotate((lanes[lane]! + Math.imul(input, PRIME_2)) | 0, 13);
        lanes[lane] = Math.imul(mixed, PRIME_1);
      }
    }
    sum = rotate(lanes[0]!, 1) + rotate(lanes[1]!, 7) + rotate(lanes[2]!, 12) + rotate(lanes[3]!, 18);
  }
  sum = (sum + bytes.length) | 0;
  for (; offset + 4 <= bytes.length; offset += 4) {
    const input = view.getUint32(offset, true);
    sum = Math.imul(rotate((sum + Math.imul(input, PRIME_3)) | 0, 17), PRIME_4);
  }
  for (; offset < bytes.length; offset++) {
    sum = Math.imul(rotate((sum + Math.imul(bytes[offset]!, PRIME_5)) | 0, 11), PRIME_1);
  }
  sum = Math.imul(sum ^ (sum >>> 15), PRIME_2);
  sum = Math.imul(sum ^ (sum >>> 13), PRIME_3);
  return (sum ^ (sum >>> 16)) >>> 0;
}
