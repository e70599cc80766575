import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  parseProxyHeader,
  writeProxyHeader,
  type ProxyHeader,
} from '../../../../../src/planes/userspace/tcp/proxy-protocol.js';
import { ipAddress } from '../../../../../src/model/address.js';

// Lines and layouts from HAProxy's doc/proxy-protocol.txt: 2.1 (its examples of longest lines) and 2.2.
const SIGNATURE = '0d0a0d0a000d0a515549540a';
const V4_BODY = 'c0000207' + 'c6336401' + '9c40' + '01bb';
const V2_TCP4 = `${SIGNATURE}2111000c${V4_BODY}`;
const V6_SOURCE = '20010db8000000000000000000000007';
const V6_DESTINATION = '20010db8000000000000000000000001';
const V2_TCP6 = `${SIGNATURE}21210024${V6_SOURCE}${V6_DESTINATION}9c4001bb`;

const hex = (text: string): Buffer => Buffer.from(text, 'hex');
const line = (text: string): Buffer => Buffer.from(text, 'latin1');

function shown(header: ProxyHeader): string {
  if (header.kind !== 'complete') return header.kind;
  const { identity, length } = header;
  if (identity === undefined) return `${length}: own`;
  const { source, sourcePort, destination, destinationPort } = identity;
  return `${length}: ${source.text} ${sourcePort} ${destination.text} ${destinationPort}`;
}

describe('parseProxyHeader() of version 1', () => {
  const full = 'f'.repeat(4);
  const longest = Array.from({ length: 8 }, () => full).join(':');
  const good: readonly (readonly [string, string])[] = [
    [
      'PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n',
      '56: 255.255.255.255 65535 255.255.255.255 65535',
    ],
    ['PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n', '47: 192.168.0.1 56324 192.168.0.11 443'],
    [`PROXY TCP6 ${longest} ${longest} 65535 65535\r\n`, `104: ${longest} 65535 ${longest} 65535`],
    ['PROXY TCP6 ::1 2001:db8::7 0 1\r\n', '32: ::1 0 2001:db8::7 1'],
    ['PROXY TCP6 ::ffff:10.0.0.1 ::ffff:10.0.0.2 1 2\r\n', '48: 10.0.0.1 1 10.0.0.2 2'],
    ['PROXY UNKNOWN\r\n', '15: own'],
    [`PROXY UNKNOWN ${longest} ${longest} 65535 65535\r\n`, '107: own'],
    ['PROXY UNKNOWN whatever stands here\r\n', '36: own'],
  ];
  for (const [text, expected] of good) {
    test(`takes ${JSON.stringify(text.slice(0, 60))}`, () => {
      assert.equal(shown(parseProxyHeader(line(text), 'any')), expected);
      assert.equal(shown(parseProxyHeader(line(`${text}GET / HTTP/1.0\n`), 'v1')), expected);
      for (let length = 0; length < text.length; length++) {
        assert.equal(
          parseProxyHeader(line(text.slice(0, length)), 'any').kind,
          'incomplete',
          `first ${length}`,
        );
      }
      assert.equal(parseProxyHeader(line(text), 'v2').kind, 'invalid');
    });
  }

  for (const text of [
    'GET / HTTP/1.1\r\n',
    'PROXX',
    'proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n',
    'PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n',
    'PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n',
    'PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n',
    'PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n',
    'PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n',
    'PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n',
    'PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n',
    'PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n',
    'PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n',
    'PROXY TCP4 ::1 ::1 1 2\r\n',
    'PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n',
    'PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n',
    'PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 1 2\r\n',
    'PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n',
    'PROXY UNKNOWNX\r\n',
    'PROXY \r\n',
    `PROXY UNKNOWN ${'x'.repeat(92)}\r\n`,
    `PROXY TCP4 ${'1'.repeat(200)}`,
  ]) {
    test(`refuses ${JSON.stringify(text.slice(0, 50))}`, () => {
      assert.equal(parseProxyHeader(line(text), 'any').kind, 'invalid');
    });
  }
});

