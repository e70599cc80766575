import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { describe, test, type TestContext } from 'node:test';
import {
  MetricsServer,
  type MetricsRoutesDependencies,
  type MetricsServerOptions,
  type Readiness,
} from '../../../src/admin/server.js';
import { ipAddress } from '../../../src/model/address.js';
import { systemClock } from '../../../src/runtime/clock.js';

const LOOPBACK = { address: ipAddress('127.0.0.1'), port: 0 };

function dependencies(changes: Partial<MetricsRoutesDependencies> = {}): MetricsRoutesDependencies {
  return {
    metrics: { render: () => Promise.resolve({ contentType: 'text/plain; version=0.0.4', body: 'up 1\n' }) },
    liveness: [
      { name: 'control loop', answer: () => Promise.resolve() },
      { name: 'data plane', answer: () => Promise.resolve() },
    ],
    readiness: () => ({ applied: true, openListeners: 1, stopping: false }),
    clock: systemClock,
    ...changes,
  };
}

async function serve(
  t: TestContext,
  changes: Partial<MetricsRoutesDependencies> = {},
  options: Partial<MetricsServerOptions> = {},
): Promise<number> {
  const server = new MetricsServer(dependencies(changes), { listen: LOOPBACK, ...options });
  const port = await server.start();
  t.after(() => server.stop());
  return port;
}

interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

async function ask(
  port: number,
  path: string,
  options: { method?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const outgoing = request({ host: '127.0.0.1', port, path, agent: false, ...options });
  outgoing.end();
  const [incoming] = (await once(outgoing, 'response')) as [IncomingMessage];
  let body = '';
  for await (const chunk of incoming) body += String(chunk);
  return { status: incoming.statusCode ?? 0, headers: incoming.headers, body };
}

/** Sends bytes as they are and reads until the server closes. */
async function askRaw(port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  let answer = '';
  socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
  socket.on('error', () => undefined);
  socket.write(bytes);
  await new Promise((resolve) => socket.once('close', resolve));
  return answer;
}

describe('MetricsServer', () => {
  test('GET /metrics gives the text and its type', async (t) => {
    const port = await serve(t);
    const { status, headers, body } = await ask(port, '/metrics');
    assert.equal(status, 200);
    assert.equal(headers['content-type'], 'text/plain; version=0.0.4');
    assert.equal(body, 'up 1\n');
  });

  test('HEAD is GET without a body', async (t) => {
    const port = await serve(t);
    for (const path of ['/metrics', '/healthz', '/readyz']) {
      const { status, body } = await ask(port, path, { method: 'HEAD' });
      assert.equal(status, 200);
      assert.equal(body, '');
    }
  });

  test('other methods are 405 and say what is allowed', async (t) => {
    const port = await serve(t);
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
      const { status, headers, body } = await ask(port, '/metrics', { method });
      assert.equal(status, 405, method);
      assert.equal(headers['allow'], 'GET, HEAD');
      assert.equal(headers['content-type'], 'application/problem+json');
      assert.equal((JSON.parse(body) as { status: number }).status, 405);
    }
  });

  test('anything else is 404 as a problem document', async (t) => {
    const port = await serve(t);
    for (const path of ['/', '/metrics/', '/metrics/x', '/..%2f..%2fetc/passwd', '/HEALTHZ']) {
      const { status, headers, body } = await ask(port, path);
      assert.equal(status, 404, path);
      assert.equal(headers['content-type'], 'application/problem+json');
      assert.equal(
        (JSON.parse(body) as { title: string }).title,
        'There are only /metrics, /healthz and /readyz',
      );
    }
  });

  test('/metrics is 500 without details where rendering fails', async (t) => {
    const port = await serve(t, { metrics: { render: () => Promise.reject(new Error('secret')) } });
    const { status, body } = await ask(port, '/metrics');
    assert.equal(status, 500);
    assert.ok(!body.includes('secret'));
  });

  test('/healthz is 503 with reasons where a check fails or is silent', async (t) => {
    const silent = { name: 'data plane', answer: () => new Promise(() => undefined) };
    const failing = { name: 'control loop', answer: () => Promise.reject(new Error('it is stuck')) };
    const port = await serve(t, { liveness: [silent, failing] }, { livenessTimeoutMs: 50 });
    const { status, headers, body } = await ask(port, '/healthz');
    assert.equal(status, 503);
    assert.equal(headers['content-type'], 'application/problem+json');
    assert.deepEqual((JSON.parse(body) as { reasons: string[] }).reasons, [
      'The data plane has not answered in 50 ms',
      'The control loop failed: it is stuck',
    ]);
  });

  test('/healthz is 200 where all checks answer', async (t) => {
    const { status, body } = await ask(await serve(t), '/healthz');
    assert.equal(status, 200);
    assert.deepEqual(JSON.parse(body), { status: 'ok' });
  });

  test('/readyz is 503 with each reason there is', async (t) => {
    let readiness: Readiness = { applied: false, openListeners: 0, stopping: false };
    const port = await serve(t, { readiness: () => readiness });
    const reasons = async () => {
      const { status, body } = await ask(port, '/readyz');
      return [status, (JSON.parse(body) as { reasons?: string[] }).reasons];
    };
    assert.deepEqual(await reasons(), [
      503,
      ['No forwarding state has been applied yet', 'No listener is open'],
    ]);
    readiness = { applied: true, openListeners: 0, stopping: false };
    assert.deepEqual(await reasons(), [503, ['No listener is open']]);
    readiness = { applied: true, openListeners: 1, stopping: false };
    assert.deepEqual(await reasons(), [200, undefined]);
    readiness = { applied: true, openListeners: 1, stopping: true };
    assert.deepEqual(await reasons(), [503, ['The process is stopping']]);
    readiness = { ...readiness, stopping: false, unsteered: 'Table inet haports is not in the kernel' };
    assert.deepEqual(await reasons(), [503, ['Table inet haports is not in the kernel']]);
  });
});

