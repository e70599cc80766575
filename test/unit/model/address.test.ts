import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  compareAddresses,
  formatEndpoint,
  fromBytes,
  ipAddress,
  isLoopback,
  isWildcard,
  parseEndpoint,
  parseIpAddress,
} from '../../../src/model/address.js';

describe('address', () => {
  // Canonical forms from RFC 5952, sections 1 to 5, but for IPv4-mapped ones, which haports holds as IPv4.
  const canonical: readonly (readonly [string, string])[] = [
    ['10.0.0.4', '10.0.0.4'],
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['2001:0db8::0001', '2001:db8::1'],
    ['2001:db8:0:0:0:0:2:1', '2001:db8::2:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:DB8::ABCD', '2001:db8::abcd'],
    ['::', '::'],
    ['::1', '::1'],
    ['::ffff:10.0.0.4', '10.0.0.4'],
    ['::FFFF:A00:4', '10.0.0.4'],
    ['0:0:0:0:0:ffff:0a00:0004', '10.0.0.4'],
    ['fe80::1%eth0', 'fe80::1%eth0'],
  ];
  for (const [text, expected] of canonical) {
    it(`parseIpAddress() writes ${text} as ${expected}`, () => {
      const address = parseIpAddress(text);
      assert.equal(address?.text, expected);
      assert.equal(address.family, expected.includes(':') ? 6 : 4);
      assert.equal(address.bytes.length, address.family === 4 ? 4 : 16);
    });
  }

  it('parseIpAddress() gives bytes in network order', () => {
    assert.deepEqual([...ipAddress('10.1.2.3').bytes], [10, 1, 2, 3]);
    assert.deepEqual(
      [...ipAddress('2001:db8::1').bytes],
      [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    );
    assert.deepEqual([...ipAddress('::ffff:1.2.3.4').bytes], [1, 2, 3, 4]);
  });

  const refused = [
    ...['', ' ', 'localhost', '2130706433', '0x7f.0.0.1', '010.0.0.1', '256.0.0.1', '١.2.3.4'],
    ...['127.1', '127.0.0', '1.2.3.4.5', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9'],
    ...['10.0.0.1/8', '::1/128', '10.0.0.1:80', '[::1]', '10.0.0.1 ', ' 10.0.0.1'],
    ...['1::2::3', ':::', '12345::', '::g'],
  ];
  for (const text of refused) {
    it(`parseIpAddress() refuses ${JSON.stringify(text)}`, () => {
      assert.equal(parseIpAddress(text), undefined);
      assert.throws(() => ipAddress(text), TypeError);
    });
  }

  it('fromBytes() undoes bytes, and makes IPv4 of IPv4-mapped ones', () => {
    for (const text of ['10.0.0.4', '::1', '2001:db8::1']) {
      assert.deepEqual(fromBytes(ipAddress(text).bytes), ipAddress(text));
    }
    const mapped = [...new Uint8Array(10), 0xff, 0xff, 10, 0, 0, 4];
    assert.deepEqual(fromBytes(mapped), ipAddress('10.0.0.4'));
  });

  it('isWildcard() and isLoopback() know theirs', () => {
    const all = [
      ...['0.0.0.0', '::', '127.0.0.1', '127.255.0.9', '::1', '::ffff:127.0.0.1'],
      ...['126.0.0.1', '128.0.0.1', '::2'],
    ];
    assert.deepEqual(
      all.filter((text) => isWildcard(ipAddress(text))),
      ['0.0.0.0', '::'],
    );
    assert.deepEqual(
      all.filter((text) => isLoopback(ipAddress(text))),
      ['127.0.0.1', '127.255.0.9', '::1', '::ffff:127.0.0.1'],
    );
  });

  it('compareAddresses() orders by family, then bytes, then zone', () => {
    const sorted = [
      ...['9.0.0.0', '10.0.0.1', '10.0.0.2', '200.0.0.1'],
      ...['::', '::1', 'fe80::1', 'fe80::1%eth0', 'fe80::1%eth1'],
    ];
    const shuffled = [...sorted].reverse().map(ipAddress).sort(compareAddresses);
    assert.deepEqual(
      shuffled.map(({ text }) => text),
      sorted,
    );
    assert.equal(compareAddresses(ipAddress('::ffff:1.2.3.4'), ipAddress('1.2.3.4')), 0);
  });

  const endpoints: readonly (readonly [string, string, number])[] = [
    ['127.0.0.1:80', '127.0.0.1', 80],
    ['[::1]:65535', '::1', 65535],
    ['0.0.0.0:0', '0.0.0.0', 0],
    ['[fe80::1%eth0]:9', 'fe80::1%eth0', 9],
  ];
  for (const [text, address, port] of endpoints) {
    it(`parseEndpoint() and formatEndpoint() agree on ${text}`, () => {
      assert.deepEqual(parseEndpoint(text), { address: ipAddress(address), port });
      assert.equal(formatEndpoint(ipAddress(address), port), text);
    });
  }

  for (const text of [
    ...['', ':80', '127.0.0.1', '127.0.0.1:', '127.0.0.1:65536', '127.0.0.1:-1'],
    ...['::1:80', '[::1]', 'a:80'],
  ]) {
    it(`parseEndpoint() refuses ${JSON.stringify(text)}`, () => assert.equal(parseEndpoint(text), undefined));
  }
});
