import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { AdminServer } from '../../../src/admin/server.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { systemSocketFiles } from '../../../src/runtime/files.js';
import { within } from '../../support/deadline.js';
import { ask } from '../../support/admin-api.js';
import { adminLab, askRaw, folder, LOOPBACK, problemOf } from './admin-lab.js';
import { FakeOperations } from './fake-operations.js';

const TOKEN = 'correct-horse-battery';
const WEIGHT = '/v1/backends/nvas/nva-1/weight';
const write = { method: 'PUT', body: { weight: 1 } };

// What is bounded in requests and connections is in http-server.test.ts, whom the guard refuses in request-guard.test.ts.
describe('AdminServer', () => {
  test('serves the same on the socket, whose mode is 0600, and over http', async (t) => {
    const { port, socketPath } = await adminLab(t);
    const answers = [await ask({ port }, '/v1/status'), await ask({ socketPath }, '/v1/status')];
    assert.equal(answers[0]?.status, 200);
    assert.equal(answers[0].text, answers[1]?.text);
    const stats = lstatSync(socketPath);
    assert.ok(stats.isSocket());
    assert.equal(stats.mode & 0o7777, 0o600);
  });

  test('serves the dashboard with a policy of its own', async (t) => {
    const { port } = await adminLab(t);
    const { status, headers } = await ask({ port }, '/');
    assert.equal(status, 200);
    assert.match(String(headers['content-type']), /^text\/html/);
    assert.match(String(headers['content-security-policy']), /script-src 'self'; .*frame-ancestors 'none'/);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['cache-control'], 'no-cache');
  });

  test('guards the address without a token: names in Host, other origins, forms', async (t) => {
    const { port, fake } = await adminLab(t);
    const refused = [
      { host: `evil.example:${port}` },
      { origin: 'http://evil.example' },
      { 'sec-fetch-site': 'cross-site' },
      { 'content-type': 'text/plain' },
    ];
    for (const headers of refused) {
      const answer = await ask({ port }, WEIGHT, { ...write, headers });
      const expected = 'content-type' in headers ? [400, 'LB_USAGE'] : [403, 'LB_FORBIDDEN'];
      assert.deepEqual(problemOf(answer), expected, JSON.stringify(headers));
    }
    const named = { headers: { host: 'evil.example' } };
    assert.deepEqual(problemOf(await ask({ port }, '/', named)), [403, 'LB_FORBIDDEN']);
    const absolute =
      'GET http://127.0.0.1/v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n';
    assert.match(await askRaw(port, absolute), /^HTTP\/1\.1 403 /);
    assert.deepEqual(fake.calls, []);
    const headers = { origin: `http://127.0.0.1:${port}`, 'sec-fetch-site': 'same-origin' };
    assert.equal((await ask({ port }, WEIGHT, { ...write, headers })).status, 204);
  });

  test('guards the address with a token: nothing but the dashboard without it', async (t) => {
    const { port, socketPath, fake } = await adminLab(t, { listen: { token: TOKEN } });
    for (const headers of [{}, { authorization: 'Bearer wrong-wrong-wrong-wrong' }]) {
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
    assert.equal((await ask({ socketPath }, WEIGHT, write)).status, 204);
  });

  test('names and origins are of no meaning on the socket', async (t) => {
    const { socketPath } = await adminLab(t);
    for (const host of ['evil.example', 'a b', '[', '']) {
      const headers = { host, origin: 'http://evil.example' };
      assert.equal((await ask({ socketPath }, WEIGHT, { ...write, headers })).status, 204, host);
    }
  });

  test('a body over 4 MiB is refused, with and without its length told', async (t) => {
    const { port, fake } = await adminLab(t);
    const limit = 4 * 1024 * 1024;
    for (const encoding of [undefined, 'chunked']) {
      const headers = encoding === undefined ? {} : { 'transfer-encoding': encoding };
      const asked = { method: 'POST', body: 'x'.repeat(limit + 1), headers };
      assert.deepEqual(problemOf(await ask({ port }, '/v1/plan', asked)), [413, 'LB_TOO_LARGE']);
    }
    const head = `POST /v1/plan HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n`;
    assert.match(await within(askRaw(port, head), 5000, 'a refusal before the body'), /^HTTP\/1\.1 413 /);
    assert.deepEqual(fake.calls, []);
    const fits = await ask({ port }, '/v1/plan', { method: 'POST', body: 'x'.repeat(limit) });
    assert.equal(fits.status, 200);
  });

  test('odd targets get an error', async (t) => {
    const { port } = await adminLab(t);
    for (const target of ['/\\x', '/v1/pools/%', '/v1/pools/%ff', '/v1/pools/%00']) {
      const head = `GET ${target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n`;
      assert.match(await askRaw(port, head), /^HTTP\/1\.1 4\d\d /, target);
    }
  });
});

describe('AdminServer life cycle', () => {
  test('start() rejects where the port is taken, and leaves no socket behind', async (t) => {
    const { port } = await adminLab(t);
    const path = join(folder(t), 'second.sock');
    const second = makeServer({ socket: path, http: { ...LOOPBACK, port } });
    await assert.rejects(second.start(), {
      code: 'LB_LISTEN_FAILED',
      message: /"admin\.http" must be a free/,
    });
    assert.deepEqual(readdirSync(dirname(path)), []);
  });

  test('takeOver: a successor gets the socket, and the old one does not take it away', async (t) => {
    const { socketPath, server } = await adminLab(t);
    await assert.rejects(makeServer({ socket: socketPath }).start(), { message: /another process answers/ });
    const second = makeServer({ socket: socketPath }, { takeOver: true });
    t.after(() => second.stop());
    assert.deepEqual(await second.start(), {}, 'a socket alone has no port');
    await server.stop();
    assert.equal((await ask({ socketPath }, '/v1/status')).status, 200);
    await second.stop();
    assert.ok(!existsSync(socketPath));
  });

  test('stop() ends silent connections on both, removes the socket and frees the port', async (t) => {
    const { port, server, socketPath } = await adminLab(t);
    const silent = [connect(port, '127.0.0.1'), connect({ path: socketPath })];
    for (const socket of silent) socket.on('error', () => undefined).resume();
    await Promise.all(silent.map((socket) => once(socket, 'connect')));
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
