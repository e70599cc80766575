import assert from 'node:assert/strict';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { test } from 'node:test';
import { LoopTurn, SPLICE_HIGH_WATER_MARK, Splice } from '../../../../../src/planes/userspace/tcp/splice.js';
import { Flow } from '../../../../../src/flows/flow.js';
import { ipAddress } from '../../../../../src/model/address.js';
import { systemClock } from '../../../../../src/runtime/clock.js';
import { eventually, within } from '../../../../support/deadline.js';
import { testRule } from '../../../../support/forwarding-state.js';

interface Pair {
  /** The end that a splice is given. */
  readonly inner: Socket;
  /** The end of the client or the backend. */
  readonly outer: Socket;
}

async function socketPair(t: { readonly after: (fn: () => void) => void }): Promise<Pair> {
  const server = createServer({
    allowHalfOpen: true,
    pauseOnConnect: true,
    highWaterMark: SPLICE_HIGH_WATER_MARK,
  });
  await new Promise<void>((resolve) => server.listen({ host: '127.0.0.1', port: 0 }, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const outer = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    allowHalfOpen: true,
  });
  const inner = await within(accepted, 5000, 'the connection');
  server.close();
  for (const socket of [inner, outer]) {
    socket.on('error', () => undefined);
    t.after(() => socket.destroy());
  }
  return { inner, outer };
}

function newFlow(): Flow {
  return new Flow({
    id: 1,
    tuple: {
      protocol: 'tcp',
      source: ipAddress('127.0.0.1'),
      sourcePort: 1,
      destination: ipAddress('127.0.0.1'),
      destinationPort: 2,
    },
    rule: testRule(),
    transport: { close: () => undefined, blackhole: () => undefined, unpin: () => undefined },
    wallMs: 0,
    nowMs: 0,
  });
}

for (const mode of ['both directions open', 'the client half-closed'] as const) {
  test(`Splice holds little for a client that reads nothing, with ${mode}`, async (t) => {
    const client = await socketPair(t);
    const backend = await socketPair(t);
    const flow = newFlow();
    let fins = 0;
    const splice = new Splice(
      client.inner,
      backend.inner,
      flow,
      { clock: systemClock, turn: new LoopTurn() },
      { finPassed: () => fins++ },
    );
    splice.start();
    client.outer.pause();
    if (mode === 'the client half-closed') {
      client.outer.end();
      await eventually(() => fins === 1, 5000, 'FIN to pass');
    }
    const TOTAL = 32 * 1024 * 1024;
    backend.outer.end(Buffer.alloc(TOTAL, 7));
    let most = 0;
    let last = -1;
    await eventually(
      async () => {
        most = Math.max(most, client.inner.writableLength + backend.inner.readableLength);
        const stuck = last === flow.bytesToClient;
        last = flow.bytesToClient;
        await new Promise((resolve) => setTimeout(resolve, 100));
        return stuck && client.inner.writableLength > 0;
      },
      10_000,
      'the backend to be held up',
    );
    assert.ok(flow.bytesToClient < TOTAL, 'not all was read');

    let received = 0;
    client.outer.on('data', (chunk: Buffer) => {
      received += chunk.length;
      most = Math.max(most, client.inner.writableLength + backend.inner.readableLength);
    });
    const end = new Promise((resolve) => client.outer.once('end', resolve));
    client.outer.resume();
    await within(end, 20_000, 'everything to arrive');
    assert.equal(received, TOTAL);
    assert.equal(flow.bytesToClient, TOTAL);
    t.diagnostic(`most held at a time: ${most >> 10} KiB`);
    // The limit of 64 KiB, the chunk that went over it, and one that was read before the reading stopped.
    assert.ok(most <= 3 * 64 * 1024, `held ${most} bytes`);
  });
}

test('Splice stops: nothing moves after stop()', async (t) => {
  const client = await socketPair(t);
  const backend = await socketPair(t);
  const flow = newFlow();
  const splice = new Splice(
    client.inner,
    backend.inner,
    flow,
    { clock: systemClock, turn: new LoopTurn() },
    { finPassed: () => undefined },
  );
  splice.start();
  client.outer.write('one');
  await eventually(() => flow.bytesToBackend === 3, 5000, 'the first bytes');
  splice.stop();
  client.outer.write('two');
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(flow.bytesToBackend, 3);
  for (const name of ['data', 'readable', 'drain']) {
    assert.equal(client.inner.listenerCount(name), 0, name);
    assert.equal(backend.inner.listenerCount(name), 0, name);
  }
});
