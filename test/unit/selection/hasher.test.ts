import assert from 'node:assert/strict';
import test from 'node:test';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { referenceXxh32 } from './reference-xxh32.js';

const hash = await createHasher();

test('createHasher() gives the published XXH32 values', () => {
  // Sanity values of xxHash's own test-suite and of its specification.
  assert.equal(hash(new Uint8Array(0), 0), 0x02cc5d05);
  assert.equal(hash(Buffer.from('abc'), 0), 0x32d153ff);
  assert.equal(hash(Buffer.from('Nobody inspects the spammish repetition'), 0), 0xe2293b2f);
});

test('createHasher() agrees with XXH32 from the specification for all lengths of a key and all kinds of seed', () => {
  const bytes = Uint8Array.from({ length: 64 }, (_, index) => (index * 167 + 13) & 0xff);
  for (const seed of [0, 1, 0x7fffffff, 0x80000000, 0xffffffff]) {
    for (let length = 0; length <= bytes.length; length++) {
      const key = bytes.subarray(0, length);
      assert.equal(hash(key, seed), referenceXxh32(key, seed), `length ${length}, seed ${seed}`);
    }
  }
});

test('createHasher() results are unsigned and do not depend on what was hashed before', () => {
  const large = new Uint8Array(200_000).fill(255);
  const small = Uint8Array.of(1, 2, 3);
  const before = hash(small, 0);
  assert.equal(hash(large, 0), referenceXxh32(large, 0));
  assert.equal(hash(small, 0), before);
  const results = Array.from({ length: 64 }, (_, value) => hash(Uint8Array.of(value), 0));
  assert.ok(results.every((result) => Number.isInteger(result) && result >= 0 && result <= 0xffffffff));
  assert.ok(results.some((result) => result > 0x7fffffff));
});
