import { fnv1a } from '../../model/fnv1a.js';

/*
 * Marks that stand for backends, in conntrack and on packets: the upper 16 bits tell the instance, the lower 16 the
 * backend. They follow from names and addresses, so that a process finds the flows of the one before it.
 */

/** Backends that can have a mark: 0 stands for none. */
export const MOST_BACKENDS = 65_535;

/** The bits of a mark that tell the instance. */
export const INSTANCE_MASK = 0xffff0000;

/** The marks of an instance without a backend's number. Never 0, so that no mark is 0. */
export function markTag(instance: string): number {
  return (1 + (fnv1a(Buffer.from(instance)) % 0xffff)) * 0x10000;
}

/**
 * By backend id. A number follows from the id, and only where two would have the same from the others too. Throws
 * RangeError above MOST_BACKENDS.
 */
export function backendMarks(instance: string, ids: readonly string[]): ReadonlyMap<string, number> {
  if (ids.length > MOST_BACKENDS) throw new RangeError(`No marks for ${ids.length} backends`);
  const tag = markTag(instance);
  const taken = new Set<number>();
  const marks = new Map<string, number>();
  for (const id of [...ids].sort()) {
    let number = 1 + (fnv1a(Buffer.from(id)) % MOST_BACKENDS);
    while (taken.has(number)) number = (number % MOST_BACKENDS) + 1;
    taken.add(number);
    marks.set(id, tag + number);
  }
  return marks;
}
