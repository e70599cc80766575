import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { CAREFUL } from '../../../../support/careful-reading.js';
import { eventually, within } from '../../../../support/deadline.js';
import { testState } from '../../../../support/forwarding-state.js';
import { receive, TcpLab, TestServer, type Reception } from './tcp-lab.js';

const BACKEND = '127.0.0.2';

interface Rig {
  readonly lab: TcpLab;
  readonly server: TestServer;
  dial(): Promise<Socket>;
}

/** A listener on 127.0.0.1 in front of one backend, closed with the test. */
async function rig(
  t: { readonly after: (fn: () => void) => void },
  serve: (socket: Socket) => void,
  options: { readonly pauseOnConnect?: boolean } = {},
): Promise<Rig> {
  const server = await TestServer.listen(BACKEND, serve, options);
  const lab = await TcpLab.open(testState({ backends: [BACKEND] }), { port: server.port });
  const clients: Socket[] = [];
  t.after(() => {
    for (const client of clients) client.destroy();
    lab.close();
    server.close();
  });
  return {
    lab,
    server,
    dial: async () => {
      const client = connect({ ...CAREFUL, host: lab.host, port: lab.port, allowHalfOpen: true });
      clients.push(client);
      await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject));
      return client;
    },
  };
}

/** Asserts that nothing is left, soon. */
async function assertEmpty({ lab, server }: Rig): Promise<void> {
  await eventually(() => lab.flowCount === 0 && server.sockets.size === 0, 5000, 'flows and sockets to go');
}

