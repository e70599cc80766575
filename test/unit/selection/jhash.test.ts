import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { jhash, reciprocalScale } from '../../../src/selection/flow-hash.js';

/**
 * What nftables 1.0.6 on Linux 6.18 chose for these keys, seeds and sizes: `ct mark set jhash ... mod <size> seed <seed>` on a
 * flow's first packet, read from conntrack; made with the kernel, not with this code. A size of 2^32 - 1 shows nearly the
 * whole hash.
 */
const VECTORS = [
  // 10.1.0.2:40000 -> 10.9.0.10:443, tcp
  { hex: '0a0100020a09000a060000009c40000001bb0000', seed: 0x12345678, size: 4093, slot: 36 },
  // IPv4 5-tuple
  { hex: '0a0100020a09000a11000000a115000000350000', seed: 0x0, size: 4294967295, slot: 3572222214 },
  { hex: '0a0100020a09000a11000000aabf000000010000', seed: 0xffffffff, size: 65521, slot: 48856 },
  // IPv4 3-tuple
  { hex: '0a0100020a09000a11000000', seed: 0x12345678, size: 4093, slot: 777 },
  { hex: '0a0100020a09000a06000000', seed: 0xffffffff, size: 65521, slot: 30723 },
  // IPv4 2-tuple
  { hex: '0a0100020a09000a', seed: 0x0, size: 4294967295, slot: 1116206764 },
  { hex: '0a0100020a09000a', seed: 0xffffffff, size: 65521, slot: 10810 },
  // IPv4 5-tuple, destination first
  { hex: '0a09000a0a0100021100000000350000d1670000', seed: 0x12345678, size: 4093, slot: 1596 },
  { hex: '0a09000a0a01000206000000ffff0000d63c0000', seed: 0xffffffff, size: 65521, slot: 59319 },
  // IPv4 5-tuple
  { hex: 'c000024dcb0071ff11000000db11000000010000', seed: 0x0, size: 4294967295, slot: 2161342714 },
  { hex: 'c000024dcb0071ff11000000e4bb000001bb0000', seed: 0xffffffff, size: 65521, slot: 44457 },
  // IPv4 3-tuple
  { hex: 'c000024dcb0071ff11000000', seed: 0x12345678, size: 4093, slot: 2627 },
  { hex: 'c000024dcb0071ff06000000', seed: 0xffffffff, size: 65521, slot: 62427 },
  // IPv4 2-tuple
  { hex: 'c000024dcb0071ff', seed: 0x0, size: 4294967295, slot: 1269134892 },
  { hex: 'c000024dcb0071ff', seed: 0xffffffff, size: 65521, slot: 14582 },
  // IPv4 5-tuple, destination first
  { hex: 'cb0071ffc000024d1100000000010000bd430000', seed: 0x12345678, size: 4093, slot: 3435 },
  { hex: 'cb0071ffc000024d060000001f900000c2180000', seed: 0xffffffff, size: 65521, slot: 25957 },
  // IPv6 5-tuple
  {
    hex: 'fd010000000000000000000000000002fd09000000000000000000000000001011000000c6ed000001bb0000',
    seed: 0x0,
    size: 4294967295,
    slot: 3824464340,
  },
  {
    hex: 'fd010000000000000000000000000002fd09000000000000000000000000001011000000d0970000ffff0000',
    seed: 0xffffffff,
    size: 65521,
    slot: 55314,
  },
  // IPv6 3-tuple
  {
    hex: 'fd010000000000000000000000000002fd09000000000000000000000000001011000000',
    seed: 0x12345678,
    size: 4093,
    slot: 3277,
  },
  {
    hex: 'fd010000000000000000000000000002fd09000000000000000000000000001006000000',
    seed: 0xffffffff,
    size: 65521,
    slot: 36200,
  },
  // IPv6 2-tuple
  {
    hex: 'fd010000000000000000000000000002fd090000000000000000000000000010',
    seed: 0x0,
    size: 4294967295,
    slot: 2888571202,
  },
  {
    hex: 'fd010000000000000000000000000002fd090000000000000000000000000010',
    seed: 0xffffffff,
    size: 65521,
    slot: 40073,
  },
  // IPv6 5-tuple, destination first
  {
    hex: 'fd090000000000000000000000000010fd0100000000000000000000000000021100000001bb0000a91f0000',
    seed: 0x12345678,
    size: 4093,
    slot: 28,
  },
  {
    hex: 'fd090000000000000000000000000010fd0100000000000000000000000000020600000000350000adf40000',
    seed: 0xffffffff,
    size: 65521,
    slot: 18744,
  },
  // IPv6 5-tuple
  {
    hex: '20010db8000100020003000400050006fe0900000000000000000000ffff000111000000b2c90000ffff0000',
    seed: 0x0,
    size: 4294967295,
    slot: 1121030216,
  },
  {
    hex: '20010db8000100020003000400050006fe0900000000000000000000ffff000111000000bc7300001f900000',
    seed: 0xffffffff,
    size: 65521,
    slot: 11489,
  },
  // IPv6 3-tuple
  {
    hex: '20010db8000100020003000400050006fe0900000000000000000000ffff000111000000',
    seed: 0x12345678,
    size: 4093,
    slot: 1624,
  },
  {
    hex: '20010db8000100020003000400050006fe0900000000000000000000ffff000106000000',
    seed: 0xffffffff,
    size: 65521,
    slot: 19527,
  },
  // IPv6 2-tuple
  {
    hex: '20010db8000100020003000400050006fe0900000000000000000000ffff0001',
    seed: 0x0,
    size: 4294967295,
    slot: 40224683,
  },
  {
    hex: '20010db8000100020003000400050006fe0900000000000000000000ffff0001',
    seed: 0xffffffff,
    size: 65521,
    slot: 62150,
  },
  // IPv6 5-tuple, destination first
  {
    hex: 'fe0900000000000000000000ffff000120010db800010002000300040005000611000000ffff0000e31b0000',
    seed: 0x12345678,
    size: 4093,
    slot: 1711,
  },
  {
    hex: 'fe0900000000000000000000ffff000120010db80001000200030004000500060600000000010000e7f00000',
    seed: 0xffffffff,
    size: 65521,
    slot: 1043,
  },
] as const;

describe('jhash()', () => {
  for (const { hex, seed, size, slot } of VECTORS) {
    test(`jhash() of ${hex} with seed ${seed} is what the kernel computes`, () => {
      assert.equal(reciprocalScale(jhash(Buffer.from(hex, 'hex'), seed), size), slot);
    });
  }

  test('jhash() gives all 32 bits', () => {
    assert.equal(jhash(Buffer.from(VECTORS[0].hex, 'hex'), VECTORS[0].seed), 0x02421753);
  });

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
