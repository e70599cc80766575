/*
 * Marks that stand for backends, in conntrack and on packets: the upper 16 bits tell the instance, the lower 16 the
 * backend. They follow from names and addresses, so that a process finds the flows of the one before it.
 */

/** FNV-1a, 32 bits (draft-eastlake-fnv). */
const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** Backends that can have a mark: 0 stands for none. */
export const MOST_BACKENDS = 65_535;

/** The bits of a mark that tell the instance. */
export const INSTANCE_MASK = 0xffff0000;

/** Never 0, so that no mark of an instance is 0. */
export function instanceTag(instance: string): number {
  return 1 + (hashOf(instance) % 0xffff);
}

/**
 * By backend id. A number follows from the id, and only where two would have the same from the others too. Throws
 * RangeError above MOST_BACKENDS.
 */
export function backendMarks(instance: string, ids: readonly string[]): ReadonlyMap<string, number> {
  if (ids.length > MOST_BACKENDS) throw new RangeError(`No marks for ${ids.length} backends`);
  const tag = instanceTag(instance) * 0x10000;
  const taken = new Set<number>();
  const marks = new Map<string, number>();
  for (const id of [...ids].sort()) {
    let number = 1 + (hashOf(id) % MOST_BACKENDS);
    while (taken.has(number)) number = (number % MOST_BACKENDS) + 1;
    taken.add(number);
    marks.set(id, tag + number);
  }
  return marks;
}

function hashOf(text: string): number {
  let hash = FNV_OFFSET;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, FNV_PRIME);
  return hash >>> 0;
}
