import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ClientKeys, ipv4Number } from '../../../../../src/planes/userspace/udp/client-map.js';

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
