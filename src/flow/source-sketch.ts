import type { IpAddress } from '../model/address.js';
import { SKETCH_REGISTERS } from '../model/source-sketch.js';
import { mix32 } from './mix32.js';

/** Bits of a hash that choose the register; the others are looked at for zeros. */
const INDEX_BITS = Math.log2(SKETCH_REGISTERS);

/** Fills the registers that estimateSources reads; see model/source-sketch.ts. */
export class SourceSketch {
  /** Each holds the most leading zeros, plus one, among the hashes that chose it; 0: none did. */
  readonly registers = new Uint8Array(SKETCH_REGISTERS);

  /** Adding the same again changes nothing. */
  add(hash32: number): void {
    const index = hash32 >>> (32 - INDEX_BITS);
    // The bit put in behind the hash ends the zeros there.
    const rank = Math.clz32((hash32 << INDEX_BITS) | (1 << (INDEX_BITS - 1))) + 1;
    if (rank > (this.registers[index] ?? 0)) this.registers[index] = rank;
  }
}

/** Of the address alone, without its zone; unsigned 32 bits. Different IPv4 addresses have different hashes. */
export function hashAddress({ bytes }: IpAddress): number {
  let hash = 0;
  for (let index = 0; index < bytes.length; index += 4) {
    const word =
      ((bytes[index] ?? 0) << 24) |
      ((bytes[index + 1] ?? 0) << 16) |
      ((bytes[index + 2] ?? 0) << 8) |
      (bytes[index + 3] ?? 0);
    hash = mix32(hash ^ word ^ 0x9e3779b9);
  }
  return hash;
}
