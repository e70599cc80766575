import { randomInt } from 'node:crypto';

/*
 * Campaigns are tests of thousands of flows, or of every member of a family. `npm test` runs a share of each that still
 * meets every kind of case; `npm run test:long` runs them whole.
 */

/** Whether campaigns run whole. */
const isWhole = process.env['TEST_CAMPAIGN'] === 'whole';

/** What decides which share is run; `TEST_SEED` repeats a run. The runner draws one for all processes, and prints it. */
const seed = Number(process.env['TEST_SEED'] ?? randomInt(1_000_000));

/** How much to do: all of it, or a share. */
export function campaign<T>({ share, whole }: { readonly share: T; readonly whole: T }): T {
  return isWhole ? whole : share;
}

/** All members of a family, or one of each kind, which the seed chooses. */
export function oneOfEachKind<T>(members: readonly T[], kindOf: (member: T) => string): readonly T[] {
  if (isWhole) return members;
  const kinds = new Map<string, T[]>();
  for (const member of members) {
    const kind = kindOf(member);
    kinds.set(kind, [...(kinds.get(kind) ?? []), member]);
  }
  return [...kinds.values()].map((alike) => alike[seed % alike.length]!);
}

/** Whether to run the case with this id: all of them, or one in `parts`, which the seed chooses. */
export function isInShare(id: string, parts: number): boolean {
  if (isWhole) return true;
  const sum = Array.from(id).reduce((hash, char) => (hash * 31 + char.charCodeAt(0)) % 1_000_003, seed);
  return sum % parts === 0;
}
