import assert from 'node:assert/strict';
import { createServer as createPlainServer, type Socket } from 'node:net';
import { describe, test, type TestContext } from 'node:test';
import { createServer, type TLSSocket } from 'node:tls';
import type { HttpProbe } from '../../../src/model/configuration.js';
import { tlsServerName } from '../../../src/health/probes.js';
import { makePair, type Pair } from '../../support/certificate.js';
import { ask, httpProbe, outcome } from './probe-fixtures.js';
import { bind, listen } from './loopback-server.js';

const byName = makePair('DNS:app.example');
const byAddress = makePair('IP:127.0.0.1');
const skip = byName === undefined || byAddress === undefined ? 'openssl is not installed' : false;

async function serve(t: TestContext, pair: Pair | undefined) {
  assert.ok(pair);
  const names: (string | false | null)[] = [];
  const requests: string[] = [];
  const open = new Set<TLSSocket>();
  const server = createServer({ key: pair.key, cert: pair.certificate }, (socket) => {
    names.push(socket.servername);
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      requests.push(chunk.toString('latin1'));
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK');
    });
  });
  server.on('tlsClientError', () => undefined);
  const port = await bind(server);
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return { port, names, requests, open };
}

function httpsProbe(fields: Partial<HttpProbe>): HttpProbe {
  return httpProbe({ protocol: 'https', expectBody: 'OK', ...fields });
}

const ca = byName?.certificate ?? '';
const TAKEN = 'success explicit HTTP 200';
const UNKNOWN_CA = 'failure explicit TLS DEPTH_ZERO_SELF_SIGNED_CERT';
/** `names`: server names that came; `host`: the Host header that came. */
type Expected = readonly [outcome: string, names?: readonly (string | false)[], host?: string];

describe('HTTPS probe', { skip }, () => {
  const cases: readonly (readonly [does: string, 'name' | 'address', Partial<HttpProbe>, ...Expected])[] = [
    [
      'trusts its CA and checks the server name, apart from the address',
      'name',
      { ca, serverName: 'app.example' },
      TAKEN,
      ['app.example'],
    ],
    [
      'takes the server name from host, and sends host as it is',
      'name',
      { ca, host: 'app.example:6443' },
      TAKEN,
      ['app.example'],
      'app.example:6443',
    ],
    [
      'lets server name and Host differ',
      'name',
      { ca, serverName: 'app.example', host: 'other.example' },
      TAKEN,
      ['app.example'],
      'other.example',
    ],
    [
      'checks the address where there is no name, and sends none',
      'address',
      { ca: byAddress?.certificate ?? '' },
      TAKEN,
      [false],
    ],
    [
      'refuses a certificate of another address',
      'name',
      { ca },
      'failure explicit TLS ERR_TLS_CERT_ALTNAME_INVALID',
    ],
    ['refuses a certificate of an unknown CA', 'name', { serverName: 'app.example' }, UNKNOWN_CA],
    [
      'trusts none if its CA is no certificate',
      'name',
      { ca: 'no PEM', serverName: 'app.example' },
      UNKNOWN_CA,
    ],
    ['takes any certificate with skipVerify', 'name', { skipVerify: true }, TAKEN],
  ];
  for (const [does, certificate, fields, expected, expectedNames, host] of cases) {
    test(does, async (t) => {
      const { port, names, requests } = await serve(t, certificate === 'name' ? byName : byAddress);
      assert.equal(await outcome(httpsProbe({ port, ...fields })), expected);
      if (expectedNames !== undefined) assert.deepEqual(names, expectedNames);
      if (host !== undefined) assert.ok(requests[0]?.includes(`\r\nHost: ${host}\r\n`), requests[0]);
    });
  }

  test('sends the PROXY header before the handshake', async (t) => {
    const { port, open } = await serve(t, byName);
    // A relay that takes off what comes before the ClientHello, as a server that expects the header does.
    let before = '';
    const relay = createPlainServer((socket) => {
      socket.once('data', (chunk) => {
        before = chunk.subarray(0, 15).toString('latin1');
        socket.end();
      });
    });
    const relayPort = await bind(relay);
    t.after(() => relay.close());
    await ask(httpsProbe({ port: relayPort, sendProxy: 'v1', skipVerify: true }));
    assert.equal(before, 'PROXY UNKNOWN\r\n');
    assert.equal((await ask(httpsProbe({ port, sendProxy: 'v1', skipVerify: true }))).verdict, 'failure');
    assert.equal(open.size, 0);
  });
});

describe('HTTPS probe of what is no TLS server', () => {
  const cases: readonly (readonly [what: string, serve: (socket: Socket) => unknown, outcome: RegExp])[] = [
    ['other bytes', (socket) => socket.end('HTTP/1.1 400 No\r\n\r\n'), /^failure explicit TLS ERR_SSL_\w+$/],
    ['a close in mid-handshake', (socket) => socket.end(), /^failure silence ECONNRESET$/],
    ['a handshake without an answer', () => undefined, /^failure silence no answer in 150ms$/],
  ];
  for (const [what, serve, expected] of cases) {
    test(`meets ${what}`, async (t) => {
      const server = await listen(t, serve);
      assert.match(await outcome(httpsProbe({ port: server.port, timeoutMs: 150 })), expected);
      await server.over(1);
    });
  }
});

test('tlsServerName() is the name given, or the host without port, never an address', () => {
  const names = ['a.example', 'b.example', 'b.example:8443', '10.0.0.1', '10.0.0.1:443', '[::1]:443', '::1'];
  assert.deepEqual(
    names.map((host) => tlsServerName(httpsProbe({ host }))),
    ['a.example', 'b.example', 'b.example', undefined, undefined, undefined, undefined],
  );
  assert.equal(tlsServerName(httpsProbe({ serverName: 'a.example', host: 'b.example' })), 'a.example');
  assert.equal(tlsServerName(httpsProbe({})), undefined);
});
