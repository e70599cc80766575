import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, test, type TestContext } from 'node:test';
import { SampleNva } from '../../../src/demo/nva.js';
import { ipAddress } from '../../../src/model/address.js';
import { portSetOf } from '../../../src/model/ports.js';
import { freePort } from './free-port.js';

async function startNva(t: TestContext, host: string, count = 1) {
  const ports: number[] = [];
  while (ports.length < count) ports.push(await freePort(host));
  const nva = new SampleNva({
    name: 'nva-1',
    address: ipAddress(host),
    ports: portSetOf(...ports),
    healthPort: 0,
  });
  await nva.start();
  t.after(() => nva.stop());
  return { nva, port: ports[0]!, ports };
}

async function readAll(socket: Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += String(chunk);
  return text;
}

describe('SampleNva over TCP', () => {
  for (const host of ['127.0.0.31', '::1']) {
    test(`a chunk comes back with the name before it, and FIN is answered with FIN (${host})`, async (t) => {
      const { port } = await startNva(t, host);
      const socket = connect({ port, host, allowHalfOpen: true });
      socket.write('hello\n');
      const [chunk] = (await once(socket, 'data')) as [Buffer];
      assert.equal(chunk.toString(), 'nva-1: hello\n');
      socket.end('bye');
      assert.equal(await readAll(socket), 'nva-1: bye');
    });
  }

  test('every port of the set is served', async (t) => {
    const { ports } = await startNva(t, '127.0.0.31', 3);
    for (const port of ports) {
      const socket = connect({ port, host: '127.0.0.31', allowHalfOpen: true });
      socket.end('x');
      assert.equal(await readAll(socket), 'nva-1: x');
    }
  });

  test('a client that speaks HTTP gets a page', async (t) => {
    const { port } = await startNva(t, '127.0.0.31');
    const url = `http://127.0.0.31:${port}/any?thing`;
    const plain = await fetch(url);
    assert.equal(plain.headers.get('connection'), 'close');
    assert.equal(await plain.text(), `hello from nva-1, port ${port}, your address 127.0.0.1\n`);
    const html = await fetch(url, { headers: { accept: 'text/html,*/*' } });
    assert.match(html.headers.get('content-type') ?? '', /^text\/html/);
    assert.match(await html.text(), /<h1>nva-1<\/h1>/);
    const posted = await fetch(url, { method: 'POST', body: 'x'.repeat(100_000) });
    assert.match(await posted.text(), /^hello from nva-1/);
  });

  test('an HTTP request in pieces is one, and what only starts like one is echoed', async (t) => {
    const { port } = await startNva(t, '127.0.0.31');
    const pieces = connect({ port, host: '127.0.0.31', noDelay: true });
    const answer = readAll(pieces);
    for (const piece of ['G', 'ET', ' / HTTP/1.1\r\n', 'Host: x\r\n\r', '\n']) {
      await new Promise((resolve) => pieces.write(piece, resolve));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.match(await answer, /^HTTP\/1\.1 200 OK\r\n[^]*hello from nva-1/);
    const almost = connect({ port, host: '127.0.0.31', allowHalfOpen: true });
    almost.end('GET');
    assert.equal(await readAll(almost), 'nva-1: GET');
    const other = connect({ port, host: '127.0.0.31', allowHalfOpen: true });
    other.end('GETTING\n');
    assert.equal(await readAll(other), 'nva-1: GETTING\n');
  });

  test('a client that does not read is not read from either, and loses nothing', async (t) => {
    const { port } = await startNva(t, '127.0.0.31');
    const socket = connect({ port, host: '127.0.0.31', allowHalfOpen: true });
    const sizeMiB = 48;
    let sentMiB = 0;
    socket.pause();
    for (let index = 0; index < sizeMiB; index++) socket.write(Buffer.alloc(1 << 20, 0x2e), () => sentMiB++);
    socket.end();
    // Nothing moves once the kernel's buffers are full: 4 to 6 MiB at each of four places at most.
    for (let quiet = 0, before = -1; quiet < 5; before = sentMiB) {
      await new Promise((resolve) => setTimeout(resolve, 40));
      quiet = sentMiB === before ? quiet + 1 : 0;
    }
    assert.ok(sentMiB > 0 && sentMiB < 30, `${sentMiB} MiB of ${sizeMiB} were taken`);
    let dots = 0;
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      for (const byte of chunk) if (byte === 0x2e) dots++;
    }
    assert.equal(dots, sizeMiB << 20);
  });

  test('a reset by a client leaves the NVA serving', async (t) => {
    const { port } = await startNva(t, '127.0.0.31');
    const rude = connect({ port, host: '127.0.0.31' });
    await once(rude, 'connect');
    rude.write('x');
    rude.resetAndDestroy();
    const socket = connect({ port, host: '127.0.0.31', allowHalfOpen: true });
    socket.end('y');
    assert.equal(await readAll(socket), 'nva-1: y');
  });
});

