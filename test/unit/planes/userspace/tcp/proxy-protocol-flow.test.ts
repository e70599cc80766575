import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { ipAddress, type Cidr } from '../../../../../src/model/address.js';
import type { BackendPool, Frontend } from '../../../../../src/model/configuration.js';
import { eventually, within } from '../../../../support/deadline.js';
import { testState } from '../../../../support/forwarding-state.js';
import { receive, TcpLab, TestServer } from './tcp-lab.js';

const BACKEND = '127.0.0.2';
const V2_TCP4 = '0d0a0d0a000d0a515549540a2111000cc0000207c63364019c4001bb';

interface Rig {
  readonly lab: TcpLab;
  readonly dial: (localAddress?: string) => Promise<Socket>;
}

function block(address: string, prefixLength: number): Cidr {
  return { address: ipAddress(address), prefixLength, text: `${address}/${prefixLength}` };
}

const TRUSTING: NonNullable<Frontend['proxyProtocol']> = {
  accept: 'any',
  trustedSources: [block('127.0.0.1', 32)],
  headerTimeoutMs: 300,
};

/** A backend that answers, after FIN, with all it was sent. */
async function rig(
  t: { readonly after: (fn: () => void) => void },
  frontend: Partial<Frontend>,
  pool: Partial<BackendPool> = {},
): Promise<Rig> {
  const server = await TestServer.listen(BACKEND, (socket) => {
    void receive(socket).then(({ text }) => socket.end(text, 'latin1'));
  });
  const lab = await TcpLab.open(testState({ backends: [BACKEND], frontend, pool }), { port: server.port });
  const clients: Socket[] = [];
  t.after(() => {
    for (const client of clients) client.destroy();
    lab.close();
    server.close();
  });
  return {
    lab,
    dial: async (localAddress = '127.0.0.1') => {
      const client = connect({ host: lab.host, port: lab.port, localAddress, allowHalfOpen: true });
      clients.push(client);
      client.setNoDelay(true);
      await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject));
      return client;
    },
  };
}

