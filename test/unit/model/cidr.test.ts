import assert from 'node:assert/strict';
import { BlockList } from 'node:net';
import { describe, it } from 'node:test';
import { cidrContains, cidrsOverlap, ipAddress, parseCidr, type Cidr } from '../../../src/model/address.js';

function cidr(text: string): Cidr {
  const block = parseCidr(text);
  assert.ok(block !== undefined, text);
  return block;
}

describe('cidr', () => {
  const canonical: readonly (readonly [string, string])[] = [
    ['10.0.0.0/8', '10.0.0.0/8'],
    ['10.0.0.1', '10.0.0.1/32'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['10.0.0.128/25', '10.0.0.128/25'],
    ['::/0', '::/0'],
    ['FD00::/8', 'fd00::/8'],
    ['::1', '::1/128'],
    ['::ffff:10.0.0.0/104', '10.0.0.0/8'],
    ['::ffff:10.0.0.1', '10.0.0.1/32'],
  ];
  for (const [text, expected] of canonical) {
    it(`parseCidr() writes ${text} as ${expected}`, () => assert.equal(cidr(text).text, expected));
  }

  const refused = [
    ...['', '/8', '10/8', '10.0.0.0/', '10.0.0.0/ 8', '10.0.0.0/33', '10.0.0.0/-1', '10.0.0.0/8/8', '::/129'],
    ...['10.0.0.1/8', '10.0.0.129/25', 'fd00::1/64', '::ffff:10.0.0.0/8', 'fe80::%eth0/64'],
  ];
  for (const text of refused) {
    it(`parseCidr() refuses ${JSON.stringify(text)}`, () => assert.equal(parseCidr(text), undefined));
  }

  it('cidrContains() agrees with the block list of Node', () => {
    const blocks = [
      ...['10.0.0.0/8', '10.128.0.0/9', '192.168.7.0/30', '10.0.0.1', '0.0.0.0/0'],
      ...['fd00::/8', '2001:db8::/33', '::/0', '::1'],
    ];
    const addresses = [
      ...['10.0.0.1', '10.127.255.255', '10.128.0.0', '11.0.0.0', '192.168.7.3', '192.168.7.4'],
      ...['::1', 'fd12::', 'fe00::', '2001:db8:7fff::', '2001:db8:8000::'],
    ];
    for (const text of blocks) {
      const block = cidr(text);
      const oracle = new BlockList();
      const family = block.address.family === 4 ? 'ipv4' : 'ipv6';
      oracle.addSubnet(block.address.text, block.prefixLength, family);
      for (const address of addresses.map(ipAddress)) {
        const expected = address.family === block.address.family && oracle.check(address.text, family);
        assert.equal(cidrContains(block, address), expected, `${text} ${address.text}`);
      }
    }
  });

  it('cidrsOverlap() is whether an address is in both', () => {
    const cases: readonly (readonly [string, string, boolean])[] = [
      ['10.0.0.0/8', '10.1.2.0/24', true],
      ['10.1.2.0/24', '10.0.0.0/8', true],
      ['10.0.0.0/8', '10.0.0.0/8', true],
      ['10.0.0.0/9', '10.128.0.0/9', false],
      ['0.0.0.0/0', '::/0', false],
      ['fd00::/8', 'fd12::1', true],
    ];
    for (const [a, b, overlap] of cases) assert.equal(cidrsOverlap(cidr(a), cidr(b)), overlap, `${a} ${b}`);
  });
});
