import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { createHasher } from '../../src/selection/flow-hash.js';
import { buildMaglevTable, type MaglevMember } from '../../src/selection/maglev.js';
import { referenceMaglev } from '../unit/selection/reference-maglev.js';

const hash = await createHasher();
const sizes = fc.constantFrom(2, 3, 7, 13, 101, 251);
const members = (weight: fc.Arbitrary<number>): fc.Arbitrary<MaglevMember[]> =>
  fc.uniqueArray(fc.record({ id: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 }), weight }), {
    minLength: 1,
    maxLength: 12,
    selector: ({ id }) => id,
  });

function ownersOf(list: readonly MaglevMember[], size: number): string[] {
  return Array.from(buildMaglevTable(list, size, hash), (index) => list[index]!.id);
}

test('buildMaglevTable() does not depend on the order of members', () => {
  const shuffled = members(fc.nat(9)).chain((list) =>
    fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length })),
  );
  fc.assert(
    fc.property(shuffled, sizes, ([list, other], size) => {
      assert.deepEqual(ownersOf(list, size), ownersOf(other, size));
    }),
  );
});

test('buildMaglevTable() equals the paper for any names of equal weight', () => {
  fc.assert(
    fc.property(members(fc.constant(3)), sizes, (list, size) => {
      const names = list.map(({ id }) => id).sort();
      assert.deepEqual(ownersOf(list, size), referenceMaglev(names, size));
    }),
  );
});

test('buildMaglevTable() gives weighted turns by the documented rule', () => {
  fc.assert(
    fc.property(members(fc.integer({ min: 1, max: 6 })), sizes, (list, size) => {
      const inTurn = [...list].sort((a, b) => (a.id < b.id ? -1 : 1));
      const expected = referenceMaglev(
        inTurn.map(({ id }) => id),
        size,
        inTurn.map(({ weight }) => weight),
      );
      assert.deepEqual(ownersOf(list, size), expected);
    }),
  );
});

test('buildMaglevTable() fills every slot, with members that have weight, in proportion', () => {
  fc.assert(
    fc.property(members(fc.nat(256)), sizes, (list, size) => {
      const table = buildMaglevTable(list, size, hash);
      const total = list.reduce((sum, { weight }) => sum + weight, 0);
      assert.equal(table.length, total === 0 ? 0 : size);
      for (const [index, { weight }] of list.entries()) {
        const slots = table.filter((owner) => owner === index).length;
        if (weight === 0) assert.equal(slots, 0);
        else assert.ok(Math.abs(slots - (size * weight) / total) <= 2 + (list.length * weight) / total);
      }
    }),
  );
});
