import assert from 'node:assert/strict';
import test from 'node:test';
import * as words from '../../../src/api/words.js';
import { aPickedExplanation } from '../../support/api-answers.js';

/** What numbers are shown as: three digits and never 1000 of a unit; spans in their two largest units. */
const SHOWN = `
si       0: 0 | 0.04: 0 | 7.25: 7.3 | 999: 999 | 999.5: 1.00k | 1234: 1.23k | 9994: 9.99k | 9996: 10.0k
si       99960: 100k | 999499: 999k | 999500: 1.00M | 45600000: 45.6M | 7.2e15: 7.20P | 7.2e19: 72000P
span     -5: 0s | 0: 0s | 42: 42ms | 999.9: 999ms | 1000: 1s | 59999: 59s | 192000: 3m12s
span     7500000: 2h05m | 356400000: 4d03h
count    999: 999 | 65536: 65,536 | 1234567: 1,234,567
bytes    812: 812B | 1230: 1.23kB
bitRate  12300000: 12.3 Mbit/s | 0: 0 bit/s
share    0.33333: 33.3 %
`;

for (const line of SHOWN.trim().split('\n')) {
  const [name = '', cases = ''] = line.split(/ {2,}/);
  test(`${name}() shows ${cases}`, () => {
    const show = { ...words }[name as 'si' | 'span' | 'count' | 'bytes' | 'bitRate' | 'share'];
    for (const [value = '', text] of cases.split(' | ').map((one) => one.split(': '))) {
      assert.equal(show(Number(value)), text, value);
    }
  });
}

test('plural() counts; ago() is never where there is no time; counts() and listed() leave out what is false', () => {
  assert.equal(words.plural(1, 'flow'), '1 flow');
  assert.equal(words.plural(2000, 'flow'), '2,000 flows');
  assert.equal(words.ago(1000, 193_000), '3m12s ago');
  assert.equal(words.ago(undefined, 0), 'never');
  assert.equal(words.counts({ stay: 1200, move: false, 'are reset': 0 }), '1,200 stay, 0 are reset');
  assert.equal(words.listed([undefined, 'a', false, 'b'], '; '), 'a; b');
});

test('clock() names the day where it is another', () => {
  const noon = new Date(2026, 2, 5, 12, 0, 7).getTime();
  assert.equal(words.clock(noon, noon + 1000), '12:00:07');
  assert.equal(words.clock(noon, noon + 86_400_000), '2026-03-05 12:00:07');
});

test('explanationRows() says which hash found the slot, and which entry denied', () => {
  const picked = aPickedExplanation();
  const slot = (algorithm: 'xxh32' | 'jhash') =>
    words.explanationRows({ ...picked, key: picked.key && { ...picked.key, algorithm } }).hash;
  assert.equal(slot('xxh32').Hash, 'xxh32, seed 0: 0xdeadbeef = 3735928559');
  assert.match(String(slot('xxh32').Slot), /^3735928559 mod 65537 = 31337, owned by nvas\/127\.0\.0\.12/);
  assert.equal(slot('jhash').Hash, 'jhash, seed 0: 0xdeadbeef = 3735928559');
  assert.match(String(slot('jhash').Slot), /^3735928559 \* 65537 \/ 2\^32 = 31337/);
  const access = { admitted: false, because: 'deny', block: '192.0.2.0/24' } as const;
  assert.equal(words.explanationRows({ ...picked, access }).rule.Access, 'denied by deny 192.0.2.0/24');
});
