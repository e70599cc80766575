import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { describe, test } from 'node:test';
import {
  BODY_LIMIT_BYTES,
  BodySearch,
  createProbeRunner,
  failed,
  handshakeFailed,
  isSelfConnected,
  noAnswer,
} from '../../../src/health/probes.js';
import { ipAddress } from '../../../src/model/address.js';
import type { HttpProbe } from '../../../src/model/configuration.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { closedPort, listen } from './loopback-server.js';
import { ask, httpProbe, outcome, tcpProbe } from './probe-fixtures.js';

const silent = (): undefined => undefined;

describe('TCP probe', () => {
  test('opens and closes in full, so that the backend sees FIN and not RST', async (t) => {
    const server = await listen(t, silent);
    assert.equal(await outcome(tcpProbe({ port: server.port })), 'success explicit connected');
    const [connection] = await server.over(1);
    assert.deepEqual([connection?.end, connection?.received.length], ['fin', 0]);
  });

  test('sends FIN and not RST to a backend that talks first', async (t) => {
    const server = await listen(t, (socket) => socket.write(Buffer.alloc(4 << 20)));
    assert.equal((await ask(tcpProbe({ port: server.port }))).verdict, 'success');
    const [connection] = await server.over(1);
    assert.equal(connection?.end, 'fin');
  });

  test('does not wait for a backend that never closes', async (t) => {
    const server = await listen(t, (socket) => (socket.allowHalfOpen = true));
    const result = await ask(tcpProbe({ port: server.port, timeoutMs: 60_000 }));
    assert.equal(result.verdict, 'success');
    assert.ok(result.durationMs < 200, `the wait for the close is not part of ${result.durationMs} ms`);
  });

  test('takes a backend that resets after the handshake as up', async (t) => {
    const server = await listen(t, (socket) => socket.resetAndDestroy());
    // Whether the reset comes before or after the probe's socket is seen open differs from one to the next.
    for (let round = 0; round < 20; round++) {
      assert.equal((await ask(tcpProbe({ port: server.port }))).verdict, 'success');
    }
  });

  test('takes a refused connection as an explicit failure', async () => {
    assert.equal(await outcome(tcpProbe({ port: await closedPort() })), 'failure explicit ECONNREFUSED');
  });

  test('probes over IPv6', async (t) => {
    const server = await listen(t, silent, '::1');
    assert.equal((await ask(tcpProbe({ port: server.port }), '::1')).verdict, 'success');
  });

  test('leaves from the source address', async (t) => {
    const server = await listen(t, silent);
    await ask(tcpProbe({ port: server.port, sourceAddress: ipAddress('127.0.0.77') }));
    const [connection] = await server.over(1);
    assert.equal(connection?.remoteAddress, '127.0.0.77');
  });

  test('names a local problem as one', async (t) => {
    const server = await listen(t, silent);
    // TEST-NET-1 (RFC 5737) and its like (RFC 3849): not of this machine.
    const foreign = { '127.0.0.1': '192.0.2.1', '::1': '2001:db8::1' };
    for (const [address, source] of Object.entries(foreign)) {
      const fields = { port: server.port, sourceAddress: ipAddress(source) };
      for (const probe of [
        tcpProbe(fields),
        httpProbe(fields),
        httpProbe({ ...fields, protocol: 'https' }),
      ]) {
        const { answer, evidence, inconclusive } = await ask(probe, address);
        assert.equal(answer, 'silence');
        assert.match(evidence, /^EADDRNOTAVAIL \(local problem: .*sourceAddress\)$/);
        assert.equal(inconclusive, 'source-address');
      }
    }
  });

  test('ends with silence when it is aborted before it starts', async (t) => {
    const { port } = await listen(t, silent);
    const runner = createProbeRunner({ clock: systemClock });
    const result = await runner.run(tcpProbe({ port }), ipAddress('127.0.0.1'), AbortSignal.abort());
    assert.deepEqual(
      [result.verdict, result.answer, result.evidence],
      ['failure', 'silence', 'no answer in 2s'],
    );
  });

  test('sends the PROXY header of its version, LOCAL or UNKNOWN', async (t) => {
    const server = await listen(t, silent);
    await ask(tcpProbe({ port: server.port, sendProxy: 'v1' }));
    await ask(tcpProbe({ port: server.port, sendProxy: 'v2' }));
    const [v1, v2] = await server.over(2);
    assert.equal(v1?.received.toString('latin1'), 'PROXY UNKNOWN\r\n');
    // proxy-protocol.txt 2.2: signature, version 2 | LOCAL 0, AF_UNSPEC | UNSPEC, length 0.
    assert.equal(v2?.received.toString('hex'), '0d0a0d0a000d0a515549540a' + '20' + '00' + '0000');
  });

  test('is not taken in by a socket that reached itself', () => {
    const socket = { localAddress: '127.0.0.1', localPort: 40000, remoteAddress: '127.0.0.1' };
    assert.equal(isSelfConnected({ ...socket, remotePort: 40000 }), true);
    assert.equal(isSelfConnected({ ...socket, remotePort: 40001 }), false);
    assert.equal(isSelfConnected({ ...socket, remotePort: 40000, remoteAddress: '127.0.0.2' }), false);
  });
});

