import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { AdminServer } from '../../../src/admin/server.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { systemSocketFiles } from '../../../src/runtime/files.js';
import { within } from '../../support/deadline.js';
import { adminLab, ask, askRaw, folder, LOOPBACK, problemOf } from './admin-lab.js';
import { FakeOperations } from './fake-operations.js';

const TOKEN = 'correct-horse-battery';
const WEIGHT = '/v1/backends/nvas/nva-1/weight';
const write = { method: 'PUT', body: { weight: 1 } };

describe('AdminServer', () => {
  test('serves the same on the socket and over http', async (t) => {
    const { port, socketPath } = await adminLab(t);
    const answers = [await ask({ port }, '/v1/status'), await ask({ socketPath }, '/v1/status')];
    assert.equal(answers[0]?.status, 200);
    assert.equal(answers[0].text, answers[1]?.text);
  });

  test('only the owner may use the socket', async (t) => {
    const { socketPath } = await adminLab(t);
    const stats = lstatSync(socketPath);
    assert.ok(stats.isSocket());
    assert.equal(stats.mode & 0o7777, 0o600);
  });

  test('serves the dashboard', async (t) => {
    const { port } = await adminLab(t);
    const { status, headers } = await ask({ port }, '/');
    assert.equal(status, 200);
    assert.match(String(headers['content-type']), /^text\/html/);
    assert.match(String(headers['content-security-policy']), /script-src 'self'; .*frame-ancestors 'none'/);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['cache-control'], 'no-cache');
  });

  test('every answer has headers that keep browsers from doing harm', async (t) => {
    const { port, socketPath } = await adminLab(t, { listen: { token: TOKEN } });
    const answers = [
      await ask({ socketPath }, '/v1/status'),
      await ask({ socketPath }, '/v1/none'),
      await ask({ socketPath }, '/v1/status', { method: 'PATCH' }),
      await ask({ socketPath }, '/v1/flows?limit=x'),
      await ask({ port }, '/v1/status'),
      await ask({ port }, '/v1/status', { headers: { host: '[' } }),
    ];
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 404, 405, 400, 401, 400],
    );
    for (const { headers, status } of answers) {
      assert.equal(headers['content-security-policy'], "default-src 'none'; frame-ancestors 'none'");
      assert.equal(headers['x-content-type-options'], 'nosniff', String(status));
      assert.equal(headers['cache-control'], 'no-store');
      assert.equal(headers['x-frame-options'], 'DENY');
      assert.equal(headers['access-control-allow-origin'], undefined);
    }
  });
});

describe('AdminServer over http', () => {
  test('refuses names in Host: DNS rebinding', async (t) => {
    const { port, fake } = await adminLab(t);
    for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1.nip.example']) {
      for (const [path, options] of [
        ['/v1/status', {}],
        ['/', {}],
        [WEIGHT, write],
      ] as const) {
        const answer = await ask({ port }, path, { ...options, headers: { host } });
        assert.deepEqual(problemOf(answer), [403, 'LB_FORBIDDEN'], `${host} ${path}`);
      }
    }
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, '[::1]']) {
      assert.equal((await ask({ port }, '/v1/status', { headers: { host } })).status, 200, host);
    }
    const absolute = await askRaw(
      port,
      'GET http://127.0.0.1/v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n',
    );
    assert.match(absolute, /^HTTP\/1\.1 403 /);
    assert.ok(!fake.calls.some(([name]) => name === 'setWeight'));
  });

  test('refuses writes of other sites', async (t) => {
    const { port, fake } = await adminLab(t);
    const own = `http://127.0.0.1:${port}`;
    for (const headers of [
      { origin: 'http://evil.example' },
      { origin: 'null' },
      { origin: `http://127.0.0.1:${port + 1}` },
      { 'sec-fetch-site': 'cross-site' },
      { origin: own, 'sec-fetch-site': 'same-site' },
    ]) {
      const answer = await ask({ port }, WEIGHT, { ...write, headers });
      assert.deepEqual(problemOf(answer), [403, 'LB_FORBIDDEN'], JSON.stringify(headers));
    }
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) {
      const answer = await ask({ port }, WEIGHT, { ...write, headers: { 'content-type': type } });
      assert.deepEqual(problemOf(answer), [400, 'LB_USAGE'], type);
    }
    assert.deepEqual(fake.calls, []);
    const headers = { origin: own, 'sec-fetch-site': 'same-origin' };
    assert.equal((await ask({ port }, WEIGHT, { ...write, headers })).status, 204);
  });

  test('with a token: nothing but the dashboard without it', async (t) => {
    const { port, socketPath, fake } = await adminLab(t, { listen: { token: TOKEN } });
    for (const authorization of [undefined, 'Bearer wrong-wrong-wrong-wrong', `Basic ${TOKEN}`]) {
      const headers = authorization === undefined ? {} : { authorization };
      for (const path of ['/v1/status', '/v1/events', '/v1/openapi.json', '/none']) {
        const answer = await ask({ port }, path, { headers });
        assert.deepEqual(problemOf(answer), [401, 'LB_UNAUTHORIZED'], path);
        assert.match(String(answer.headers['www-authenticate']), /^Bearer/);
      }
      assert.deepEqual(problemOf(await ask({ port }, WEIGHT, { ...write, headers })), [
        401,
        'LB_UNAUTHORIZED',
      ]);
      assert.equal((await ask({ port }, '/', { headers })).status, 200);
    }
    assert.deepEqual(fake.calls, []);
    const headers = { authorization: `Bearer ${TOKEN}`, host: 'lb1.example' };
    assert.equal((await ask({ port }, '/v1/status', { headers })).status, 200);
    // The socket has its mode.
    assert.equal((await ask({ socketPath }, '/v1/status')).status, 200);
    assert.equal((await ask({ socketPath }, WEIGHT, write)).status, 204);
  });

  test('names and origins are of no meaning on the socket', async (t) => {
    const { socketPath } = await adminLab(t);
    for (const host of ['evil.example', 'a b', '[', '']) {
      assert.equal((await ask({ socketPath }, '/v1/status', { headers: { host } })).status, 200, host);
    }
  });
});

