/*
 * HyperLogLog (Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog: the analysis of a near-optimal cardinality estimation
 * algorithm", 2007): how many different clients there were, in a kilobyte, whatever their number. Standard error
 * 1.04 / sqrt(1024), about 3 %. Registers are filled by flow/source-sketch.ts.
 */

/** A power of two: the first bits of a hash choose one. */
export const SKETCH_REGISTERS = 1024;

/** Figure 3 of the paper, for 128 registers or more. */
const ALPHA = 0.7213 / (1 + 1.079 / SKETCH_REGISTERS);

const HASHES = 2 ** 32;

/** How many different things were added, about. Few are counted by the registers still empty (linear counting). */
export function estimateSources(registers: Uint8Array): number {
  let sum = 0;
  let empty = 0;
  for (const register of registers) {
    sum += 2 ** -register;
    if (register === 0) empty++;
  }
  const { length } = registers;
  if (length === 0) return 0;
  const estimate = (ALPHA * length * length) / sum;
  if (estimate <= 2.5 * length && empty > 0) return length * Math.log(length / empty);
  // So many that two of them may well have had the same hash.
  return estimate > HASHES / 30 ? -HASHES * Math.log(1 - estimate / HASHES) : estimate;
}

/** The sketch of all that was added to either. Both have the same number of registers. */
export function mergeSketches(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((register, index) => Math.max(register, b[index] ?? 0));
}