describe('MetricsServer without a data plane', () => {
  test('/readyz is 503 where readiness cannot be told', async (t) => {
    const silent = await serve(
      t,
      { readiness: () => new Promise(() => undefined) },
      { livenessTimeoutMs: 50 },
    );
    const failing = await serve(t, { readiness: () => Promise.reject(new Error('worker died')) });
    const answers = [await ask(silent, '/readyz'), await ask(failing, '/readyz')];
    assert.deepEqual(
      answers.map(({ status, body }) => [status, (JSON.parse(body) as { reasons: string[] }).reasons]),
      [
        [503, ['The data plane has not answered in 50 ms']],
        [503, ['The data plane failed: worker died']],
      ],
    );
  });
});

describe('MetricsServer against strange requests', () => {
  test('a strange Host header has no effect', async (t) => {
    const port = await serve(t);
    for (const host of ['evil.example', 'a b', '/metrics', '@', 'x:99999', '[::', '\u00ff', '']) {
      const { status } = await ask(port, '/healthz', { headers: { host } });
      assert.equal(status, 200, JSON.stringify(host));
      const other = await ask(port, '/nothing', { headers: { host } });
      assert.equal(other.status, 404, JSON.stringify(host));
    }
  });

  test('an absolute request target counts by its path', async (t) => {
    const port = await serve(t);
    const answer = await askRaw(
      port,
      'GET http://evil.example/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    );
    assert.match(answer, /^HTTP\/1\.1 200 /);
  });

  test('garbage, huge headers and unknown methods get an error and the server lives on', async (t) => {
    const port = await serve(t);
    assert.match(await askRaw(port, '\x16\x03\x01garbage\r\n\r\n'), /^HTTP\/1\.1 400 /);
    const long = `GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(20_000)}\r\n\r\n`;
    assert.match(await askRaw(port, long), /^HTTP\/1\.1 431 /);
    const trace = await askRaw(port, 'TRACE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    assert.match(trace, /^HTTP\/1\.1 (400|405) /);
    const target = await askRaw(port, 'GET //[ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    assert.match(target, /^HTTP\/1\.1 4\d\d /);
    assert.equal((await ask(port, '/healthz')).status, 200);
  });

  test('a request that never ends is ended', async (t) => {
    const port = await serve(t, {}, { requestTimeoutMs: 200 });
    const startedMs = performance.now();
    assert.match(await askRaw(port, 'GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow:'), /^HTTP\/1\.1 408 /);
    assert.ok(performance.now() - startedMs < 3000);
  });

  test('connections over the cap are closed', async (t) => {
    const port = await serve(t, {}, { maxConnections: 2 });
    const held = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
    t.after(() => held.forEach((socket) => socket.destroy()));
    await Promise.all(held.map((socket) => once(socket, 'connect')));
    assert.equal(await askRaw(port, 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'), '');
    held.forEach((socket) => socket.destroy());
    for (let attempt = 0; attempt < 100; attempt++) {
      const status = await ask(port, '/healthz').then(
        (answer) => answer.status,
        () => 0,
      );
      if (status === 200) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.fail('No connection was taken after the others had gone');
  });
});

describe('MetricsServer life cycle', () => {
  test('start() rejects with LB_LISTEN_FAILED where the port is taken', async (t) => {
    const port = await serve(t);
    const second = new MetricsServer(dependencies(), { listen: { ...LOOPBACK, port } });
    await assert.rejects(second.start(), {
      code: 'LB_LISTEN_FAILED',
      message: `Cannot listen for metrics on 127.0.0.1:${port} (EADDRINUSE): "metrics.listen" must be a free address and port of this machine`,
    });
    await second.stop();
  });

  test('start() rejects with LB_LISTEN_FAILED where the address is not this machine', async () => {
    const server = new MetricsServer(dependencies(), {
      listen: { address: ipAddress('192.0.2.1'), port: 0 },
    });
    await assert.rejects(server.start(), {
      code: 'LB_LISTEN_FAILED',
      message: /192\.0\.2\.1:0 \(EADDRNOTAVAIL\)/,
    });
  });

  test('stop() ends idle and silent connections and frees the port', async () => {
    const server = new MetricsServer(dependencies(), { listen: LOOPBACK });
    const port = await server.start();
    const silent = connect(port, '127.0.0.1');
    silent.on('error', () => undefined);
    await once(silent, 'connect');
    await ask(port, '/healthz');
    const closed = once(silent, 'close');
    silent.resume();
    await Promise.all([server.stop(), server.stop(), closed]);
    await assert.rejects(ask(port, '/healthz'), { code: 'ECONNREFUSED' });
  });
});
