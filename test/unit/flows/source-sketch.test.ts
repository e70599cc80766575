import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { mix32 } from '../../../src/flows/flow.js';
import { SourceSketch, estimateSources, hashAddress } from '../../../src/flows/traffic.js';
import { ipAddress } from '../../../src/model/address.js';

describe('SourceSketch', () => {
  test('add() keeps the longest run of zeros behind the first ten bits', () => {
    const { registers, ...rest } = new SourceSketch();
    assert.deepEqual(rest, {});
    assert.equal(registers.length, 1024);
    const sketch = new SourceSketch();
    const register = (index: number): number | undefined => sketch.registers[index];
    sketch.add(0b0000000011_1000000000000000000000 >>> 0);
    assert.equal(register(3), 1);
    sketch.add(0b0000000011_0001000000000000000000 >>> 0);
    assert.equal(register(3), 4);
    sketch.add(0b0000000011_1000000000000000000000 >>> 0);
    assert.equal(register(3), 4, 'it never falls');
    sketch.add(0);
    assert.equal(register(0), 23);
    sketch.add(0xffffffff);
    assert.equal(register(1023), 1);
    assert.equal(sketch.registers.filter((value) => value !== 0).length, 3);
  });

  test('add() of the same client again changes nothing', () => {
    const sketch = new SourceSketch();
    for (let i = 0; i < 100; i++) sketch.add(hashAddress(ipAddress('192.0.2.7')));
    assert.equal(Math.round(estimateSources(sketch.registers)), 1);
  });

  for (const [what, address] of [
    ['one IPv4 network', (i: number) => `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`],
    ['IPv4 networks alike', (i: number) => `${10 + (i % 50)}.${i >> 8}.${i & 255}.1`],
    ['one IPv6 network', (i: number) => `2001:db8::${(i >> 8).toString(16)}:${(i & 255).toString(16)}`],
    ['IPv6 networks alike', (i: number) => `2001:db8:${i.toString(16)}::1`],
  ] as const) {
    test(`clients of ${what} are told apart: 200, 20,000`, () => {
      for (const count of [200, 20_000]) {
        const sketch = new SourceSketch();
        for (let i = 0; i < count; i++) sketch.add(hashAddress(ipAddress(address(i))));
        const error = estimateSources(sketch.registers) / count - 1;
        assert.ok(Math.abs(error) < 0.1, `${count}: off by ${error}`);
      }
    });
  }
});

describe('mix32()', () => {
  test('mix32() is MurmurHash3`s fmix32, unsigned', () => {
    // From the reference implementation (smhasher, MurmurHash3.cpp).
    assert.deepEqual([0, 1, 0xffffffff].map(mix32), [0, 0x514e28b7, 0x81f16f39]);
  });
});
