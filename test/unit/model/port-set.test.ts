import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  ALL_PORTS,
  formatPortSet,
  intersectPorts,
  parsePortSet,
  portSetContains,
  portSetOf,
  portSetSize,
  portSetsMeet,
  portsOf,
  subtractPorts,
  unionPorts,
  type PortSet,
} from '../../../src/model/ports.js';

/** Small ports make meetings likely; the ends of the range are where mistakes hide. */
const port = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 65530, max: 65535 }));
const portSet = fc
  .array(fc.tuple(port, port), { maxLength: 8 })
  .map((pairs) => pairs.map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const))
  // Ranges across the gap would be slow to list and add nothing.
  .map((pairs) => pairs.filter(([first, last]) => last - first < 100))
  .map((pairs) => ({
    set: parsePortSet(pairs.map(([first, last]) => `${first}-${last}`).join(',')) ?? [],
    members: new Set(
      pairs.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i)),
    ),
  }));

const listed = (set: PortSet): number[] => [...portsOf(set)];
const sorted = (members: Iterable<number>): number[] => [...members].sort((a, b) => a - b);

/** Sorted, disjoint and with gaps between: the one form a set has. */
function assertNormal(set: PortSet): void {
  for (const [index, { first, last }] of set.entries()) {
    assert.ok(first >= 1 && first <= last && last <= 65535);
    const previous = set[index - 1];
    if (previous !== undefined) assert.ok(previous.last + 1 < first);
  }
}

describe('port set', () => {
  const parsed: readonly (readonly [string, string])[] = [
    ['443', '443'],
    ['8000-8099', '8000-8099'],
    ['22, 80 ,8000 - 8099', '22,80,8000-8099'],
    ['80,80', '80'],
    ['80,81,79', '79-81'],
    ['1-10,5-20', '1-20'],
    ['1-65535', '1-65535'],
    ['9-9', '9'],
  ];
  for (const [text, expected] of parsed) {
    it(`parsePortSet() writes "${text}" as "${expected}"`, () => {
      const set = parsePortSet(text);
      assert.ok(set !== undefined);
      assert.equal(formatPortSet(set), expected);
    });
  }

  for (const text of [
    ...['', ',', '80,', '0', '65536', '0-1', '9-8', '-5', '5-', '1-2-3'],
    ...['a', '8 0', '+80', '80.0', '1e3', '٣'],
  ]) {
    it(`parsePortSet() refuses ${JSON.stringify(text)}`, () => assert.equal(parsePortSet(text), undefined));
  }

  it('every operation agrees with the same on sets of numbers', () => {
    fc.assert(
      fc.property(portSet, portSet, (a, b) => {
        const both = sorted(a.members).filter((each) => b.members.has(each));
        const cases: readonly (readonly [PortSet, number[]])[] = [
          [a.set, sorted(a.members)],
          [unionPorts(a.set, b.set), sorted(new Set([...a.members, ...b.members]))],
          [subtractPorts(a.set, b.set), sorted(a.members).filter((each) => !b.members.has(each))],
          [intersectPorts(a.set, b.set), both],
          [portSetOf(...a.members), sorted(a.members)],
        ];
        for (const [set, members] of cases) {
          assertNormal(set);
          assert.deepEqual(listed(set), members);
          assert.equal(portSetSize(set), members.length);
        }
        assert.equal(portSetsMeet(a.set, b.set), both.length > 0);
        for (let each = 1; each <= 41; each++)
          assert.equal(portSetContains(a.set, each), a.members.has(each));
      }),
    );
  });

  it('formatPortSet() and parsePortSet() undo each other', () => {
    fc.assert(
      fc.property(portSet, ({ set }) => {
        if (set.length > 0) assert.deepEqual(parsePortSet(formatPortSet(set)), set);
      }),
    );
  });

  it('ALL_PORTS holds 65,535 ports, port 0 not among them', () => {
    assert.equal(portSetSize(ALL_PORTS), 65535);
    assert.equal(portSetContains(ALL_PORTS, 0), false);
    assert.deepEqual(subtractPorts(ALL_PORTS, ALL_PORTS), []);
  });
});
