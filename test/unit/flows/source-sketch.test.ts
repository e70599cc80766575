import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { mix32 } from '../../../src/flows/flow.js';
import {
  SKETCH_REGISTERS,
  addSource,
  estimateSources,
  hashAddress,
  mergeSketches,
} from '../../../src/flows/traffic.js';
import { ipAddress } from '../../../src/model/address.js';
import { campaign } from '../../support/campaign.js';

function sketchOf(hashes: Iterable<number>): Uint8Array {
  const registers = new Uint8Array(SKETCH_REGISTERS);
  for (const hash of hashes) addSource(registers, hash);
  return registers;
}

/** Uniform, and not the hash that the product uses (xorshift32, Marsaglia 2003). */
function* randomWords(count: number, seed: number): Generator<number> {
  let state = seed;
  for (let n = 0; n < count; n++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    yield state >>> 0;
  }
}

describe('addSource()', () => {
  test('addSource() keeps the longest run of zeros behind the first ten bits', () => {
    const registers = new Uint8Array(1024);
    for (const [hash, index, expected] of [
      [0b0000000011_1000000000000000000000, 3, 1],
      [0b0000000011_0001000000000000000000, 3, 4],
      // It never falls.
      [0b0000000011_1000000000000000000000, 3, 4],
      [0, 0, 23],
      [0xffffffff, 1023, 1],
    ] as const) {
      addSource(registers, hash);
      assert.equal(registers[index], expected);
    }
    assert.equal(registers.filter((value) => value !== 0).length, 3);
  });

  for (const [what, address] of [
    ['one IPv4 network', (i: number) => `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`],
    ['IPv4 networks alike', (i: number) => `${10 + (i % 50)}.${i >> 8}.${i & 255}.1`],
    ['one IPv6 network', (i: number) => `2001:db8::${(i >> 8).toString(16)}:${(i & 255).toString(16)}`],
    ['IPv6 networks alike', (i: number) => `2001:db8:${i.toString(16)}::1`],
  ] as const) {
    test(`clients of ${what} are told apart, however often each comes`, () => {
      for (const count of [200, campaign({ share: 4000, whole: 20_000 })]) {
        const hashes = Array.from({ length: count }, (_, i) => hashAddress(ipAddress(address(i))));
        const error = estimateSources(sketchOf([...hashes, ...hashes])) / count - 1;
        assert.ok(Math.abs(error) < 0.1, `${count}: off by ${error}`);
      }
    });
  }
});

describe('estimateSources()', () => {
  test('estimateSources() is 0 of nothing, and of no registers at all', () => {
    assert.equal(estimateSources(new Uint8Array(SKETCH_REGISTERS)), 0);
    assert.equal(estimateSources(new Uint8Array(0)), 0);
  });

  for (const count of [1, 2, 5, 10]) {
    test(`estimateSources() counts ${count} to the nearest whole`, () => {
      assert.equal(Math.round(estimateSources(sketchOf(randomWords(count, 2463534242)))), count);
    });
  }

  for (const count of [100, 1000, 2560, 5000, campaign({ share: 100_000, whole: 1_000_000 })]) {
    test(`estimateSources() of ${count} is right on average, and off by some 3 % in one run`, () => {
      const runs = 20;
      const errors = Array.from(
        { length: runs },
        (_, run) => estimateSources(sketchOf(randomWords(count, 12_345 + run * 7919))) / count - 1,
      );
      const mean = errors.reduce((sum, error) => sum + error, 0) / runs;
      const spread = Math.sqrt(errors.reduce((sum, error) => sum + error ** 2, 0) / runs);
      // 3.25 % over the square root of the runs is 0.7 %; four times that.
      assert.ok(Math.abs(mean) < 0.03, `mean error ${mean}`);
      assert.ok(spread < 0.055, `standard error ${spread}`);
    });
  }

  test('estimateSources() stays finite and large when all registers are as high as they can be', () => {
    const most = estimateSources(new Uint8Array(SKETCH_REGISTERS).fill(20));
    assert.ok(most > 500_000_000 && Number.isFinite(most), `${most}`);
  });
});

test('mergeSketches() is the sketch of both together, in either order, and changes neither', () => {
  const words = [[...randomWords(3000, 99)], [...randomWords(2000, 1234)]] as const;
  const [a, b] = [sketchOf(words[0]), sketchOf(words[1])];
  const both = sketchOf(words.flat());
  const before = a.slice();
  assert.deepEqual(mergeSketches(a, b), both);
  assert.deepEqual(mergeSketches(b, a), both);
  assert.deepEqual(mergeSketches(a, a), before);
  assert.deepEqual(a, before);
});

test('mix32() is MurmurHash3`s fmix32, unsigned', () => {
  // From the reference implementation (smhasher, MurmurHash3.cpp).
  assert.deepEqual([0, 1, 0xffffffff].map(mix32), [0, 0x514e28b7, 0x81f16f39]);
});
