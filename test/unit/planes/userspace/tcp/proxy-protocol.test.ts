import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  parseProxyHeader,
  writeProxyHeader,
  type ProxyHeader,
} from '../../../../../src/planes/userspace/tcp/proxy-protocol.js';
import { formatFiveTuple, ipAddress, parseCidr } from '../../../../../src/model/address.js';
import type { Frontend } from '../../../../../src/model/configuration.js';
import type { FakeStream } from '../../../../support/fake-streams.js';
import { testState } from '../../../../support/forwarding-state.js';
import { FIRST, inMemory, type MemoryLab } from './tcp-lab.js';

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
    // As HAProxy writes them where `set-src` has given one side another family.
    ['PROXY TCP6 2001:db8::5 ::ffff:127.40.2.1 1 2\r\n', '46: 2001:db8::5 1 127.40.2.1 2'],
    ['PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 1 2\r\n', '44: 10.0.0.1 1 2001:db8::1 2'],
    ['PROXY TCP6 2001:DB8::5 ::ffff:7f28:201 1 2\r\n', '44: 2001:db8::5 1 127.40.2.1 2'],
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
    'PROXY TCP4 ::ffff:10.0.0.1 1.2.3.4 1 2\r\n',
    'PROXY TCP6 2001:db8::5 127.40.2.1 1 2\r\n',
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
    [
      'an IPv4-mapped source',
      `${SIGNATURE}21210024${'00'.repeat(10)}ffff0a000001${V6_DESTINATION}9c4001bb`,
      '52: 10.0.0.1 40000 2001:db8::1 443',
    ],
    [
      'an IPv4-mapped destination',
      `${SIGNATURE}21210024${V6_SOURCE}${'00'.repeat(10)}ffff7f2802019c4001bb`,
      '52: 2001:db8::7 40000 127.40.2.1 443',
    ],
    ['LOCAL with an address family of its own', `${SIGNATURE}20310000`, '16: own'],
    ['UDP over IPv6', `${SIGNATURE}21220024${V6_SOURCE}${V6_DESTINATION}9c4001bb`, '52: own'],
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

  test('names an IPv4 address beside an IPv6 one by its IPv4-mapped form', () => {
    const mixed = { ...six, destination: ipAddress('127.40.2.1') };
    assert.equal(
      writeProxyHeader('v1', mixed).toString(),
      'PROXY TCP6 2001:db8::7 ::ffff:127.40.2.1 40000 443\r\n',
    );
    const mapped = `${'00'.repeat(10)}ffff7f280201`;
    assert.equal(
      writeProxyHeader('v2', mixed).toString('hex'),
      `${SIGNATURE}21210024${V6_SOURCE}${mapped}9c4001bb`,
    );
  });

  test('leaves zones out', () => {
    const scoped = { ...six, source: ipAddress('fe80::1%eth0') };
    assert.equal(writeProxyHeader('v1', scoped).toString(), 'PROXY TCP6 fe80::1 2001:db8::1 40000 443\r\n');
  });
});

const V1 = 'PROXY TCP4 203.0.113.9 198.51.100.1 1234 443\r\n';
const TRUSTING: NonNullable<Frontend['proxyProtocol']> = {
  accept: 'any',
  trustedSources: [parseCidr('192.0.2.1/32')!],
  headerTimeoutMs: 300,
};

/** A client that a header is expected of, and a way to have its backend connected. */
async function trusted(
  frontend: Partial<Frontend> = {},
): Promise<MemoryLab & { readonly client: FakeStream }> {
  const memory = await inMemory({ frontend: { proxyProtocol: TRUSTING, ...frontend } });
  return { ...memory, client: memory.streams.accept('192.0.2.1') };
}

