import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer as createPlainServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { createServer, type TLSSocket } from 'node:tls';
import type { HttpProbe } from '../../../src/model/configuration.js';
import { tlsServerName } from '../../../src/health/probes.js';
import { ask, httpProbe } from './probe-fixtures.js';
import { bind, listen } from './loopback-server.js';

interface Certificate {
  readonly key: string;
  readonly cert: string;
}

/** A self-signed certificate of `app.example`, and of 127.0.0.1 if `names` says so. Undefined without openssl. */
function makeCertificate(names: string): Certificate | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'haports-probe-'));
  try {
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
    const request =
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test';
    execFileSync(
      'openssl',
      [...request.split(' '), '-addext', `subjectAltName=${names}`, '-keyout', key, '-out', cert],
      {
        stdio: 'pipe',
      },
    );
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const byName = makeCertificate('DNS:app.example');
const byAddress = makeCertificate('IP:127.0.0.1');
const skip = byName === undefined || byAddress === undefined ? 'openssl is not installed' : false;

async function serve(t: TestContext, certificate: Certificate | undefined) {
  assert.ok(certificate);
  const names: (string | false | null)[] = [];
  const requests: string[] = [];
  const open = new Set<TLSSocket>();
  const server = createServer({ ...certificate }, (socket) => {
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

describe('probeHttp() over TLS', { skip }, () => {
  test('trusts its CA and checks the server name, apart from the address', async (t) => {
    const { port, names } = await serve(t, byName);
    const probe = httpsProbe({ port, ca: byName?.cert ?? '', serverName: 'app.example' });
    assert.equal((await ask(probe)).evidence, 'HTTP 200');
    assert.deepEqual(names, ['app.example']);
  });

  test('takes the server name from host, and sends host as it is', async (t) => {
    const { port, names, requests } = await serve(t, byName);
    const probe = httpsProbe({ port, ca: byName?.cert ?? '', host: 'app.example:6443' });
    assert.equal((await ask(probe)).evidence, 'HTTP 200');
    assert.deepEqual(names, ['app.example']);
    assert.match(requests[0] ?? '', /\r\nHost: app.example:6443\r\n/);
  });

  test('lets server name and Host differ', async (t) => {
    const { port, names, requests } = await serve(t, byName);
    const ca = byName?.cert ?? '';
    await ask(httpsProbe({ port, ca, serverName: 'app.example', host: 'other.example' }));
    assert.deepEqual(names, ['app.example']);
    assert.match(requests[0] ?? '', /\r\nHost: other.example\r\n/);
  });

  test('checks the address in the certificate where there is no name, and sends none', async (t) => {
    const { port, names } = await serve(t, byAddress);
    assert.equal((await ask(httpsProbe({ port, ca: byAddress?.cert ?? '' }))).evidence, 'HTTP 200');
    assert.deepEqual(names, [false]);
  });

  test('refuses a certificate of another address', async (t) => {
    const { port } = await serve(t, byName);
    const { verdict, answer, evidence } = await ask(httpsProbe({ port, ca: byName?.cert ?? '' }));
    assert.deepEqual(
      [verdict, answer, evidence],
      ['failure', 'explicit', 'TLS ERR_TLS_CERT_ALTNAME_INVALID'],
    );
  });

  test('refuses a certificate of an unknown CA', async (t) => {
    const { port } = await serve(t, byName);
    const { answer, evidence } = await ask(httpsProbe({ port, serverName: 'app.example' }));
    assert.deepEqual([answer, evidence], ['explicit', 'TLS DEPTH_ZERO_SELF_SIGNED_CERT']);
  });

  test('trusts nobody if its CA is no certificate', async (t) => {
    const { port } = await serve(t, byName);
    const { verdict, evidence } = await ask(httpsProbe({ port, ca: 'no PEM', serverName: 'app.example' }));
    assert.deepEqual([verdict, evidence], ['failure', 'TLS DEPTH_ZERO_SELF_SIGNED_CERT']);
  });

  test('takes any certificate with skipVerify', async (t) => {
    const { port } = await serve(t, byName);
    assert.equal((await ask(httpsProbe({ port, skipVerify: true }))).evidence, 'HTTP 200');
  });

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

describe('probeHttp() over TLS to what is no TLS server', () => {
  test('takes other bytes as an explicit failure', async (t) => {
    const server = await listen(t, (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    const { answer, evidence } = await ask(httpsProbe({ port: server.port }));
    assert.equal(answer, 'explicit');
    assert.match(evidence, /^TLS ERR_SSL_\w+$/);
    await server.over(1);
  });

  test('takes a close in mid-handshake as silence', async (t) => {
    const server = await listen(t, (socket) => socket.end());
    const { answer, evidence } = await ask(httpsProbe({ port: server.port }));
    assert.deepEqual([answer, evidence], ['silence', 'ECONNRESET']);
  });

  test('gives up at its timeout on a handshake without an answer', async (t) => {
    const server = await listen(t, () => undefined);
    const { answer, evidence } = await ask(httpsProbe({ port: server.port, timeoutMs: 150 }));
    assert.deepEqual([answer, evidence], ['silence', 'no answer in 150ms']);
    await server.over(1);
  });
});

test('tlsServerName() is the name given, or the host without port, never an address', () => {
  const cases = [
    [{ serverName: 'a.example', host: 'b.example' }, 'a.example'],
    [{ host: 'b.example' }, 'b.example'],
    [{ host: 'b.example:8443' }, 'b.example'],
    [{ host: '10.0.0.1' }, undefined],
    [{ host: '10.0.0.1:443' }, undefined],
    [{ host: '[::1]:443' }, undefined],
    [{ host: '::1' }, undefined],
    [{}, undefined],
  ] as const;
  for (const [fields, name] of cases) assert.equal(tlsServerName(httpsProbe(fields)), name);
});
