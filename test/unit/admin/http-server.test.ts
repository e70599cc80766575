import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, test, type TestContext } from 'node:test';
import {
  closeServer,
  createHttpServer,
  listenOn,
  type HttpServerOptions,
} from '../../../src/admin/http-server.js';
import { BalancerError } from '../../../src/model/errors.js';
import { within } from '../../support/deadline.js';
import { ask } from '../../support/admin-api.js';
import { makePair } from '../../support/certificate.js';
import { askRaw, LOOPBACK, problemOf } from './admin-lab.js';

const words = { purpose: 'tests', key: 'test.listen' };

/** Answers with the path, and fails below /fail. */
function answer({ url }: Request): Response {
  const { pathname } = new URL(url);
  if (!pathname.startsWith('/fail')) return new Response(pathname);
  throw pathname === '/fail/known'
    ? new BalancerError('There is none', { code: 'LB_NOT_FOUND', source: 'usage' })
    : new Error('secret');
}

async function serve(t: TestContext, options: HttpServerOptions = {}): Promise<number> {
  const server = createHttpServer(answer, options);
  t.after(() => closeServer(server));
  return listenOn(() => server, LOOPBACK, words);
}

const CLOSE = 'Host: 127.0.0.1\r\nConnection: close\r\n';

describe('createHttpServer()', () => {
  test('gives every answer headers that keep browsers from doing harm', async (t) => {
    const port = await serve(t);
    const answers = [
      await ask({ port }, '/x'),
      await ask({ port }, '/fail'),
      await ask({ port }, '/x', { headers: { host: '[' } }),
    ];
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 500, 400],
    );
    for (const { headers } of answers) {
      assert.equal(headers['content-security-policy'], "default-src 'none'; frame-ancestors 'none'");
      assert.equal(headers['x-content-type-options'], 'nosniff');
      assert.equal(headers['cache-control'], 'no-store');
      assert.equal(headers['x-frame-options'], 'DENY');
      assert.equal(headers['access-control-allow-origin'], undefined);
    }
  });

  test('makes problem documents of errors, without details of those that nobody expects', async (t) => {
    const port = await serve(t);
    assert.deepEqual(problemOf(await ask({ port }, '/fail/known')), [404, 'LB_NOT_FOUND']);
    const unexpected = await ask({ port }, '/fail/else');
    assert.deepEqual(problemOf(unexpected), [500, 'LB_INTERNAL']);
    assert.ok(!unexpected.text.includes('secret'));
  });

  test('garbage, huge headers and odd targets get an error and the server lives on', async (t) => {
    const port = await serve(t);
    assert.match(await askRaw(port, '\x16\x03\x01garbage\r\n\r\n'), /^HTTP\/1\.1 400 /);
    const long = `GET /x HTTP/1.1\r\n${CLOSE}X-Long: ${'a'.repeat(20_000)}\r\n\r\n`;
    assert.match(await askRaw(port, long), /^HTTP\/1\.1 431 /);
    for (const target of ['//[', '*', 'http://[/']) {
      assert.match(
        await askRaw(port, `GET ${target} HTTP/1.1\r\n${CLOSE}\r\n`),
        /^HTTP\/1\.1 [24]\d\d /,
        target,
      );
    }
    assert.match(await askRaw(port, 'GET /x HTTP/1.1\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 400 /);
    assert.equal((await ask({ port }, '/x')).status, 200);
  });

  test('maxHeaderBytes bounds the headers', async (t) => {
    const port = await serve(t, { maxHeaderBytes: 1000 });
    const long = `GET /x HTTP/1.1\r\n${CLOSE}X-Long: ${'a'.repeat(1000)}\r\n\r\n`;
    assert.match(await askRaw(port, long), /^HTTP\/1\.1 431 /);
  });

  test('ignoreHost: a strange Host has no effect, and an absolute target counts by its path', async (t) => {
    const port = await serve(t, { ignoreHost: true });
    for (const host of ['evil.example', 'a b', '/metrics', '@', 'x:99999', '[::', '[', '\u00ff', '']) {
      assert.equal((await ask({ port }, '/x', { headers: { host } })).text, '/x', JSON.stringify(host));
    }
    const absolute = await askRaw(port, `GET http://evil.example/x HTTP/1.1\r\n${CLOSE}\r\n`);
    assert.match(absolute, /^HTTP\/1\.1 200 [^]*\/x/);
  });

  test('a request that never ends is ended', async (t) => {
    const port = await serve(t, { requestTimeoutMs: 200 });
    const head = 'POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\n';
    const startedMs = performance.now();
    for (const rest of ['X-Slow:', 'Content-Length: 100\r\n\r\n{']) {
      assert.match(await within(askRaw(port, `${head}${rest}`), 5000, 'an end'), /^HTTP\/1\.1 (200|408) /);
    }
    assert.ok(performance.now() - startedMs < 8000);
  });

  test('connections over the cap are closed, and those on which nothing moves', async (t) => {
    const port = await serve(t, { maxConnections: 2, silenceTimeoutMs: 300 });
    const held = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
    t.after(() => held.forEach((socket) => socket.destroy()));
    await Promise.all(held.map((socket) => once(socket, 'connect')));
    assert.equal(await askRaw(port, 'GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'), '');
    held.forEach((socket) => socket.resume());
    await within(
      Promise.all(held.map((socket) => new Promise((resolve) => socket.once('close', resolve)))),
      3000,
      'the end of silent connections',
    );
    assert.equal((await ask({ port }, '/x')).status, 200);
  });

  const tls = makePair('IP:127.0.0.1');

  test('serves TLS alone with a certificate', { skip: !tls && 'openssl is not installed' }, async (t) => {
    const port = await serve(t, { tls: tls! });
    assert.equal((await ask({ port, ca: tls!.certificate }, '/x')).status, 200);
    await assert.rejects(ask({ port }, '/x'));
  });
});

describe('listenOn()', () => {
  test('rejects with LB_LISTEN_FAILED where it cannot listen, and says on what and by which key', async (t) => {
    const port = await serve(t);
    const listen = (address: typeof LOOPBACK, options: HttpServerOptions = {}) =>
      listenOn(() => createHttpServer(answer, options), address, words);
    await assert.rejects(listen({ ...LOOPBACK, port }), {
      code: 'LB_LISTEN_FAILED',
      message: `Cannot listen for tests on 127.0.0.1:${port} (EADDRINUSE): "test.listen" must be a free address and port of this machine`,
    });
    await assert.rejects(listen(LOOPBACK, { tls: { certificate: 'x', key: 'y' } }), {
      code: 'LB_LISTEN_FAILED',
    });
  });
});

describe('closeServer()', () => {
  test('ends idle and silent connections and frees the port', async () => {
    const server = createHttpServer(answer);
    const port = await listenOn(() => server, LOOPBACK, words);
    const silent = connect(port, '127.0.0.1')
      .on('error', () => undefined)
      .resume();
    await once(silent, 'connect');
    await ask({ port }, '/x');
    const closed = new Promise((resolve) => silent.once('close', resolve));
    await within(Promise.all([closeServer(server), closed]), 4000, 'the end of the server');
    await assert.rejects(ask({ port }, '/x'), { code: 'ECONNREFUSED' });
  });
});