describe('AdminServer against strange requests', () => {
  const MIB = 1024 * 1024;

  test('a body over 4 MiB is refused, with and without its length told', async (t) => {
    const { port, socketPath, fake } = await adminLab(t);
    const body = 'x'.repeat(4 * MIB + 1);
    for (const target of [{ port }, { socketPath }]) {
      const answer = await ask(target, '/v1/plan', { method: 'POST', body });
      assert.deepEqual(problemOf(answer), [413, 'LB_TOO_LARGE']);
      const chunked = await ask(target, '/v1/plan', {
        method: 'POST',
        body,
        headers: { 'transfer-encoding': 'chunked' },
      });
      assert.deepEqual(problemOf(chunked), [413, 'LB_TOO_LARGE']);
    }
    assert.deepEqual(fake.calls, []);
    const fits = await ask({ port }, '/v1/plan', { method: 'POST', body: 'x'.repeat(4 * MIB) });
    assert.equal(fits.status, 200);
  });

  test('a body that is told to be huge is refused before it comes', async (t) => {
    const { port } = await adminLab(t);
    const head = `POST /v1/plan HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n`;
    assert.match(await within(askRaw(port, head), 5000, 'an end'), /^HTTP\/1\.1 413 /);
  });

  test('garbage, huge headers and odd targets get an error and the server lives on', async (t) => {
    const { port } = await adminLab(t);
    const close = 'Host: 127.0.0.1\r\nConnection: close\r\n';
    assert.match(await askRaw(port, '\x16\x03\x01garbage\r\n\r\n'), /^HTTP\/1\.1 400 /);
    const long = `GET /v1/status HTTP/1.1\r\n${close}X-Long: ${'a'.repeat(20_000)}\r\n\r\n`;
    assert.match(await askRaw(port, long), /^HTTP\/1\.1 431 /);
    for (const target of ['//[', '*', '/\\x', 'http://[/', '/v1/pools/%', '/v1/pools/%ff', '/v1/pools/%00']) {
      const answer = await askRaw(port, `GET ${target} HTTP/1.1\r\n${close}\r\n`);
      assert.match(answer, /^HTTP\/1\.1 4\d\d /, target);
    }
    assert.match(
      await askRaw(port, `GET /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n`),
      /^HTTP\/1\.1 400 /,
    );
    assert.equal((await ask({ port }, '/v1/status')).status, 200);
  });

  test('a request that never ends is ended', async (t) => {
    const { port } = await adminLab(t, { requestTimeoutMs: 200 });
    const head = 'POST /v1/plan HTTP/1.1\r\nHost: 127.0.0.1\r\n';
    const startedMs = performance.now();
    const body = 'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{';
    for (const bytes of [`${head}X-Slow:`, `${head}${body}`]) {
      assert.match(await askRaw(port, bytes), /^HTTP\/1\.1 408 /);
    }
    assert.ok(performance.now() - startedMs < 8000);
  });

  test('connections over the cap are closed, and those on which nothing moves', async (t) => {
    const { port } = await adminLab(t, { maxConnections: 2, silenceTimeoutMs: 300 });
    const held = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
    t.after(() => held.forEach((socket) => socket.destroy()));
    await Promise.all(held.map((socket) => once(socket, 'connect')));
    assert.equal(await askRaw(port, 'GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'), '');
    held.forEach((socket) => socket.resume());
    await within(
      Promise.all(held.map((socket) => new Promise((resolve) => socket.once('close', resolve)))),
      3000,
      'the end of silent connections',
    );
    assert.equal((await ask({ port }, '/v1/status')).status, 200);
  });
});