describe('PROXY protocol in', () => {
  for (const [name, header, source, destination] of [
    [
      'v1',
      Buffer.from('PROXY TCP4 203.0.113.9 198.51.100.1 1234 443\r\n'),
      '203.0.113.9 1234',
      '198.51.100.1 443',
    ],
    ['v2', Buffer.from(V2_TCP4, 'hex'), '192.0.2.7 40000', '198.51.100.1 443'],
    [
      'IPv6 over an IPv4 connection',
      Buffer.from('PROXY TCP6 2001:db8::9 2001:db8::1 1234 443\r\n'),
      '2001:db8::9 1234',
      '2001:db8::1 443',
    ],
  ] as const) {
    test(`${name}: the flow is what the header says, byte by byte`, async (t) => {
      const { lab, dial } = await rig(t, { proxyProtocol: TRUSTING });
      const client = await dial();
      const reception = receive(client);
      for (const byte of header) {
        client.write(Buffer.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      client.write('payload');
      await eventually(() => [...lab.manager.table.all()][0]?.state === 'established', 5000, 'the flow');
      const [flow] = lab.manager.table.all();
      assert.ok(flow !== undefined);
      const { tuple } = flow;
      assert.equal(`${tuple.source.text} ${tuple.sourcePort}`, source);
      assert.equal(`${tuple.destination.text} ${tuple.destinationPort}`, destination);
      client.end();
      assert.equal((await within(reception, 5000, 'the answer')).text, 'payload');
      assert.deepEqual(lab.drops(), {});
    });
  }

  test('payload that comes with the header is not lost', async (t) => {
    const { dial } = await rig(t, { proxyProtocol: TRUSTING });
    const client = await dial();
    client.end('PROXY TCP4 203.0.113.9 198.51.100.1 1234 443\r\nall at once');
    assert.equal((await within(receive(client), 5000, 'the answer')).text, 'all at once');
  });

  test('UNKNOWN and LOCAL leave the connection’s own addresses', async (t) => {
    const { lab, dial } = await rig(t, { proxyProtocol: TRUSTING });
    for (const header of [
      Buffer.from('PROXY UNKNOWN\r\n'),
      Buffer.from('0d0a0d0a000d0a515549540a20000000', 'hex'),
    ]) {
      const client = await dial();
      client.write(header);
      await eventually(() => [...lab.manager.table.all()][0]?.state === 'established', 5000, 'the flow');
      const [flow] = lab.manager.table.all();
      assert.ok(flow !== undefined);
      assert.equal(flow.tuple.source.text, '127.0.0.1');
      assert.equal(flow.tuple.sourcePort, client.localPort);
      assert.equal(flow.tuple.destinationPort, lab.port);
      client.resetAndDestroy();
      await eventually(() => lab.flowCount === 0, 5000, 'the flow to end');
    }
  });

  test('a source that is not trusted is served as it is', async (t) => {
    const { dial } = await rig(t, { proxyProtocol: TRUSTING });
    const client = await dial('127.0.0.50');
    const header = 'PROXY TCP4 203.0.113.9 198.51.100.1 1234 443\r\n';
    client.end(header);
    assert.equal((await within(receive(client), 5000, 'the answer')).text, header);
  });

  for (const [name, send] of [
    ['malformed', (client: Socket) => client.write('GET / HTTP/1.1\r\n\r\n')],
    ['slow', (client: Socket) => client.write('PROXY TCP4 203.0.')],
    ['missing', () => undefined],
    ['cut off by FIN', (client: Socket) => client.end('PROXY TCP4 203.0.')],
  ] as const) {
    test(`a header that is ${name} is answered with RST and counted`, async (t) => {
      const { lab, dial } = await rig(t, { proxyProtocol: TRUSTING });
      const client = await dial();
      const reception = receive(client);
      send(client);
      assert.equal((await within(reception, 5000, 'RST')).end, 'reset');
      assert.deepEqual(lab.drops(), { 'bad-proxy-header': 1 });
      assert.equal(lab.flowCount, 0);
    });
  }

  test('only the accepted version passes', async (t) => {
    const { lab, dial } = await rig(t, { proxyProtocol: { ...TRUSTING, accept: 'v2' } });
    const client = await dial();
    const reception = receive(client);
    client.write('PROXY TCP4 203.0.113.9 198.51.100.1 1234 443\r\n');
    assert.equal((await within(reception, 5000, 'RST')).end, 'reset');
    assert.deepEqual(lab.drops(), { 'bad-proxy-header': 1 });
  });

  test('the allow and deny lists go by the address in the header', async (t) => {
    const { lab, dial } = await rig(t, {
      proxyProtocol: TRUSTING,
      allow: [block('203.0.113.0', 24)],
    });
    const welcome = await dial();
    welcome.end('PROXY TCP4 203.0.113.9 198.51.100.1 1234 443\r\nhello');
    assert.equal((await within(receive(welcome), 5000, 'the answer')).text, 'hello');
    const stranger = await dial();
    const reception = receive(stranger);
    stranger.end('PROXY TCP4 192.0.2.9 198.51.100.1 1234 443\r\nhello');
    assert.equal((await within(reception, 5000, 'RST')).end, 'reset');
    assert.deepEqual(lab.drops(), { denied: 1 });
  });

  test('caps per source go by the address in the header', async (t) => {
    const { lab, dial } = await rig(t, { proxyProtocol: TRUSTING });
    const state = testState({
      backends: [BACKEND],
      frontend: { proxyProtocol: TRUSTING },
      limits: { tcpFlowsPerSource: 1 },
    });
    lab.manager.apply(state);
    const header = (source: string): string => `PROXY TCP4 ${source} 198.51.100.1 1234 443\r\n`;
    const first = await dial();
    first.write(header('203.0.113.9'));
    await eventually(() => lab.manager.table.use('tcp').used === 1, 5000, 'the first');
    const other = await dial();
    other.write(header('203.0.113.10'));
    await eventually(() => lab.manager.table.use('tcp').used === 2, 5000, 'another source');
    const second = await dial();
    const reception = receive(second);
    second.write(header('203.0.113.9'));
    assert.equal((await within(reception, 5000, 'RST')).end, 'reset');
    assert.deepEqual(lab.drops(), { 'source-cap': 1 });
  });
});

describe('PROXY protocol out', () => {
  test('v1 and v2 name the client and the frontend, ahead of the stream', async (t) => {
    for (const version of ['v1', 'v2'] as const) {
      const { lab, dial } = await rig(t, {}, { proxyProtocol: version });
      const client = await dial('127.0.0.60');
      const { localPort } = client;
      assert.ok(localPort !== undefined);
      client.end('payload');
      const { text } = await within(receive(client), 5000, 'what the backend got');
      const ports = Buffer.alloc(4);
      ports.writeUInt16BE(localPort, 0);
      ports.writeUInt16BE(lab.port, 2);
      const expected =
        version === 'v1'
          ? `PROXY TCP4 127.0.0.60 127.0.0.1 ${localPort} ${lab.port}\r\npayload`
          : `${Buffer.from('0d0a0d0a000d0a515549540a2111000c7f00003c7f000001', 'hex').toString('latin1')}${ports.toString('latin1')}payload`;
      assert.equal(text, expected);
    }
  });

  test('carries on what came in', async (t) => {
    const { dial } = await rig(t, { proxyProtocol: TRUSTING }, { proxyProtocol: 'v1' });
    const client = await dial();
    client.end(Buffer.concat([Buffer.from(V2_TCP4, 'hex'), Buffer.from('payload')]));
    const { text } = await within(receive(client), 5000, 'what the backend got');
    assert.equal(text, 'PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\npayload');
  });
});
