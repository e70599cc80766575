import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fnv1a } from '../../../src/model/fnv1a.js';

describe('fnv1a()', () => {
  // From the reference code of the draft (draft-eastlake-fnv, test vectors of FNV-1a, 32 bits).
  for (const [text, hash] of [
    ['', 0x811c9dc5],
    ['a', 0xe40c292c],
    ['b', 0xe70c2de5],
    ['foobar', 0xbf9cf968],
  ] as const) {
    test(`fnv1a() of "${text}" is the published value`, () => {
      assert.equal(fnv1a(Buffer.from(text)), hash);
    });
  }
});
