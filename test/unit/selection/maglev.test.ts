import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { buildMaglevTable, type MaglevMember } from '../../../src/selection/maglev.js';
import { referenceMaglev } from './reference-maglev.js';

const hash = await createHasher();
const guide = readFileSync(join(process.cwd(), 'docs/hash.md'), 'utf8');
const SIZE = 65537;
const KERNEL_SIZE = 4093;

function pool(count: number, weightOf: (index: number) => number = () => 1): MaglevMember[] {
  return Array.from({ length: count }, (_, index) => ({
    id: `nvas/10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`,
    weight: weightOf(index),
  }));
}

function tableOf(members: readonly MaglevMember[], size = SIZE): Uint16Array {
  return buildMaglevTable(members, size, hash);
}

/** Slot -> id, so that tables of different member lists can be compared. */
function ownersOf(members: readonly MaglevMember[], size = SIZE): string[] {
  return Array.from(tableOf(members, size), (index) => members[index]!.id);
}

function slotsOf(members: readonly MaglevMember[], size = SIZE): number[] {
  const slots = members.map(() => 0);
  for (const index of tableOf(members, size)) slots[index]!++;
  return slots;
}

/** Slots that changed hands between two members who are there before and after. */
function needlessMoves(before: readonly string[], after: readonly string[], changed: string): number {
  return before.filter((owner, slot) => owner !== changed && after[slot] !== changed && owner !== after[slot])
    .length;
}

const percent = (part: number, whole: number): string => `${((100 * part) / whole).toFixed(2)} %`;

test("buildMaglevTable() equals the paper's pseudocode for equal weights", () => {
  for (const [count, size] of [
    [1, 2],
    [1, 13],
    [3, 13],
    [5, 7],
    [9, 7],
    [10, 251],
    [64, KERNEL_SIZE],
    [7, SIZE],
  ] as const) {
    const members = pool(count);
    const names = members.map(({ id }) => id).sort();
    assert.deepEqual(
      ownersOf(members, size),
      referenceMaglev(names, size),
      `${count} members, ${size} slots`,
    );
  }
});

test('buildMaglevTable() gives the tables printed in docs/hash.md', () => {
  const members = ['127.0.0.11', '127.0.0.12', '127.0.0.13'].map((address) => ({
    id: `nvas/${address}`,
    weight: 1,
  }));
  const printed = /^weights 1 1 1: +([\d ]+)$/m.exec(guide);
  assert.equal(tableOf(members, 13).join(' '), printed?.[1]);
  const weighted = members.map((member, index) => ({ ...member, weight: index + 1 }));
  const alsoPrinted = /^weights 1 2 3: +([\d ]+)$/m.exec(guide);
  assert.equal(tableOf(weighted, 13).join(' '), alsoPrinted?.[1]);
});

test('buildMaglevTable() spreads slots evenly', (t) => {
  const shapes = [3, 10, 100, 1000].map((count) => [count, SIZE] as const);
  for (const [count, size] of [...shapes, [10, KERNEL_SIZE], [100, KERNEL_SIZE]] as const) {
    const slots = slotsOf(pool(count), size);
    const [most, least] = [Math.max(...slots), Math.min(...slots)];
    t.diagnostic(`${count} members, ${size} slots: most ${most}, least ${least}`);
    assert.ok(most - least <= 1, `${count} members: ${least} to ${most}`);
  }
});

function reportDisruption(t: TestContext, size: number, count: number): { remove: number; add: number } {
  const members = pool(count);
  const before = ownersOf(members, size);
  const victims = [0, count >> 1, count - 1].map((index) => members[index]!);
  const remove = Math.max(
    ...victims.map((victim) => {
      const after = ownersOf(
        members.filter((member) => member !== victim),
        size,
      );
      return needlessMoves(before, after, victim.id);
    }),
  );
  const newcomers = ['nvas/10.9.9.9', 'nvas/0.0.0.0', 'nvas/192.0.2.1'];
  const add = Math.max(
    ...newcomers.map((id) => needlessMoves(before, ownersOf([...members, { id, weight: 1 }], size), id)),
  );
  t.diagnostic(
    `${count} members, ${size} slots, worst of 3: remove one moves ${percent(remove, size)} needlessly, ` +
      `add one ${percent(add, size)}`,
  );
  return { remove: remove / size, add: add / size };
}