describe('AdminServer over https', () => {
  const pair = makePair();

  test('needs TLS and the token', { skip: pair === undefined && 'openssl is not installed' }, async (t) => {
    const { port } = await adminLab(t, { listen: { tls: pair!, token: TOKEN } });
    const get = async (headers: Record<string, string>) => {
      const outgoing = httpsRequest({
        host: '127.0.0.1',
        port,
        path: '/v1/status',
        agent: false,
        ca: pair?.certificate,
        servername: 'lb1.example',
        headers,
      });
      outgoing.end();
      const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage];
      incoming.resume();
      return incoming.statusCode;
    };
    assert.equal(await get({}), 401);
    const headers = { authorization: `Bearer ${TOKEN}`, host: 'lb1.example' };
    assert.equal(await get(headers), 200);
    assert.equal(await get({ ...headers, origin: 'https://lb1.example' }), 200);
    const plain = httpRequest({ host: '127.0.0.1', port, agent: false });
    plain.end();
    await assert.rejects(once(plain, 'response'));
  });

  test('start() rejects where certificate and key cannot be used', async (t) => {
    const server = makeServer({ http: LOOPBACK, tls: { certificate: 'x', key: 'y' }, token: TOKEN });
    t.after(() => server.stop());
    await assert.rejects(server.start(), { code: 'LB_LISTEN_FAILED' });
  });
});

describe('AdminServer life cycle', () => {
  test('start() rejects where the port is taken, and leaves no socket behind', async (t) => {
    const { port } = await adminLab(t);
    const path = join(folder(t), 'second.sock');
    const second = makeServer({ socket: path, http: { ...LOOPBACK, port } });
    await assert.rejects(second.start(), {
      code: 'LB_LISTEN_FAILED',
      message: `Cannot listen for the admin API on 127.0.0.1:${port} (EADDRINUSE): "admin.http" must be a free address and port of this machine`,
    });
    assert.deepEqual(readdirSync(dirname(path)), []);
  });

  test('start() rejects where another process answers on the socket, which goes on', async (t) => {
    const { socketPath } = await adminLab(t);
    const second = makeServer({ socket: socketPath });
    await assert.rejects(second.start(), { code: 'LB_LISTEN_FAILED', message: /another process answers/ });
    assert.equal((await ask({ socketPath }, '/v1/status')).status, 200);
  });

  test('takeOver: a successor gets the socket, and the old one does not take it away', async (t) => {
    const { socketPath, server } = await adminLab(t);
    const second = makeServer({ socket: socketPath }, { takeOver: true });
    t.after(() => second.stop());
    await second.start();
    await server.stop();
    assert.equal((await ask({ socketPath }, '/v1/status')).status, 200);
    await second.stop();
    assert.ok(!existsSync(socketPath));
  });

  test('start() works with a socket alone, and has no port then', async (t) => {
    const path = join(folder(t), 'admin.sock');
    const server = makeServer({ socket: path });
    t.after(() => server.stop());
    assert.deepEqual(await server.start(), {});
  });

  test('stop() ends idle and silent connections, removes the socket and frees the port', async (t) => {
    const { port, server, socketPath } = await adminLab(t);
    const silent = [connect(port, '127.0.0.1'), connect({ path: socketPath })];
    for (const socket of silent) socket.on('error', () => undefined).resume();
    await Promise.all(silent.map((socket) => once(socket, 'connect')));
    await ask({ port }, '/v1/status');
    const closed = silent.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
    await within(Promise.all([server.stop(), server.stop(), ...closed]), 4000, 'the end of the server');
    await assert.rejects(ask({ port }, '/v1/status'), { code: 'ECONNREFUSED' });
    assert.ok(!existsSync(socketPath));
  });
});

function makeServer(
  listen: ConstructorParameters<typeof AdminServer>[1]['listen'],
  more: { readonly takeOver?: boolean } = {},
): AdminServer {
  const fake = new FakeOperations();
  return new AdminServer(
    {
      operations: fake.with(),
      events: fake.events,
      clock: systemClock,
      onEvent: () => undefined,
      files: systemSocketFiles,
    },
    { listen, ...more },
  );
}

/** A self-signed certificate of lb1.example and its key. Undefined without openssl. */
function makePair(): { readonly certificate: string; readonly key: string } | undefined {
  const path = mkdtempSync(join(tmpdir(), 'haports-admin-'));
  try {
    const [key, certificate] = [join(path, 'key.pem'), join(path, 'certificate.pem')];
    const words =
      'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=lb1.example -addext subjectAltName=DNS:lb1.example';
    execFileSync('openssl', [...words.split(' '), '-keyout', key, '-out', certificate], { stdio: 'pipe' });
    return { key: readFileSync(key, 'utf8'), certificate: readFileSync(certificate, 'utf8') };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  } finally {
    rmSync(path, { recursive: true });
  }
}
