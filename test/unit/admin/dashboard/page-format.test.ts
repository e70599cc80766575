import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as format from '../../../../src/admin/page/format.js';

describe('page/format.js', () => {
  test('bits() and bytes() change the unit before four digits stand there', () => {
    const expected: readonly (readonly [number, string, string])[] = [
      [0, '0 bit/s', '0 B'],
      [999, '999 bit/s', '999 B'],
      [1000, '1.00 kbit/s', '1000 B'],
      [1024, '1.02 kbit/s', '1.00 KiB'],
      [48_200_000, '48.2 Mbit/s', '46.0 MiB'],
      [999_999, '1.00 Mbit/s', '977 KiB'],
      [3.2e9, '3.20 Gbit/s', '2.98 GiB'],
      [5e15, '5000 Tbit/s', '4547 TiB'],
    ];
    for (const [value, bits, bytes] of expected) {
      assert.equal(format.bits(value), bits);
      assert.equal(format.bytes(value), bytes);
    }
  });

  test('duration() shows two units at most', () => {
    const expected: readonly (readonly [number, string])[] = [
      [-5, '0.0 s'],
      [840, '0.8 s'],
      [9_960, '10 s'],
      [59_600, '1 min 00 s'],
      [185_000, '3 min 05 s'],
      [3_600_000, '1 h 00 min'],
      [8_040_000, '2 h 14 min'],
      [273_600_000, '3 d 4 h'],
    ];
    for (const [ms, text] of expected) assert.equal(format.duration(ms), text, String(ms));
  });

  test('what is not known is a dash', () => {
    for (const show of [
      format.count,
      format.perSecond,
      format.bits,
      format.bytes,
      format.percent,
      format.duration,
    ]) {
      assert.equal(show(undefined), '–');
    }
    assert.equal(format.bits(null), '–');
  });

  test('clock() names the day where it is another', () => {
    const noon = new Date(2026, 2, 5, 12, 0, 7).getTime();
    assert.equal(format.clock(noon, noon + 1000), '12:00:07');
    assert.equal(format.clock(noon, noon + 86_400_000), '2026-03-05 12:00:07');
  });

  test('perSecond() has a decimal only where it says something', () => {
    assert.deepEqual([0, 0.42, 9.96, 12.4, 4321].map(format.perSecond), ['0', '0.4', '10.0', '12', '4,321']);
  });

  test('endpoint() puts IPv6 in brackets', () => {
    assert.equal(format.endpoint('::1', 53), '[::1]:53');
    assert.equal(format.endpoint('192.0.2.1', 53), '192.0.2.1:53');
  });
});