/** Answers once the request's head is in, then closes in order. */
function replying(...parts: readonly string[]): (socket: Socket) => void {
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

/** Never closes, and writes `forever` every few milliseconds after the start. */
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

/** The head of an answer without a body. */
const head = (...lines: readonly string[]): string => `HTTP/1.1 ${lines.join('\r\n')}\r\n\r\n`;

type HttpFields = Partial<HttpProbe>;

const SWITCH = head('101 Switch', 'Connection: Upgrade', 'Upgrade: x');

describe('HTTP probe', () => {
  const wide = [200, 401].map((first) => ({ first, last: first === 200 ? 299 : first }));
  const body = { expectBody: 'OK' };
  const cases: readonly (readonly [does: string, reply: readonly string[], HttpFields, outcome: string])[] = [
    ['takes 200 as up', [ok()], {}, 'success explicit HTTP 200'],
    ['takes another status as an explicit failure', [head('503 Sick')], {}, 'failure explicit HTTP 503'],
    ['does not follow redirects', [head('302 Found', 'Location: /x')], {}, 'failure explicit HTTP 302'],
    [
      'takes any status of its ranges',
      [head('401 Who')],
      { expectStatus: wide },
      'success explicit HTTP 401',
    ],
    ['takes 1xx for what it is', [head('102 Wait'), ok()], {}, 'success explicit HTTP 200'],
    ['takes an upgrade as a status', [SWITCH], {}, 'failure explicit HTTP 101'],
    ['finds a text in the body', [ok('all is OK here')], body, 'success explicit HTTP 200'],
    ['misses a text in the body', [ok('no')], body, 'failure explicit body lacks "OK"'],
    ['does not look for it if the status is bad', [head('500 No'), 'OK'], body, 'failure explicit HTTP 500'],
    [
      'looks at no more than 64 KiB',
      [ok('x'.repeat(65_535) + 'OK')],
      body,
      'failure explicit body lacks "OK"',
    ],
    ['looks at all of the first 64 KiB', [ok('x'.repeat(65_534) + 'OK')], body, 'success explicit HTTP 200'],
    [
      'takes a body cut short as silence',
      [head('200 OK', 'Content-Length: 9'), 'O'],
      body,
      'failure silence closed before the end of the body',
    ],
    [
      'takes other bytes as an explicit failure',
      ['220 smtp\r\n\r\n'],
      {},
      'failure explicit not HTTP (HPE_INVALID_CONSTANT)',
    ],
    ['takes a close without an answer as silence', [], {}, 'failure silence closed without an answer'],
  ];
  for (const [does, reply, fields, expected] of cases) {
    test(does, async (t) => {
      const server = await listen(t, replying(...reply));
      assert.equal(await outcome(httpProbe({ port: server.port, ...fields })), expected);
      await server.over(1);
    });
  }

  test('takes a refused connection as silence', async () => {
    assert.equal(await outcome(httpProbe({ port: await closedPort() })), 'failure silence ECONNREFUSED');
  });

  test('takes a reset before the answer as silence', async (t) => {
    const server = await listen(t, (socket) => socket.once('data', () => socket.resetAndDestroy()));
    assert.equal(await outcome(httpProbe({ port: server.port })), 'failure silence ECONNRESET');
  });

  const endless: readonly (readonly [what: string, start: string, forever: string, HttpFields])[] = [
    ['no byte', '', '', {}],
    ['half a status line', 'HTTP/1.1 2', '', {}],
    ['informational responses', '', head('100 Continue'), {}],
    ['a body that never has the text', head('200 OK'), 'x', body],
  ];
  for (const [what, start, forever, fields] of endless) {
    test(`gives up at its timeout on ${what}`, async (t) => {
      const server = await listen(t, trickling(start, forever));
      const result = await ask(httpProbe({ port: server.port, timeoutMs: 150, ...fields }));
      const { verdict, answer, evidence, durationMs } = result;
      assert.deepEqual([verdict, answer, evidence], ['failure', 'silence', 'no answer in 150ms']);
      assert.ok(durationMs >= 145 && durationMs < 1000, `took ${durationMs} ms`);
      await server.over(1);
    });
  }

  test('gives up on headers without end, at the latest at its timeout', async (t) => {
    const server = await listen(t, trickling('HTTP/1.1 200 OK\r\n', 'X-More: more\r\n'));
    const { verdict, durationMs } = await ask(httpProbe({ port: server.port, timeoutMs: 150 }));
    assert.equal(verdict, 'failure');
    assert.ok(durationMs < 1000);
    await server.over(1);
  });

  test('does not wait for the end of a body that it does not look at', async (t) => {
    const server = await listen(t, trickling(head('503 Sick'), 'x'));
    const result = await ask(httpProbe({ port: server.port, timeoutMs: 30_000 }));
    assert.equal(result.evidence, 'HTTP 503');
    assert.ok(result.durationMs < 5000, `took ${result.durationMs} ms`);
    await server.over(1);
  });

  test('closes in order after a body that comes later than its head', async (t) => {
    const server = await listen(t, (socket) => {
      socket.once('data', () => {
        socket.write(head('200 OK', 'Content-Length: 2'));
        setTimeout(() => socket.write('OK'), 30);
      });
    });
    assert.equal((await ask(httpProbe({ port: server.port }))).verdict, 'success');
    const [connection] = await server.over(1);
    assert.equal(connection?.end, 'fin');
  });

  const requests: readonly (readonly [does: string, HttpFields, sent: RegExp, address?: string])[] = [
    [
      'asks with the address as Host',
      { path: '/a?b=c' },
      /^GET \/a\?b=c HTTP\/1.1\r\nHost: 127.0.0.1:PORT\r\n/,
    ],
    ['asks for a close', {}, /\r\nConnection: close\r\n/],
    [
      'asks with its own Host',
      { host: 'app.example:8443' },
      /^GET \/healthz HTTP\/1.1\r\nHost: app.example:8443\r\n/,
    ],
    ['sends the PROXY header before the request', { sendProxy: 'v1' }, /^PROXY UNKNOWN\r\nGET \/healthz /],
    ['puts an IPv6 address in brackets', {}, /\r\nHost: \[::1\]:PORT\r\n/, '::1'],
    ['leaves out the zone of a scoped IPv6 address', {}, /\r\nHost: \[::1\]:PORT\r\n/, '::1%lo'],
  ];
  for (const [does, fields, sent, address = '127.0.0.1'] of requests) {
    test(does, async (t) => {
      const server = await listen(t, replying(ok()), address.split('%')[0]);
      const result = await ask(httpProbe({ port: server.port, ...fields }), address);
      assert.equal(result.evidence, 'HTTP 200');
      const [connection] = await server.over(1);
      const request = connection?.received.toString('latin1').replaceAll(String(server.port), 'PORT');
      assert.match(request ?? '', sent);
    });
  }

  const weights = {
    0: 0,
    256: 256,
    257: undefined,
    '-1': undefined,
    '1.5': undefined,
    '': undefined,
    '12, 13': undefined,
  };
  for (const [header, weight] of Object.entries(weights)) {
    test(`reads weight "${header}" as ${weight ?? 'none'}`, async (t) => {
      const name = 'X-Load-Balancing-Endpoint-Weight';
      const { port } = await listen(t, replying(ok('', `${name}: ${header}\r\n`)));
      assert.equal((await ask(httpProbe({ port, weightFromProbeHeader: name }))).weight, weight);
      assert.equal((await ask(httpProbe({ port }))).weight, undefined);
    });
  }

  test('reports what Node refuses to send, and closes its socket', { timeout: 5000 }, async (t) => {
    const server = await listen(t, replying(ok()));
    const probe = httpProbe({ port: server.port, path: '/not sendable', timeoutMs: 60_000 });
    assert.equal(await outcome(probe), 'failure silence ERR_UNESCAPED_CHARACTERS');
    await server.over(1);
  });
});

describe('evidence', () => {
  const systemError = (code: string) => Object.assign(new Error(`connect ${code}`), { code });

  test('a probe that never left this machine is inconclusive', () => {
    const causes = {
      ...{ EMFILE: 'descriptors', ENFILE: 'descriptors', ENOBUFS: 'memory', ENOMEM: 'memory' },
      ...{ EADDRNOTAVAIL: 'ports', EADDRINUSE: 'ports', EACCES: 'forbidden', EPERM: 'forbidden' },
    };
    for (const probe of [tcpProbe(), httpProbe(), httpProbe({ protocol: 'https' })]) {
      for (const [code, cause] of Object.entries(causes)) {
        const { inconclusive, evidence } = failed(systemError(code), probe);
        assert.equal(inconclusive, cause);
        assert.match(evidence, new RegExp(`^${code} \\(local problem: `));
      }
    }
  });

  test('a way to the backend that is not there counts, since flows take it too', () => {
    for (const code of ['ENETUNREACH', 'ENETDOWN', 'EINVAL', 'EAFNOSUPPORT']) {
      const verdict = failed(systemError(code), httpProbe());
      assert.equal('inconclusive' in verdict, false);
      assert.match(verdict.evidence, /local problem/);
    }
  });

  test('a system call that fails during a TLS handshake is no answer', () => {
    const probe = httpProbe({ protocol: 'https' });
    const during = (code: string) => Object.assign(systemError(code), { syscall: 'write' });
    assert.equal(handshakeFailed(during('ETIMEDOUT'), probe).answer, 'silence');
    assert.equal(handshakeFailed(during('EHOSTUNREACH'), probe).answer, 'silence');
    assert.equal(handshakeFailed(during('ENOBUFS'), probe).inconclusive, 'memory');
    assert.equal(handshakeFailed(systemError('CERT_HAS_EXPIRED'), probe).answer, 'explicit');
  });

  test('a refusal is an answer to a TCP probe only', () => {
    assert.equal(failed(systemError('ECONNREFUSED'), tcpProbe()).answer, 'explicit');
    assert.equal(failed(systemError('ECONNREFUSED'), httpProbe()).answer, 'silence');
    assert.equal(failed(systemError('ETIMEDOUT'), tcpProbe()).answer, 'silence');
    assert.equal(failed(systemError('EHOSTUNREACH'), tcpProbe()).evidence, 'EHOSTUNREACH');
  });

  test('silence names the timeout as people write it', () => {
    assert.equal(noAnswer(tcpProbe({ timeoutMs: 5000 })).evidence, 'no answer in 5s');
    assert.equal(noAnswer(tcpProbe({ timeoutMs: 1500 })).evidence, 'no answer in 1500ms');
  });
});

describe('BodySearch', () => {
  test('finds a text cut at any place', () => {
    const body = Buffer.from('xxüber-allxx');
    for (let cut = 0; cut <= body.length; cut++) {
      const search = new BodySearch('über-all');
      search.add(body.subarray(0, cut));
      assert.equal(search.add(body.subarray(cut)), 'found', `cut at ${cut}`);
    }
  });

  test('finds a text that comes byte by byte', () => {
    const search = new BodySearch('aab');
    const outcomes = Array.from(Buffer.from('aaab'), (byte) => search.add(Uint8Array.of(byte)));
    assert.deepEqual(outcomes, ['more', 'more', 'more', 'found']);
  });

  test('says absent at its limit, in one piece or many, and keeps to it', () => {
    assert.equal(new BodySearch('b').add(Buffer.alloc(BODY_LIMIT_BYTES + 1, 'a')), 'absent');
    const search = new BodySearch('b');
    assert.equal(search.add(Buffer.alloc(BODY_LIMIT_BYTES - 1, 'a')), 'more');
    assert.equal(search.add(Buffer.from('ab')), 'absent');
  });

  test('stays quick on a full body of single bytes', () => {
    const search = new BodySearch('b'.repeat(100));
    const byte = Buffer.from('a');
    const startedMs = performance.now();
    for (let count = 1; count < BODY_LIMIT_BYTES; count++) assert.equal(search.add(byte), 'more');
    assert.ok(performance.now() - startedMs < 2000);
  });

  test('finds the empty text at once', () => assert.equal(new BodySearch('').found, true));
});
