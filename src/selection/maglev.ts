import { isPrime } from '../model/configuration.js';
import { NO_BACKEND } from '../model/forwarding.js';
import type { Hash32 } from './flow-hash.js';

export interface MaglevMember {
  /** Stable identity: decides the member's preference list and its place in turn. */
  readonly id: string;
  /** Whole number, 0 or more; only the proportions matter. 0: left out. */
  readonly weight: number;
}

// Two hash functions of the name, as the paper asks for (h1, h2): one function under two seeds.
const OFFSET_SEED = 0;
const SKIP_SEED = 1;

/**
 * Builds the lookup table of Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
 * Balancer", NSDI 2016, section 3.4, pseudocode 1): slot -> index into `members`. Each member prefers the slots
 * `(offset + j * skip) mod size`, j = 0, 1, ..., and members take turns at claiming their next free one.
 *
 * Turns go by id (UTF-16 order), so the table depends on the set of members and not on their order. Weights, which the
 * paper leaves open, thin out turns as Envoy's `maglev_lb.cc` does, in whole numbers: in round r a member takes its
 * turn if `r * weight >= turns taken * greatest weight`. So after r rounds it has had at least
 * `r * weight / greatest` turns and at most one more; equal weights are unweighted Maglev.
 *
 * Empty (length 0) where no member has weight. Throws RangeError where `size` is not a prime (`skip` would not reach
 * every slot), a weight is not a whole number of at least 0, or there are more than 65,535 members.
 */
export function buildMaglevTable(members: readonly MaglevMember[], size: number, hash: Hash32): Uint16Array {
  if (!isPrime(size)) throw new RangeError(`Cannot build a table of ${size} slots: size must be a prime`);
  if (members.length > NO_BACKEND) {
    throw new RangeError(`Cannot build a table for ${members.length} members: must be ${NO_BACKEND} at most`);
  }
  const turns = turnOrder(members);
  const count = turns.length;
  if (count === 0) return new Uint16Array(0);

  const encoder = new TextEncoder();
  const position = new Uint32Array(count);
  const skip = new Uint32Array(count);
  const weight = new Float64Array(count);
  const due = new Float64Array(count);
  let greatest = 0;
  for (let turn = 0; turn < count; turn++) {
    const member = members[turns[turn]!]!;
    const name = encoder.encode(member.id);
    position[turn] = hash(name, OFFSET_SEED) % size;
    skip[turn] = 1 + (hash(name, SKIP_SEED) % (size - 1));
    weight[turn] = member.weight;
    greatest = Math.max(greatest, member.weight);
  }

  // Every index below is under `count` or, for slots, under `size`: the arrays' own lengths.
  const table = new Uint16Array(size).fill(NO_BACKEND);
  let free = size;
  for (let round = 1; ; round++) {
    for (let turn = 0; turn < count; turn++) {
      if (round * weight[turn]! < due[turn]!) continue;
      due[turn]! += greatest;
      const step = skip[turn]!;
      let slot = position[turn]!;
      while (table[slot] !== NO_BACKEND) {
        slot += step;
        if (slot >= size) slot -= size;
      }
      table[slot] = turns[turn]!;
      position[turn] = slot;
      if (--free === 0) return table;
    }
  }
}

/** Indexes of the members that have weight, by id. */
function turnOrder(members: readonly MaglevMember[]): number[] {
  const order: number[] = [];
  for (const [index, { id, weight }] of members.entries()) {
    if (!Number.isSafeInteger(weight) || weight < 0) {
      throw new RangeError(`Weight ${weight} of "${id}" must be a whole number of at least 0`);
    }
    if (weight > 0) order.push(index);
  }
  return order.sort((a, b) => {
    const first = members[a]!.id;
    const second = members[b]!.id;
    return first < second ? -1 : first > second ? 1 : 0;
  });
}