test('buildMaglevTable() moves few flows of backends that stay when one leaves or joins', (t) => {
  for (const [size, count, bound] of [
    [SIZE, 3, 0.01],
    [SIZE, 10, 0.01],
    [SIZE, 100, 0.02],
    [SIZE, 1000, 0.02],
    [KERNEL_SIZE, 10, 0.06],
    [KERNEL_SIZE, 100, 0.06],
  ] as const) {
    const { remove, add } = reportDisruption(t, size, count);
    assert.ok(remove < bound, `${count} members of ${size}: remove ${remove}`);
    assert.ok(add < bound, `${count} members of ${size}: add ${add}`);
  }
});

test('buildMaglevTable() gives shares in proportion to weights', (t) => {
  const cases: readonly (readonly number[])[] = [
    [1, 2, 3],
    [1, 1, 256],
    [256, 255, 1],
    [7, 0, 3, 0, 90],
    Array.from({ length: 100 }, (_, index) => 1 + ((index * 37) % 256)),
  ];
  for (const weights of cases) {
    const members = pool(weights.length, (index) => weights[index]!);
    const slots = slotsOf(members);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    let worst = 0;
    for (const [index, weight] of weights.entries()) {
      const ideal = (SIZE * weight) / total;
      // Each member may be a turn ahead, and all those turns shorten the race by so many rounds of the heaviest.
      const bound = weight === 0 ? 0 : 2 + (weights.length * weight) / total;
      assert.ok(Math.abs(slots[index]! - ideal) <= bound, `weight ${weight}: ${slots[index]} for ${ideal}`);
      worst = Math.max(worst, Math.abs(slots[index]! - ideal));
    }
    t.diagnostic(
      `${weights.slice(0, 5).join(':')}${weights.length > 5 ? ':...' : ''} off by ${worst.toFixed(1)} slots at most`,
    );
  }
});

test('buildMaglevTable() cares for the proportions of weights only', () => {
  const shape = (scale: number): Uint16Array => tableOf(pool(20, (index) => (1 + (index % 4)) * scale));
  assert.deepEqual(shape(1), shape(17));
  assert.deepEqual(tableOf(pool(20, () => 5)), tableOf(pool(20)));
});

test('buildMaglevTable() moves little when one weight changes', (t) => {
  const before = ownersOf(pool(10, () => 100));
  const after = ownersOf(pool(10, (index) => (index === 4 ? 50 : 100)));
  const changed = before.filter((owner, slot) => owner !== after[slot]).length;
  t.diagnostic(`10 members, one halved: ${percent(changed, SIZE)} of slots changed, 4.74 % had to`);
  assert.ok(changed / SIZE < 0.06);
});

test('buildMaglevTable() leaves members of weight 0 out', () => {
  const members = pool(5, (index) => (index === 2 ? 0 : 1));
  assert.equal(slotsOf(members)[2], 0);
  assert.deepEqual(ownersOf(members), ownersOf(members.filter((_, index) => index !== 2)));
});

test('buildMaglevTable() is empty when no member has weight', () => {
  assert.equal(tableOf([]).length, 0);
  assert.equal(tableOf(pool(3, () => 0)).length, 0);
});

test('buildMaglevTable() refuses what would hang or overflow', () => {
  for (const size of [0, 1, 4, 65536, 4087 * 3, -7, 7.5, NaN]) {
    assert.throws(() => tableOf(pool(2), size), RangeError, String(size));
  }
  for (const weight of [-1, 0.5, NaN, Infinity]) {
    assert.throws(
      () =>
        tableOf(
          pool(2, () => weight),
          7,
        ),
      RangeError,
      String(weight),
    );
  }
  assert.throws(() => tableOf(pool(65536), 7), RangeError);
});

test('buildMaglevTable() builds large tables fast', (t) => {
  const measure = (members: readonly MaglevMember[]): number => {
    const startedMs = performance.now();
    tableOf(members);
    return performance.now() - startedMs;
  };
  const equal = pool(1000);
  const lopsided = pool(1000, (index) => (index === 500 ? 256 : 1));
  const equalMs = Math.min(...[1, 2, 3, 4].map(() => measure(equal)));
  const lopsidedMs = Math.min(...[1, 2, 3, 4].map(() => measure(lopsided)));
  t.diagnostic(`1000 members: ${equalMs.toFixed(1)} ms; one of weight 256: ${lopsidedMs.toFixed(1)} ms`);
  // Loose on purpose: it is to catch a quadratic build, not to be a benchmark.
  assert.ok(equalMs < 1000 && lopsidedMs < 1000);
});
