import assert from 'node:assert/strict';
import test from 'node:test';
import {
  formatAgo,
  formatBitRate,
  formatBytes,
  formatCount,
  formatShare,
  formatSi,
  formatSpan,
  plural,
} from '../../../src/cli/output.js';

test('formatSi() keeps three digits and never shows 1000 of a unit', () => {
  const cases: readonly (readonly [number, string])[] = [
    [0, '0'],
    [0.04, '0'],
    [7.25, '7.3'],
    [999, '999'],
    [999.5, '1.00k'],
    [1234, '1.23k'],
    [9994, '9.99k'],
    [9996, '10.0k'],
    [99_960, '100k'],
    [999_499, '999k'],
    [999_500, '1.00M'],
    [45_600_000, '45.6M'],
    [7.2e15, '7.20P'],
    [7.2e19, '72000P'],
  ];
  for (const [value, expected] of cases) assert.equal(formatSi(value), expected, String(value));
});

test('formatBytes(), formatBitRate(), formatCount(), formatShare() and plural() read well', () => {
  assert.equal(formatBytes(812), '812B');
  assert.equal(formatBytes(1230), '1.23kB');
  assert.equal(formatBitRate(12_300_000), '12.3 Mbit/s');
  assert.equal(formatBitRate(0), '0 bit/s');
  assert.equal(formatCount(65_536), '65,536');
  assert.equal(formatCount(999), '999');
  assert.equal(formatCount(1_234_567), '1,234,567');
  assert.equal(formatShare(0.33333), '33.3 %');
  assert.equal(plural(1, 'flow'), '1 flow');
  assert.equal(plural(2000, 'flow'), '2,000 flows');
});

test('formatSpan() shows the two largest units', () => {
  const cases: readonly (readonly [number, string])[] = [
    [-5, '0s'],
    [0, '0s'],
    [42, '42ms'],
    [999.9, '999ms'],
    [1000, '1s'],
    [59_999, '59s'],
    [192_000, '3m12s'],
    [7_500_000, '2h05m'],
    [356_400_000, '4d03h'],
  ];
  for (const [ms, expected] of cases) assert.equal(formatSpan(ms), expected, String(ms));
  assert.equal(formatAgo(1000, 193_000), '3m12s ago');
  assert.equal(formatAgo(undefined, 0), 'never');
});
