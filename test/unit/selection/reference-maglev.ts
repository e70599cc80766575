import { referenceXxh32 } from './reference-xxh32.js';

/**
 * Maglev as the paper has it (NSDI 2016, section 3.4): whole permutation lists, pseudocode 1. Takes the names in turn
 * order and gives slot -> name. Slow on purpose: nothing here is shared with the code under test. Weights, which the
 * paper does not have, skip turns by the rule that docs/hash.md states.
 */
export function referenceMaglev(
  names: readonly string[],
  size: number,
  weights: readonly number[] = names.map(() => 1),
): string[] {
  const greatest = Math.max(...weights);
  const turns = names.map(() => 0);
  const permutation = names.map((name) => {
    const bytes = Buffer.from(name, 'utf8');
    const offset = BigInt(referenceXxh32(bytes, 0)) % BigInt(size);
    const skip = (BigInt(referenceXxh32(bytes, 1)) % BigInt(size - 1)) + 1n;
    return Array.from({ length: size }, (_, j) => Number((offset + BigInt(j) * skip) % BigInt(size)));
  });
  const next = names.map(() => 0);
  const entry = new Array<number>(size).fill(-1);
  let n = 0;
  for (let round = 1; ; round++) {
    for (let i = 0; i < names.length; i++) {
      if (!(round * weights[i]! >= turns[i]! * greatest)) continue;
      turns[i]!++;
      let c = permutation[i]![next[i]!]!;
      while (entry[c]! >= 0) {
        next[i]!++;
        c = permutation[i]![next[i]!]!;
      }
      entry[c] = i;
      next[i]!++;
      n++;
      if (n === size) return entry.map((index) => names[index]!);
    }
  }
}
