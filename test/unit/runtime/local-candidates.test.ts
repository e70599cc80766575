import assert from 'node:assert/strict';
import type { NetworkInterfaceInfo } from 'node:os';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { localCandidates } from '../../../src/runtime/machine.js';

function entry(cidr: string, internal = false): NetworkInterfaceInfo {
  const [address = ''] = cidr.split('/');
  const rest = { address, cidr, internal, netmask: '', mac: '' };
  return address.includes(':')
    ? { ...rest, family: 'IPv6', scopeid: address.startsWith('fe80') ? 2 : 0 }
    : { ...rest, family: 'IPv4' };
}

const INTERFACES = {
  lo: [entry('127.0.0.1/8', true), entry('::1/128', true), entry('198.51.100.9/32', true)],
  eth0: [entry('203.0.113.9/32'), entry('10.0.0.5/8'), entry('fe80::5/64'), entry('2001:db8::5/64')],
  eth1: [entry('10.1.0.5/16'), entry('192.0.2.5/24')],
};

function candidates(destination: string): readonly string[] {
  return localCandidates(ipAddress(destination), INTERFACES).map(({ text }) => text);
}

void describe('localCandidates()', () => {
  test('puts the narrowest network of the destination first and addresses that stand alone last', () => {
    assert.deepEqual(candidates('10.1.2.3'), ['10.1.0.5', '10.0.0.5', '192.0.2.5', '203.0.113.9']);
    assert.deepEqual(candidates('8.8.8.8'), ['10.0.0.5', '10.1.0.5', '192.0.2.5', '203.0.113.9']);
  });

  test('takes only addresses of the family, and none that is link-local', () => {
    assert.deepEqual(candidates('2001:db8:1::1'), ['2001:db8::5']);
  });

  test('takes loopback for loopback', () => {
    assert.deepEqual(candidates('127.0.0.61'), ['127.0.0.1']);
    assert.deepEqual(candidates('::1'), ['::1']);
  });
});
