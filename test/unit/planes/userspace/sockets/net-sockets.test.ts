import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { ipAddress } from '../../../../../src/model/address.js';
import type {
  ByteStream,
  StreamHandler,
  StreamSockets,
} from '../../../../../src/planes/userspace/sockets/byte-stream.js';
import { NetSockets } from '../../../../../src/planes/userspace/sockets/net.js';
import { eventually, within } from '../../../../support/deadline.js';
import { onWire, TestServer } from '../tcp/tcp-lab.js';

/** Those of node:net, and every stream that they make. */
class WatchedSockets implements StreamSockets {
  readonly #sockets = new NetSockets();
  readonly accepted: ByteStream[] = [];
  readonly dialled: ByteStream[] = [];

  dial(...args: Parameters<StreamSockets['dial']>): ByteStream {
    const stream = this.#sockets.dial(...args);
    this.dialled.push(stream);
    return stream;
  }

  listen(...[options, handler]: Parameters<StreamSockets['listen']>): ReturnType<StreamSockets['listen']> {
    return this.#sockets.listen(options, {
      onStream: (stream) => {
        this.accepted.push(stream);
        handler.onStream(stream);
      },
      onAcceptError: (error) => handler.onAcceptError(error),
    });
  }
}

for (const mode of ['both directions open', 'the client half-closed'] as const) {
  test(`a connection holds little for a client that reads nothing, with ${mode}`, async (t) => {
    const TOTAL = 32 * 1024 * 1024;
    let fin = false;
    const sockets = new WatchedSockets();
    const { lab, dial } = await onWire(
      t,
      (socket) => {
        socket.on('end', () => (fin = true)).resume();
        socket.end(Buffer.alloc(TOTAL, 7));
      },
      {},
      { sockets },
    );
    const client = await dial();
    client.pause();
    if (mode === 'the client half-closed') {
      client.end();
      await eventually(() => fin, 5000, 'FIN to pass');
    }
    await eventually(() => lab.flowCount === 1, 5000, 'the flow');
    const flow = lab.onlyFlow;
    const [inner] = sockets.accepted;
    assert.ok(inner !== undefined);
    let most = 0;
    let last = -1;
    await eventually(
      async () => {
        most = Math.max(most, inner.waitingBytes);
        const isStuck = last === flow.bytesToClient;
        last = flow.bytesToClient;
        await new Promise((resolve) => setTimeout(resolve, 100));
        return isStuck && inner.waitingBytes > 0;
      },
      10_000,
      'the backend to be held up',
    );
    assert.ok(flow.bytesToClient < TOTAL, 'not all was read');
    let received = 0;
    client.on('data', (chunk: Buffer) => {
      received += chunk.length;
      most = Math.max(most, inner.waitingBytes);
    });
    const end = new Promise((resolve) => client.once('end', resolve));
    client.resume();
    await within(end, 20_000, 'everything to arrive');
    assert.deepEqual([received, flow.bytesToClient], [TOTAL, TOTAL]);
    // The limit of 64 KiB, and the chunk that went over it.
    assert.ok(most <= 2 * 64 * 1024, `held ${most} bytes`);
  });
}

class Recorder implements StreamHandler {
  readonly heard: string[] = [];
  onConnect = (): unknown => this.heard.push('connect');
  onData = (_stream: ByteStream, chunk: Buffer): unknown => this.heard.push(chunk.toString());
  onEnd = (): unknown => this.heard.push('end');
  onDrain = (): unknown => this.heard.push('drain');
  onError = (): unknown => this.heard.push('error');
  onClose = (): unknown => this.heard.push('close');
}

async function dialling(t: TestContext) {
  const accepted: Socket[] = [];
  const server = await TestServer.listen('127.0.0.2', (socket) => accepted.push(socket));
  t.after(() => server.close());
  const told = new Recorder();
  const end = { address: ipAddress('127.0.0.2'), port: server.port, noDelay: true };
  const stream = new NetSockets().dial(end, told);
  t.after(() => stream.destroy());
  return { stream, told, accepted };
}

async function dialled(t: TestContext): Promise<{ stream: ByteStream; told: Recorder; peer: Socket }> {
  const { stream, told, accepted } = await dialling(t);
  await eventually(() => accepted.length === 1 && told.heard.length === 1, 5000, 'the connection');
  return { stream, told, peer: accepted[0]! };
}

test('a stream hears nothing while it is paused, not even the end, and all of it afterwards', async (t) => {
  const { stream, told, peer } = await dialled(t);
  stream.resume();
  peer.write('one');
  await eventually(() => told.heard.includes('one'), 5000, 'the first bytes');
  stream.pause();
  peer.end('two');
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(told.heard, ['connect', 'one']);
  stream.resume();
  await eventually(() => told.heard.includes('end'), 5000, 'the end');
  assert.deepEqual(told.heard, ['connect', 'one', 'two', 'end']);
});

for (const end of ['reset', 'destroy'] as const) {
  test(`a stream that is connecting hears only that it is closed after ${end}()`, async (t) => {
    const { told, stream } = await dialling(t);
    stream[end]();
    await eventually(() => told.heard.includes('close'), 5000, 'the close');
    assert.deepEqual(told.heard, ['close']);
  });

  test(`a stream hears only that it is closed after ${end}()`, async (t) => {
    const { stream, told, peer } = await dialled(t);
    stream.resume();
    peer.write('one');
    stream[end]();
    await eventually(() => told.heard.includes('close'), 5000, 'the close');
    assert.deepEqual(told.heard, ['connect', 'close']);
  });
}