describe('parseProxyHeader() of version 2', () => {
  const good: readonly (readonly [string, string, string])[] = [
    ['TCP over IPv4', V2_TCP4, '28: 192.0.2.7 40000 198.51.100.1 443'],
    ['TCP over IPv6', V2_TCP6, '52: 2001:db8::7 40000 2001:db8::1 443'],
    [
      'two TLVs',
      `${SIGNATURE}21110015${V4_BODY}03000104` + '0400024142',
      '37: 192.0.2.7 40000 198.51.100.1 443',
    ],
    ['LOCAL without a body', `${SIGNATURE}20000000`, '16: own'],
    ['LOCAL with a body to skip', `${SIGNATURE}2011000c${V4_BODY}`, '28: own'],
    ['PROXY UNSPEC with a body to skip', `${SIGNATURE}21000003ffffff`, '19: own'],
    ['UDP over IPv4', `${SIGNATURE}2112000c${V4_BODY}`, '28: own'],
    ['a Unix stream', `${SIGNATURE}213100d8${'00'.repeat(216)}`, '232: own'],
  ];
  for (const [name, text, expected] of good) {
    test(`takes ${name}`, () => {
      const bytes = hex(text);
      if (name === 'two TLVs') bytes.writeUInt16BE(bytes.length - 16, 14);
      assert.equal(shown(parseProxyHeader(bytes, 'any')), expected);
      assert.equal(shown(parseProxyHeader(Buffer.concat([bytes, line('more')]), 'v2')), expected);
      for (let length = 0; length < bytes.length; length++) {
        assert.equal(
          parseProxyHeader(bytes.subarray(0, length), 'any').kind,
          'incomplete',
          `first ${length}`,
        );
      }
      assert.equal(parseProxyHeader(bytes, 'v1').kind, 'invalid');
    });
  }

  for (const [name, text] of [
    ['a wrong signature', '0d0a0d0a000d0a515549540b'],
    ['version 1', `${SIGNATURE}11`],
    ['version 3', `${SIGNATURE}31`],
    ['an unknown command', `${SIGNATURE}22`],
    ['an unknown address family', `${SIGNATURE}2141`],
    ['an unknown transport', `${SIGNATURE}2113`],
    ['a length that cannot hold IPv4', `${SIGNATURE}2111000b`],
    ['a length that cannot hold IPv6', `${SIGNATURE}21210023`],
    ['a length beyond reason', `${SIGNATURE}2111ffff`],
    ['a TLV cut short', `${SIGNATURE}21110010${V4_BODY}03000204`],
    ['a TLV without room for its length', `${SIGNATURE}2111000e${V4_BODY}0300`],
    ['mixed families', `${SIGNATURE}21210024${'00'.repeat(10)}ffff0a000001${V6_DESTINATION}9c4001bb`],
  ] as const) {
    test(`refuses ${name}`, () => {
      assert.equal(parseProxyHeader(hex(text), 'any').kind, 'invalid');
    });
  }
});

describe('writeProxyHeader()', () => {
  const four = {
    source: ipAddress('192.0.2.7'),
    sourcePort: 40000,
    destination: ipAddress('198.51.100.1'),
    destinationPort: 443,
  };
  const six = { ...four, source: ipAddress('2001:db8::7'), destination: ipAddress('2001:db8::1') };

  test('writes version 1 as the specification has it', () => {
    assert.equal(writeProxyHeader('v1', four).toString(), 'PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n');
    assert.equal(writeProxyHeader('v1', six).toString(), 'PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n');
  });

  test('writes version 2 as the specification has it', () => {
    assert.equal(writeProxyHeader('v2', four).toString('hex'), V2_TCP4);
    assert.equal(writeProxyHeader('v2', six).toString('hex'), V2_TCP6);
  });

  test('leaves zones out', () => {
    const scoped = { ...six, source: ipAddress('fe80::1%eth0') };
    assert.equal(writeProxyHeader('v1', scoped).toString(), 'PROXY TCP6 fe80::1 2001:db8::1 40000 443\r\n');
  });
});