describe('PROXY protocol in', () => {
  for (const [name, header, tuple] of [
    ['v1', line(V1), '203.0.113.9:1234 -> 198.51.100.1:443'],
    ['v2', hex(V2_TCP4), '192.0.2.7:40000 -> 198.51.100.1:443'],
    [
      'IPv6 over an IPv4 connection',
      line('PROXY TCP6 2001:db8::9 2001:db8::1 1234 443\r\n'),
      '[2001:db8::9]:1234 -> [2001:db8::1]:443',
    ],
    [
      'one address IPv4-mapped',
      line('PROXY TCP6 2001:db8::5 ::ffff:127.40.2.1 1234 443\r\n'),
      '[2001:db8::5]:1234 -> 127.40.2.1:443',
    ],
    ['UNKNOWN', line('PROXY UNKNOWN\r\n'), '192.0.2.1:4000 -> 127.0.0.1:443'],
    ['LOCAL', hex(`${SIGNATURE}20000000`), '192.0.2.1:4000 -> 127.0.0.1:443'],
  ] as const) {
    test(`${name}: the flow is what the header says, byte by byte or with payload behind it`, async () => {
      for (const pieces of [
        [...header].map((byte) => Buffer.of(byte)),
        [Buffer.concat([header, line('early ')])],
      ]) {
        const { lab, streams, client } = await trusted();
        assert.equal(streams.dialled.length, 0);
        for (const piece of pieces) client.say(piece.toString('latin1'));
        assert.equal(formatFiveTuple(lab.onlyFlow.tuple), `tcp ${tuple}`);
        assert.deepEqual([client.isPaused, streams.last().options?.port], [true, 443]);
        streams.last().connect();
        client.say('payload');
        assert.equal(streams.last().text, pieces.length > 1 ? 'payload' : 'early payload');
        assert.deepEqual(lab.drops(), {});
      }
    });
  }

  test('a source that is not trusted is served as it is', async () => {
    const { streams } = await trusted();
    const client = streams.accept('192.0.2.50');
    streams.last().connect();
    client.say(V1);
    assert.equal(streams.last().text, V1);
  });

  for (const [name, accept, send] of [
    ['malformed', 'any', ({ client }: { client: FakeStream }) => client.say('GET / HTTP/1.1\r\n\r\n')],
    ['of another version', 'v2', ({ client }) => client.say(V1)],
    [
      'slow',
      'any',
      ({ client, clock }) => {
        client.say('PROXY TCP4 203.0.');
        clock.advance(300);
      },
    ],
    ['missing', 'any', ({ clock }) => clock.advance(300)],
    [
      'cut off by FIN',
      'any',
      ({ client }) => {
        client.say('PROXY TCP4 203.0.');
        client.end();
      },
    ],
  ] as const satisfies readonly [string, string, (memory: Awaited<ReturnType<typeof trusted>>) => void][]) {
    test(`a header that is ${name} is answered with RST and counted`, async () => {
      const memory = await trusted({ proxyProtocol: { ...TRUSTING, accept } });
      send(memory);
      assert.deepEqual([memory.client.calls, memory.lab.drops()], [['reset'], { 'bad-proxy-header': 1 }]);
      assert.equal(memory.lab.flowCount, 0);
    });
  }

  test('the allow and deny lists go by the address in the header', async () => {
    const { lab, streams, client } = await trusted({ allow: [parseCidr('203.0.113.0/24')!] });
    client.say(V1);
    assert.equal(lab.flowCount, 1);
    const stranger = streams.accept('192.0.2.1', 4001);
    stranger.say(V1.replace('203.0.113.9', '192.0.2.9'));
    assert.deepEqual([stranger.calls, lab.drops()], [['reset'], { denied: 1 }]);
  });

  test('caps per source go by the address in the header', async () => {
    const { lab, streams, client } = await trusted();
    const frontend = { proxyProtocol: TRUSTING };
    lab.manager.apply(testState({ backends: [FIRST], frontend, limits: { tcpFlowsPerSource: 1 } }));
    client.say(V1);
    streams.last().connect();
    streams.accept('192.0.2.1', 4001).say(V1.replace('203.0.113.9', '203.0.113.10'));
    streams.last().connect();
    assert.equal(lab.manager.table.use('tcp').used, 2);
    const second = streams.accept('192.0.2.1', 4002);
    second.say(V1);
    assert.deepEqual([second.calls, lab.drops()], [['reset'], { 'source-cap': 1 }]);
  });
});

describe('PROXY protocol out', () => {
  test('v1 and v2 name the client and the frontend, ahead of the stream', async () => {
    for (const [proxyProtocol, expected] of [
      ['v1', line('PROXY TCP4 192.0.2.1 127.0.0.1 4000 443\r\npayload')],
      ['v2', Buffer.concat([hex(`${SIGNATURE}2111000cc00002017f0000010fa001bb`), line('payload')])],
    ] as const) {
      const { client, backend } = (await inMemory({ pool: { proxyProtocol } })).spliced();
      client.say('payload');
      assert.equal(backend.text, expected.toString('latin1'));
    }
  });

  test('passes the extensions of a version 2 header on to a backend that is sent version 2', async () => {
    // A checksum, Azure's link identifier (0xEE), padding: a header that is passed on whole stays true to its checksum.
    const extensions = '030004deadbeef' + 'ee000501aabbccdd' + '0400024142';
    const length = (12 + extensions.length / 2).toString(16).padStart(4, '0');
    const header = hex(`${SIGNATURE}2111${length}${V4_BODY}${extensions}`).toString('latin1');
    for (const [proxyProtocol, expected] of [
      ['v2', header],
      ['v1', 'PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n'],
      ['none', ''],
    ] as const) {
      const { streams } = await inMemory({ frontend: { proxyProtocol: TRUSTING }, pool: { proxyProtocol } });
      streams.accept('192.0.2.1').say(`${header}payload`);
      streams.last().connect();
      assert.equal(streams.last().text, `${expected}payload`);
    }
  });

  test('carries on what came in', async () => {
    const { streams } = await inMemory({
      frontend: { proxyProtocol: TRUSTING },
      pool: { proxyProtocol: 'v1' },
    });
    streams.accept('192.0.2.1').say(`${hex(V2_TCP4).toString('latin1')}payload`);
    streams.last().connect();
    assert.equal(streams.last().text, 'PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\npayload');
  });
});
