import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  SKETCH_REGISTERS,
  SourceSketch,
  estimateSources,
  mergeSketches,
} from '../../../src/flows/traffic.js';

/** Uniform, and not the hash that the product uses (xorshift32, Marsaglia 2003). */
function* randomWords(seed: number): Generator<number> {
  let state = seed;
  for (;;) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    yield state >>> 0;
  }
}

function sketchOf(count: number, seed: number): SourceSketch {
  const sketch = new SourceSketch();
  const words = randomWords(seed);
  for (let i = 0; i < count; i++) sketch.add(words.next().value as number);
  return sketch;
}

describe('estimateSources()', () => {
  test('estimateSources() is 0 of nothing, and of no registers at all', () => {
    assert.equal(estimateSources(new Uint8Array(SKETCH_REGISTERS)), 0);
    assert.equal(estimateSources(new Uint8Array(0)), 0);
  });

  for (const count of [1, 2, 5, 10]) {
    test(`estimateSources() counts ${count} to the nearest whole`, () => {
      assert.equal(Math.round(estimateSources(sketchOf(count, 2463534242).registers)), count);
    });
  }

  for (const count of [100, 1000, 2560, 5000, 100_000, 1_000_000]) {
    test(`estimateSources() of ${count} is right on average, and off by some 3 % in one run`, () => {
      const runs = 20;
      const errors = Array.from(
        { length: runs },
        (_, run) => estimateSources(sketchOf(count, 12_345 + run * 7919).registers) / count - 1,
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

describe('mergeSketches()', () => {
  test('mergeSketches() is the sketch of both together, in either order, and changes neither', () => {
    const [a, b] = [sketchOf(3000, 99), sketchOf(2000, 1234)];
    const both = new SourceSketch();
    for (const [count, seed] of [
      [3000, 99],
      [2000, 1234],
    ] as const) {
      const words = randomWords(seed);
      for (let i = 0; i < count; i++) both.add(words.next().value as number);
    }
    const before = a.registers.slice();
    assert.deepEqual(mergeSketches(a.registers, b.registers), both.registers);
    assert.deepEqual(mergeSketches(b.registers, a.registers), both.registers);
    assert.deepEqual(mergeSketches(a.registers, a.registers), before);
    assert.deepEqual(a.registers, before);
  });
});
