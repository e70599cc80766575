import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { describe, test } from 'node:test';
import type { HttpProbe } from '../../../src/model/configuration.js';
import { ask, httpProbe } from './probe-fixtures.js';
import { closedPort, listen } from './loopback-server.js';

/** Answers once the request's head is in, then closes in order. */
function replying(...parts: readonly (string | Buffer)[]): (socket: Socket) => void {
  return (socket) => {
    let head = '';
    socket.on('data', (chunk) => {
      head += chunk.toString('latin1');
      if (!head.includes('\r\n\r\n')) return;
      for (const part of parts) socket.write(part);
      socket.end();
    });
  };
}

/** As replying, but never closes and goes on with `forever` every few milliseconds. */
function trickling(start: string, forever: string): (socket: Socket) => void {
  return (socket) => {
    const timer = setInterval(() => socket.write(forever), 5);
    socket.on('close', () => clearInterval(timer));
    socket.write(start);
  };
}

function ok(body = 'OK', headers = ''): string {
  return `HTTP/1.1 200 OK\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${headers}\r\n${body}`;
}

const silentFor = (probe: HttpProbe) => `no answer in ${probe.timeoutMs}ms`;

describe('probeHttp()', () => {
  const cases: readonly (readonly [
    name: string,
    reply: readonly (string | Buffer)[],
    probe: Partial<HttpProbe>,
    outcome: string,
  ])[] = [
    ['takes 200 as up', [ok()], {}, 'success explicit HTTP 200'],
    [
      'takes another status as an explicit failure',
      ['HTTP/1.1 503 Sick\r\n\r\n'],
      {},
      'failure explicit HTTP 503',
    ],
    [
      'does not follow redirects',
      ['HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n'],
      {},
      'failure explicit HTTP 302',
    ],
    [
      'takes any status of its ranges',
      ['HTTP/1.1 401 Who\r\n\r\n'],
      {
        expectStatus: [
          { first: 200, last: 299 },
          { first: 401, last: 401 },
        ],
      },
      'success explicit HTTP 401',
    ],
    ['takes 1xx for what it is', ['HTTP/1.1 102 Wait\r\n\r\n', ok()], {}, 'success explicit HTTP 200'],
    [
      'takes an upgrade as a status',
      ['HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'],
      {},
      'failure explicit HTTP 101',
    ],
    [
      'finds a text in the body',
      [ok('all is well here')],
      { expectBody: 'is well' },
      'success explicit HTTP 200',
    ],
    ['misses a text in the body', [ok('no')], { expectBody: 'OK' }, 'failure explicit body lacks "OK"'],
    [
      'does not look for the text if the status is bad',
      ['HTTP/1.1 500 No\r\n\r\nOK'],
      { expectBody: 'OK' },
      'failure explicit HTTP 500',
    ],
    [
      'looks at no more than 64 KiB of the body',
      [ok('x'.repeat(65_535) + 'OK')],
      { expectBody: 'OK' },
      'failure explicit body lacks "OK"',
    ],
    [
      'looks at all of the first 64 KiB',
      [ok('x'.repeat(65_534) + 'OK')],
      { expectBody: 'OK' },
      'success explicit HTTP 200',
    ],
    [
      'takes a body cut short as silence',
      ['HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nO'],
      { expectBody: 'OK' },
      'failure silence closed before the end of the body',
    ],
    [
      'takes other bytes as an explicit failure',
      ['220 smtp ready\r\n\r\n'],
      {},
      'failure explicit not HTTP (HPE_INVALID_CONSTANT)',
    ],
    ['takes a close without an answer as silence', [], {}, 'failure silence closed without an answer'],
  ];
  for (const [name, reply, probe, outcome] of cases) {
    test(`probeHttp() ${name}`, async (t) => {
      const server = await listen(t, replying(...reply));
      const { verdict, answer, evidence } = await ask(httpProbe({ port: server.port, ...probe }));
      assert.equal(`${verdict} ${answer} ${evidence}`, outcome);
      await server.over(1);
    });
  }

  test('probeHttp() takes a refused connection as silence', async () => {
    const { verdict, answer, evidence } = await ask(httpProbe({ port: await closedPort() }));
    assert.deepEqual([verdict, answer, evidence], ['failure', 'silence', 'ECONNREFUSED']);
  });

  test('probeHttp() takes a reset before the answer as silence', async (t) => {
    const server = await listen(t, (socket) => socket.once('data', () => socket.resetAndDestroy()));
    const { answer, evidence } = await ask(httpProbe({ port: server.port }));
    assert.deepEqual([answer, evidence], ['silence', 'ECONNRESET']);
  });

  const endless: readonly (readonly [
    name: string,
    start: string,
    forever: string,
    probe: Partial<HttpProbe>,
  ])[] = [
    ['no byte', '', '', {}],
    ['half a status line', 'HTTP/1.1 2', '', {}],
    ['informational responses', '', 'HTTP/1.1 100 Continue\r\n\r\n', {}],
    ['a body that never has the text', 'HTTP/1.1 200 OK\r\n\r\n', 'x', { expectBody: 'OK' }],
  ];
  for (const [name, start, forever, fields] of endless) {
    test(`probeHttp() gives up at its timeout on ${name}`, async (t) => {
      const server = await listen(t, trickling(start, forever));
      const probe = httpProbe({ port: server.port, timeoutMs: 150, ...fields });
      const result = await ask(probe);
      assert.deepEqual(
        [result.verdict, result.answer, result.evidence],
        ['failure', 'silence', silentFor(probe)],
      );
      assert.ok(result.durationMs >= 145 && result.durationMs < 1000, `took ${result.durationMs} ms`);
      await server.over(1);
    });
  }

  test('probeHttp() gives up on headers without end, at the latest at its timeout', async (t) => {
    const server = await listen(t, trickling('HTTP/1.1 200 OK\r\n', 'X-More: more\r\n'));
    const { verdict, durationMs } = await ask(httpProbe({ port: server.port, timeoutMs: 150 }));
    assert.equal(verdict, 'failure');
    assert.ok(durationMs < 1000);
    await server.over(1);
  });

  test('probeHttp() does not wait for the end of a body nobody asked about', async (t) => {
    const server = await listen(t, trickling('HTTP/1.1 503 Sick\r\n\r\n', 'x'));
    const result = await ask(httpProbe({ port: server.port, timeoutMs: 30_000 }));
    assert.equal(result.evidence, 'HTTP 503');
    assert.ok(result.durationMs < 5000, `took ${result.durationMs} ms`);
    await server.over(1);
  });

  test('probeHttp() closes in order after a body that comes later than its head', async (t) => {
    const server = await listen(t, (socket) => {
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n');
        setTimeout(() => socket.write('OK'), 30);
      });
    });
    assert.equal((await ask(httpProbe({ port: server.port }))).verdict, 'success');
    const [connection] = await server.over(1);
    assert.equal(connection?.end, 'fin');
  });

  test('probeHttp() asks with the address as Host, or with its own', async (t) => {
    const server = await listen(t, replying(ok()));
    await ask(httpProbe({ port: server.port, path: '/a?b=c' }));
    await ask(httpProbe({ port: server.port, host: 'app.example:8443' }));
    const requests = (await server.over(2)).map(({ received }) => received.toString('latin1'));
    assert.match(
      requests[0] ?? '',
      new RegExp(`^GET /a\\?b=c HTTP/1.1\\r\\nHost: 127.0.0.1:${server.port}\\r\\n`),
    );
    assert.match(requests[0] ?? '', /\r\nConnection: close\r\n/);
    assert.match(requests[1] ?? '', /^GET \/healthz HTTP\/1.1\r\nHost: app.example:8443\r\n/);
  });

  test('probeHttp() probes over IPv6, with brackets in Host', async (t) => {
    const server = await listen(t, replying(ok()), '::1');
    assert.equal((await ask(httpProbe({ port: server.port }), '::1')).evidence, 'HTTP 200');
    const [connection] = await server.over(1);
    assert.match(
      connection?.received.toString('latin1') ?? '',
      new RegExp(`\\r\\nHost: \\[::1\\]:${server.port}\\r\\n`),
    );
  });

  test('probeHttp() takes a scoped IPv6 address, whose zone stays at home', async (t) => {
    const server = await listen(t, replying(ok()), '::1');
    assert.equal((await ask(httpProbe({ port: server.port }), '::1%lo')).evidence, 'HTTP 200');
    const [connection] = await server.over(1);
    assert.match(connection?.received.toString('latin1') ?? '', /\r\nHost: \[::1\]:/);
  });

  test('probeHttp() sends the PROXY header before the request', async (t) => {
    const server = await listen(t, replying(ok()));
    await ask(httpProbe({ port: server.port, sendProxy: 'v1' }));
    const [connection] = await server.over(1);
    assert.match(connection?.received.toString('latin1') ?? '', /^PROXY UNKNOWN\r\nGET \/healthz /);
  });

  for (const [header, weight] of [
    ['0', 0],
    ['256', 256],
    ['257', undefined],
    ['-1', undefined],
    ['1.5', undefined],
    ['', undefined],
    ['12, 13', undefined],
  ] as const) {
    test(`probeHttp() reads weight "${header}" as ${weight ?? 'none'}`, async (t) => {
      const name = 'X-Load-Balancing-Endpoint-Weight';
      const server = await listen(t, replying(ok('', `${name}: ${header}\r\n`)));
      const probe = httpProbe({ port: server.port, weightFromProbeHeader: name });
      assert.equal((await ask(probe)).weight, weight);
      assert.equal('weight' in (await ask(httpProbe({ port: server.port }))), false);
    });
  }

  test(
    'probeHttp() reports what Node refuses to send, and lets go of its socket',
    { timeout: 5000 },
    async (t) => {
      const server = await listen(t, replying(ok()));
      const { verdict, evidence } = await ask(
        httpProbe({ port: server.port, path: '/not sendable', timeoutMs: 60_000 }),
      );
      assert.deepEqual([verdict, evidence], ['failure', 'ERR_UNESCAPED_CHARACTERS']);
      await server.over(1);
    },
  );
});
