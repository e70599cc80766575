import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ipv4Number } from '../../../../../src/model/address.js';
import { ClientKeys, ClientMap } from '../../../../../src/planes/userspace/udp/client-map.js';

/** Few enough that they meet again, from all over the range. */
const KEYS = [...Array(40).keys(), ...Array.from({ length: 40 }, (_, n) => 2 ** 48 - 1 - n * 65_536)];

describe('ClientMap', () => {
  test('ClientMap holds what a Map would, whatever is added and deleted', () => {
    const change = fc.record({ key: fc.constantFrom(...KEYS), add: fc.boolean() });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 300 }), fc.nat(), (changes, seed) => {
        const map = new ClientMap<string>(() => (seed % 1000) / 1000);
        const oracle = new Map<number, string>();
        for (const [step, { key, add }] of changes.entries()) {
          if (!add) assert.equal(map.delete(key), oracle.delete(key));
          else if (!oracle.has(key)) {
            map.add(key, `${step}`);
            oracle.set(key, `${step}`);
          }
          assert.equal(map.size, oracle.size);
        }
        for (const key of KEYS) assert.equal(map.get(key), oracle.get(key));
        assert.deepEqual(map.values().sort(), [...oracle.values()].sort());
      }),
    );
  });

  test('get() finds nothing by the key of an address without flows', () => {
    const map = new ClientMap<string>();
    assert.equal(map.get(-1), undefined);
    map.add(1, 'x');
    assert.equal(map.get(-1), undefined);
    assert.equal(map.delete(-1), false);
  });

  test('ClientMap spreads clients that differ in a few bits only', () => {
    const map = new ClientMap<number>(() => 0.5);
    const count = 1 << 17;
    // One address with every port, and every second address of a /16 with one port.
    const keys = Array.from({ length: count }, (_, n) =>
      n < 65_536 ? 0x0a000001 * 65_536 + n : (0x0b000000 + 2 * n) * 65_536 + 53,
    );
    for (const key of keys) map.add(key, key);
    const startedAt = performance.now();
    for (const key of keys) assert.equal(map.get(key), key);
    // Clustered, it would take a quadratic number of steps: minutes.
    assert.ok(performance.now() - startedAt < 2000);
    for (const key of keys) assert.ok(map.delete(key));
    assert.equal(map.size, 0);
  });
});

describe('client keys', () => {
  test('ipv4Number() reads a dotted quad as the bytes it stands for', () => {
    fc.assert(
      fc.property(fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)), (quad) => {
        assert.equal(ipv4Number(quad.join('.')), Buffer.from(quad).readUInt32BE());
      }),
    );
  });

  test('find() tells every IPv4 endpoint apart, exactly', () => {
    const keys = new ClientKeys(4);
    assert.equal(keys.find('255.255.255.255', 65_535), 2 ** 48 - 1);
    assert.equal(keys.find('0.0.0.1', 0) - keys.find('0.0.0.0', 65_535), 1);
    assert.equal(keys.hold('10.0.0.1', 53), keys.find('10.0.0.1', 53));
    assert.equal(keys.internedCount, 0);
  });

  test('find() knows IPv6 addresses for as long as they have flows', () => {
    const keys = new ClientKeys(6);
    assert.equal(keys.find('2001:db8::1', 53), -1);
    const one = keys.hold('2001:db8::1', 53);
    const two = keys.hold('2001:db8::1', 54);
    const other = keys.hold('2001:db8::2', 53);
    assert.equal(new Set([one, two, other]).size, 3);
    assert.equal(keys.find('2001:db8::1', 53), one);
    assert.equal(keys.find('2001:db8::1', 54), two);
    keys.release('2001:db8::1');
    assert.equal(keys.find('2001:db8::1', 54), two);
    keys.release('2001:db8::1');
    assert.equal(keys.find('2001:db8::1', 54), -1);
    assert.equal(keys.internedCount, 1);
    // A number is never used again, so a late release cannot reach another client's flow.
    assert.notEqual(keys.hold('2001:db8::1', 53), one);
  });
});
