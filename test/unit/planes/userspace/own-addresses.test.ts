import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { addressesOf, ownAddresses } from '../../../../src/planes/userspace/listen-plan.js';

const rest = { netmask: '', mac: '', internal: false, cidr: null };

describe('own addresses', () => {
  test('addressesOf() lists a family once each, link-local IPv6 with its interface', () => {
    const interfaces: Parameters<typeof addressesOf>[1] = {
      lo: [
        { ...rest, address: '127.0.0.1', family: 'IPv4' },
        { ...rest, address: '::1', family: 'IPv6', scopeid: 0 },
      ],
      eth0: [
        { ...rest, address: '192.0.2.7', family: 'IPv4' },
        { ...rest, address: 'fe80::1', family: 'IPv6', scopeid: 2 },
      ],
      eth1: [
        { ...rest, address: '192.0.2.7', family: 'IPv4' },
        { ...rest, address: 'fe80::1', family: 'IPv6', scopeid: 3 },
      ],
      down: undefined,
    };
    const texts = (family: 4 | 6): readonly string[] =>
      addressesOf(family, interfaces).map(({ text }) => text);
    assert.deepEqual(texts(4), ['127.0.0.1', '192.0.2.7']);
    assert.deepEqual(texts(6), ['::1', 'fe80::1%eth0', 'fe80::1%eth1']);
  });

  test('ownAddresses() are addresses that a socket can be bound to', async () => {
    const found = [...ownAddresses(4), ...ownAddresses(6)];
    assert.ok(found.some(({ text }) => text === '127.0.0.1'));
    for (const { family, text } of found) {
      const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
      socket.bind(0, text);
      await once(socket, 'listening');
      socket.close();
    }
  });
});