describe('SampleNva over UDP', () => {
  async function exchange(
    t: TestContext,
    host: string,
    payloads: readonly Buffer[],
  ): Promise<readonly Buffer[]> {
    const { port } = await startNva(t, host);
    const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 1 << 20 });
    t.after(() => socket.close());
    const answers: Buffer[] = [];
    for (const payload of payloads) {
      socket.send(payload, port, host);
      const [answer] = (await once(socket, 'message')) as [Buffer];
      answers.push(answer);
    }
    return answers;
  }

  for (const host of ['127.0.0.31', '::1']) {
    test(`a datagram comes back with the name before it, as far as that fits (${host})`, async (t) => {
      const largest = Buffer.alloc(65_507, 1);
      const fits = Buffer.alloc(65_500, 2);
      const answers = await exchange(t, host, [Buffer.from('hello'), Buffer.alloc(0), largest, fits]);
      assert.equal(answers[0]?.toString(), 'nva-1: hello');
      assert.equal(answers[1]?.toString(), 'nva-1: ');
      assert.ok(answers[2]?.equals(largest));
      assert.ok(answers[3]?.equals(Buffer.concat([Buffer.from('nva-1: '), fits])));
    });
  }
});

describe('SampleNva health', () => {
  test('POST /sick and /well choose what /healthz answers', async (t) => {
    const { nva } = await startNva(t, '127.0.0.31');
    const base = `http://127.0.0.31:${nva.healthPort}`;
    const health = async () => {
      const answer = await fetch(`${base}/healthz`);
      return `${answer.status} ${await answer.text()}`;
    };
    assert.equal(await health(), '200 ok\n');
    assert.equal((await fetch(`${base}/sick`)).status, 405);
    assert.equal(await health(), '200 ok\n');
    assert.equal(await (await fetch(`${base}/sick`, { method: 'POST' })).text(), 'nva-1 is sick now\n');
    assert.equal(await health(), '503 sick\n');
    await fetch(`${base}/well`, { method: 'POST' });
    assert.equal(await health(), '200 ok\n');
    assert.equal((await fetch(`${base}/other`)).status, 404);
  });
});

describe('SampleNva life cycle', () => {
  test('start() rejects naming the port that is taken, and leaves nothing open', async (t) => {
    const { port } = await startNva(t, '127.0.0.31');
    const free = await freePort('127.0.0.31');
    const second = new SampleNva({
      name: 'nva-2',
      address: ipAddress('127.0.0.31'),
      ports: portSetOf(free, port),
      healthPort: 0,
    });
    await assert.rejects(second.start(), {
      code: 'LB_LISTEN_FAILED',
      message: `Sample NVA "nva-2" cannot listen on tcp 127.0.0.31:${port}: EADDRINUSE`,
    });
    const again = createServer().listen(free, '127.0.0.31');
    await once(again, 'listening');
    again.close();
  });

  test('stop() ends connections and may be called twice', async (t) => {
    const { nva, port } = await startNva(t, '127.0.0.31');
    const socket = connect({ port, host: '127.0.0.31' });
    socket.on('error', () => undefined);
    socket.write('x');
    await once(socket, 'data');
    const closed = once(socket, 'close');
    await Promise.all([nva.stop(), nva.stop()]);
    socket.resume();
    await closed;
  });
});