describe('TCP splice', () => {
  test('carries bytes both ways and counts them', async (t) => {
    const here = await rig(t, (socket) => socket.pipe(socket));
    const client = await here.dial();
    const received = receive(client);
    client.end('hello');
    assert.deepEqual(await within(received, 5000, 'the echo'), { bytes: 5, text: 'hello', end: 'fin' });
    await assertEmpty(here);
    const totals = here.lab.manager.traffic.of('ha-ports', `nvas/${BACKEND}`, 'tcp');
    assert.equal(totals.bytesToBackend, 5);
    assert.equal(totals.bytesToClient, 5);
    assert.equal(totals.packetsToBackend, 1);
    assert.deepEqual(totals.flowsEnded, { closed: 1 });
    assert.equal(totals.flowsActive, 0);
    assert.equal(totals.resets, 0);
  });

  test('passes FIN of the client on and still carries the answer', async (t) => {
    const here = await rig(t, (socket) => {
      void receive(socket).then(({ text, end }) => socket.end(`${end} after ${text}`));
    });
    const client = await here.dial();
    const received = receive(client);
    client.end('question');
    assert.equal((await within(received, 5000, 'the answer')).text, 'fin after question');
    await assertEmpty(here);
  });

  test('passes FIN of the backend on and still carries what the client says', async (t) => {
    let heard: Promise<Reception> | undefined;
    const here = await rig(t, (socket) => {
      heard = receive(socket);
      socket.end('goodbye');
    });
    const client = await here.dial();
    assert.deepEqual(await within(receive(client), 5000, 'FIN'), { bytes: 7, text: 'goodbye', end: 'fin' });
    await eventually(
      () => [...here.lab.manager.table.all()][0]?.state === 'half-closed',
      5000,
      'half-closed',
    );
    client.end('but I have more');
    assert.ok(heard !== undefined);
    assert.deepEqual(await within(heard, 5000, 'the rest'), {
      bytes: 15,
      text: 'but I have more',
      end: 'fin',
    });
    await assertEmpty(here);
    assert.deepEqual(here.lab.endsOf(BACKEND), { closed: 1 });
  });

  for (const halfClose of [false, true]) {
    const clientDoes = halfClose ? 'has sent FIN' : 'is open';
    test(`gives no clean end for 500 responses followed at once by RST when the client ${clientDoes}`, async (t) => {
      const response = 'response'.repeat(64);
      const here = await rig(t, (socket) => {
        socket.once('data', () => {
          socket.write(response);
          socket.resetAndDestroy();
        });
      });
      const ends = { fin: 0, reset: 0 };
      let whole = 0;
      const one = async (): Promise<void> => {
        const client = await here.dial();
        const received = receive(client);
        if (halfClose) client.end('go');
        else client.write('go');
        const { end, bytes } = await within(received, 10_000, 'the end');
        client.destroy();
        ends[end]++;
        if (bytes === response.length) whole++;
      };
      for (let round = 0; round < 50; round++) {
        await Promise.all(Array.from({ length: 10 }, one));
      }
      assert.deepEqual(ends, { fin: 0, reset: 500 });
      t.diagnostic(`${whole} of 500 responses arrived whole before the RST`);
      assert.ok(whole >= 490, `only ${whole} of 500 responses arrived`);
      await assertEmpty(here);
      assert.deepEqual(here.lab.endsOf(BACKEND), { 'backend-reset': 500 });
    });

    const backendDoes = halfClose ? 'has sent FIN' : 'is open';
    test(`gives no clean end for 200 requests followed at once by RST when the backend ${backendDoes}`, async (t) => {
      const receptions: Promise<Reception>[] = [];
      const here = await rig(t, (socket) => {
        receptions.push(receive(socket));
        if (halfClose) socket.end('hello');
        else socket.write('hello');
      });
      for (let round = 0; round < 200; round++) {
        const client = await here.dial();
        // With the greeting and its FIN read, both directions are known to work.
        await new Promise((resolve) => client.once(halfClose ? 'end' : 'data', resolve).resume());
        client.write('request');
        client.resetAndDestroy();
      }
      const all = await within(Promise.all(receptions), 10_000, 'all ends');
      assert.equal(all.length, 200);
      assert.equal(all.filter(({ end }) => end === 'fin').length, 0);
      await assertEmpty(here);
      assert.deepEqual(here.lab.endsOf(BACKEND), { 'client-reset': 200 });
    });
  }

  test('delivers a large response before the RST that follows it', async (t) => {
    const here = await rig(t, (socket) => {
      socket.once('data', () =>
        socket.write(Buffer.alloc(256 * 1024), () => setTimeout(() => socket.resetAndDestroy(), 50)),
      );
    });
    const client = await here.dial();
    client.write('go');
    const { bytes, end } = await within(receive(client), 10_000, 'the end');
    assert.equal(end, 'reset');
    assert.equal(bytes, 256 * 1024);
    await assertEmpty(here);
  });

  test('carries 64 MiB through a slow reader intact', async (t) => {
    const CHUNK = 256 * 1024;
    const CHUNKS = 256;
    const here = await rig(t, (socket) => {
      // As fast as it goes: each chunk is filled with its number.
      let next = 0;
      const more = (): void => {
        while (next < CHUNKS) {
          if (!socket.write(Buffer.alloc(CHUNK, next++ & 0xff))) return;
        }
        socket.end();
      };
      socket.on('drain', more);
      socket.resume();
      more();
    });
    const client = await here.dial();
    let bytes = 0;
    let wrong = 0;
    client.on('data', (chunk: Buffer) => {
      for (let index = 0; index < chunk.length; index += 997) {
        if (chunk[index] !== (Math.floor((bytes + index) / CHUNK) & 0xff)) wrong++;
      }
      bytes += chunk.length;
      client.pause();
      setImmediate(() => client.resume());
    });
    await within(new Promise((resolve) => client.once('end', resolve)), 60_000, 'all of it');
    client.end();
    assert.equal(bytes, CHUNK * CHUNKS);
    assert.equal(wrong, 0);
    await assertEmpty(here);
  });

  test('stops reading a backend whose client does not read', async (t) => {
    let written = 0;
    const here = await rig(t, (socket) => {
      const chunk = Buffer.alloc(64 * 1024);
      const more = (): void => {
        do written += chunk.length;
        while (socket.write(chunk) && written < 1024 * 1024 * 1024);
      };
      socket.on('drain', more);
      more();
    });
    const client = await here.dial();
    client.pause();
    // Kernel buffers of three sockets take some; then nothing moves.
    let last = -1;
    await eventually(
      async () => {
        const stuck = written === last;
        last = written;
        await new Promise((resolve) => setTimeout(resolve, 300));
        return stuck;
      },
      10_000,
      'the backend to be held up',
    );
    const [flow] = here.lab.manager.table.all();
    assert.ok(flow !== undefined);
    // Of what haports has read, all but the last chunks has gone to the kernel.
    const took = flow.bytesToClient;
    t.diagnostic(`read from the backend: ${took >> 10} KiB, written by it: ${written >> 10} KiB`);
    assert.ok(took < 64 * 1024 * 1024, `haports read ${took} bytes that no one takes`);
    client.resetAndDestroy();
  });

  test('leaves nothing behind after 2,000 short connections', async (t) => {
    const here = await rig(t, (socket) => {
      socket.on('end', () => socket.end('bye'));
      socket.resume();
    });
    const before = process.getActiveResourcesInfo().filter((name) => name !== 'TickObject').length;
    let ok = 0;
    const worker = async (count: number): Promise<void> => {
      for (let index = 0; index < count; index++) {
        const client = await here.dial();
        const received = receive(client);
        client.end('hi');
        if ((await within(received, 10_000, 'the answer')).text === 'bye') ok++;
      }
    };
    await Promise.all(Array.from({ length: 20 }, () => worker(100)));
    assert.equal(ok, 2000);
    await assertEmpty(here);
    assert.equal(here.lab.manager.table.use('embryonic').used, 0);
    assert.equal(here.lab.manager.table.use('tcp').used, 0);
    await eventually(
      () => process.getActiveResourcesInfo().filter((name) => name !== 'TickObject').length <= before + 2,
      5000,
      'handles and timers to go',
    );
    assert.deepEqual(here.lab.endsOf(BACKEND), { closed: 2000 });
  });
});
