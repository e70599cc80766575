import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import { createProbeRunner, isSelfConnected } from '../../../src/health/probes.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { ask, tcpProbe } from './probe-fixtures.js';
import { closedPort, listen } from './loopback-server.js';

describe('probeTcp()', () => {
  test('probeTcp() opens and closes in full, so that the backend sees FIN and not RST', async (t) => {
    const server = await listen(t, () => undefined);
    const result = await ask(tcpProbe({ port: server.port }));
    assert.deepEqual(
      { ...result, durationMs: 0 },
      { verdict: 'success', answer: 'explicit', evidence: 'connected', durationMs: 0 },
    );
    const [connection] = await server.over(1);
    assert.deepEqual([connection?.end, connection?.received.length], ['fin', 0]);
  });

  test('probeTcp() sends FIN and not RST to a backend that talks first', async (t) => {
    const server = await listen(t, (socket) => socket.write(Buffer.alloc(4 << 20)));
    assert.equal((await ask(tcpProbe({ port: server.port }))).verdict, 'success');
    const [connection] = await server.over(1);
    assert.equal(connection?.end, 'fin');
  });

  test('probeTcp() does not wait for a backend that never closes', async (t) => {
    const server = await listen(t, (socket) => {
      socket.allowHalfOpen = true;
    });
    const result = await ask(tcpProbe({ port: server.port, timeoutMs: 60_000 }));
    assert.equal(result.verdict, 'success');
    assert.ok(result.durationMs < 200, `the wait for the close is not part of ${result.durationMs} ms`);
  });

  test('probeTcp() takes a backend that resets after the handshake as up', async (t) => {
    const server = await listen(t, (socket) => socket.resetAndDestroy());
    // Whether the reset comes before or after the probe's socket is seen open differs from one to the next.
    for (let round = 0; round < 20; round++) {
      assert.equal((await ask(tcpProbe({ port: server.port }))).verdict, 'success');
    }
  });

  test('probeTcp() takes a refused connection as an explicit failure', async () => {
    const { verdict, answer, evidence } = await ask(tcpProbe({ port: await closedPort() }));
    assert.deepEqual([verdict, answer, evidence], ['failure', 'explicit', 'ECONNREFUSED']);
  });

  test('probeTcp() probes over IPv6', async (t) => {
    const server = await listen(t, () => undefined, '::1');
    assert.equal((await ask(tcpProbe({ port: server.port }), '::1')).verdict, 'success');
  });

  test('probeTcp() leaves from the source address', async (t) => {
    const server = await listen(t, () => undefined);
    await ask(tcpProbe({ port: server.port, sourceAddress: ipAddress('127.0.0.77') }));
    const [connection] = await server.over(1);
    assert.equal(connection?.remoteAddress, '127.0.0.77');
  });

  test('probeTcp() names a local problem as one', async (t) => {
    const server = await listen(t, () => undefined);
    // TEST-NET-1 (RFC 5737): not of this machine.
    const probe = tcpProbe({ port: server.port, sourceAddress: ipAddress('192.0.2.1') });
    const { verdict, answer, evidence } = await ask(probe);
    assert.deepEqual([verdict, answer], ['failure', 'silence']);
    assert.match(evidence, /^EADDRNOTAVAIL \(local problem: .*sourceAddress\)$/);
  });

  test('probeTcp() ends with silence when it is aborted before it starts', async (t) => {
    const server = await listen(t, () => undefined);
    const runner = createProbeRunner({ clock: systemClock });
    const result = await runner.run(
      tcpProbe({ port: server.port }),
      ipAddress('127.0.0.1'),
      AbortSignal.abort(),
    );
    assert.deepEqual([result.verdict, result.answer], ['failure', 'silence']);
    assert.equal(result.evidence, 'no answer in 2s');
  });

  test('probeTcp() sends the PROXY header of its version, LOCAL or UNKNOWN', async (t) => {
    const server = await listen(t, () => undefined);
    await ask(tcpProbe({ port: server.port, sendProxy: 'v1' }));
    await ask(tcpProbe({ port: server.port, sendProxy: 'v2' }));
    const [v1, v2] = await server.over(2);
    assert.equal(v1?.received.toString('latin1'), 'PROXY UNKNOWN\r\n');
    // proxy-protocol.txt 2.2: signature, version 2 | LOCAL 0, AF_UNSPEC | UNSPEC, length 0.
    assert.equal(v2?.received.toString('hex'), '0d0a0d0a000d0a515549540a' + '20' + '00' + '0000');
  });

  test('isSelfConnected() tells a socket that reached itself', () => {
    const socket = { localAddress: '127.0.0.1', localPort: 40000, remoteAddress: '127.0.0.1' };
    assert.equal(isSelfConnected({ ...socket, remotePort: 40000 }), true);
    assert.equal(isSelfConnected({ ...socket, remotePort: 40001 }), false);
    assert.equal(isSelfConnected({ ...socket, remotePort: 40000, remoteAddress: '127.0.0.2' }), false);
  });
});
