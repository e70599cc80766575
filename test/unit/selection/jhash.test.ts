import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { jhash, reciprocalScale } from '../../../src/selection/jhash.js';

/** What nftables chose on a real kernel for these keys, seeds and sizes; made with the kernel, not with this code. */
const VECTORS = [
  // 10.1.0.2:40000 -> 10.9.0.10:443, tcp
  { hex: '0a0100020a09000a060000009c40000001bb0000', seed: 0x12345678, hash: 0x02421753, slot: 36 },
] as const;

describe('jhash()', () => {
  for (const { hex, seed, hash, slot } of VECTORS) {
    test(`jhash() of ${hex} is what the kernel computes`, () => {
      assert.equal(jhash(Buffer.from(hex, 'hex'), seed), hash);
      assert.equal(reciprocalScale(hash, 4093), slot);
    });
  }

  test('jhash() of nothing is its starting value', () => {
    assert.equal(jhash(new Uint8Array(0), 0), 0xdeadbeef);
  });

  test('jhash() depends on every byte and on the seed', () => {
    const bytes = fc.uint8Array({ minLength: 4, maxLength: 44 }).filter(({ length }) => length % 4 === 0);
    fc.assert(
      fc.property(bytes, fc.nat(43), fc.integer({ min: 1, max: 255 }), (key, at, change) => {
        const other = key.slice();
        const index = at % key.length;
        other[index] = (other[index] ?? 0) ^ change;
        // Of 2^32 values two differing keys of this length may share one, which has not been seen.
        assert.notEqual(jhash(key, 0), jhash(other, 0));
        assert.notEqual(jhash(key, 0), jhash(key, 1));
      }),
    );
  });
});

describe('reciprocalScale()', () => {
  test('reciprocalScale() is the upper half of the 64-bit product', () => {
    fc.assert(
      fc.property(fc.nat(0xffffffff), fc.integer({ min: 1, max: 0xffffffff }), (hash, size) => {
        assert.equal(reciprocalScale(hash, size), Number((BigInt(hash) * BigInt(size)) >> 32n));
      }),
    );
  });
});
