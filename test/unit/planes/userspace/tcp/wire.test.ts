import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../../../src/model/address.js';
import { portSetOf } from '../../../../../src/model/ports.js';
import { campaign } from '../../../../support/campaign.js';
import { eventually, within } from '../../../../support/deadline.js';
import { FakeClock } from '../../../../support/fake-clock.js';
import { onWire, receive, TestServer, type Reception, type WireLab } from './tcp-lab.js';

/* TCP through real sockets, where it matters what the kernel, libuv and node:net make of it. */

const BACKEND = '127.0.0.2';
const RESPONSES = campaign({ share: 80, whole: 500 });
const CONNECTIONS = campaign({ share: 200, whole: 2000 });

/** Asserts that nothing is left, soon. */
async function assertEmpty({ lab, server }: WireLab): Promise<void> {
  await eventually(() => lab.flowCount === 0 && server.sockets.size === 0, 5000, 'flows and sockets to go');
}

const greet = (socket: Socket): void => void socket.write('hello');

async function firstWord(client: Socket): Promise<string> {
  const chunk = await within(
    new Promise<Buffer>((resolve, reject) => {
      client.once('data', resolve).once('close', () => reject(new Error('closed and said nothing')));
    }),
    5000,
    'a greeting',
  );
  return chunk.toString();
}

describe('TCP splice', () => {
  test('passes FIN of the client on and still carries the answer', async (t) => {
    const here = await onWire(t, (socket) => {
      void receive(socket).then(({ text, end }) => socket.end(`${end} after ${text}`));
    });
    const client = await here.dial();
    const received = receive(client);
    client.end('question');
    assert.equal((await within(received, 5000, 'the answer')).text, 'fin after question');
    await assertEmpty(here);
    const { bytesToBackend, bytesToClient, packetsToBackend, ...totals } = here.lab.totals(BACKEND);
    assert.deepEqual([bytesToBackend, packetsToBackend, bytesToClient], [8, 1, 18]);
    assert.deepEqual([totals.flowsEnded, totals.flowsActive, totals.resets], [{ closed: 1 }, 0, 0]);
  });

  test('passes FIN of the backend on and still carries what the client says', async (t) => {
    let heard: Promise<Reception> | undefined;
    const here = await onWire(t, (socket) => {
      heard = receive(socket);
      socket.end('goodbye');
    });
    const client = await here.dial();
    assert.deepEqual(await within(receive(client), 5000, 'FIN'), { bytes: 7, text: 'goodbye', end: 'fin' });
    await eventually(() => here.lab.onlyFlow.state === 'half-closed', 5000, 'half-closed');
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
    test(`gives no clean end for ${RESPONSES} responses followed at once by RST when the client ${clientDoes}`, async (t) => {
      const response = 'response'.repeat(64);
      const here = await onWire(t, (socket) => {
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
      for (let round = 0; round < RESPONSES / 10; round++) {
        await Promise.all(Array.from({ length: 10 }, one));
      }
      assert.deepEqual(ends, { fin: 0, reset: RESPONSES });
      t.diagnostic(`${whole} of ${RESPONSES} responses arrived whole before the RST`);
      assert.ok(whole >= 0.98 * RESPONSES, `only ${whole} of ${RESPONSES} responses arrived`);
      await assertEmpty(here);
      assert.deepEqual(here.lab.endsOf(BACKEND), { 'backend-reset': RESPONSES });
    });

    const backendDoes = halfClose ? 'has sent FIN' : 'is open';
    test(`gives no clean end for 200 requests followed at once by RST when the backend ${backendDoes}`, async (t) => {
      const receptions: Promise<Reception>[] = [];
      const here = await onWire(t, (socket) => {
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
    const here = await onWire(t, (socket) => {
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

  test(`leaves nothing behind after ${CONNECTIONS} short connections`, async (t) => {
    const here = await onWire(t, (socket) => {
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
    await Promise.all(Array.from({ length: 20 }, () => worker(CONNECTIONS / 20)));
    assert.equal(ok, CONNECTIONS);
    await assertEmpty(here);
    assert.equal(here.lab.manager.table.use('embryonic').used, 0);
    assert.equal(here.lab.manager.table.use('tcp').used, 0);
    await eventually(
      () => process.getActiveResourcesInfo().filter((name) => name !== 'TickObject').length <= before + 2,
      5000,
      'handles and timers to go',
    );
    assert.deepEqual(here.lab.endsOf(BACKEND), { closed: CONNECTIONS });
  });
});

describe('TCP connection on real sockets', () => {
  test('loses no byte that the client sent before a retry', async (t) => {
    const here = await onWire(
      t,
      (socket) => void receive(socket).then(({ text }) => socket.end(text.toUpperCase())),
      { backends: ['127.0.0.3', BACKEND], rule: { haPorts: false, ports: portSetOf(443) } },
    );
    const client = await here.dial();
    client.end('early words');
    assert.equal((await within(receive(client), 5000, 'the answer')).text, 'EARLY WORDS');
  });

  test('holds the client unanswered under allDown drop until the embryonic limit', async (t) => {
    const clock = new FakeClock();
    const parts = { backends: [{ address: BACKEND, eligible: false }], rule: { allDown: 'drop' } } as const;
    const { lab, dial } = await onWire(t, greet, parts, { clock });
    const client = await dial();
    client.write('anybody?');
    const reception = receive(client);
    await eventually(() => lab.flowCount === 1, 5000, 'the flow');
    assert.equal(lab.onlyFlow.state, 'blackholed');
    // Data that was not read when the socket is closed would make the kernel send RST.
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(lab.drops(), { 'no-backend': 1 });
    for (const [elapsedMs, flows] of [
      [9_900, 1],
      [1_000, 0],
    ] as const) {
      clock.advance(elapsedMs);
      lab.manager.tick();
      assert.equal(lab.flowCount, flows);
    }
    assert.deepEqual(await within(reception, 5000, 'the end'), { bytes: 0, text: '', end: 'fin' });
  });

  for (const [style, expected] of [
    ['reset', 'reset'],
    ['close', 'fin'],
  ] as const) {
    test(`manager.end() with "${style}" reaches both ends`, async (t) => {
      const heard: Promise<Reception>[] = [];
      const { lab, dial } = await onWire(t, (socket) => {
        heard.push(receive(socket));
        greet(socket);
      });
      const client = await dial();
      await firstWord(client);
      const reception = receive(client);
      lab.manager.end(lab.onlyFlow, 'idle', style);
      assert.equal((await within(reception, 5000, 'the client to hear')).end, expected);
      assert.equal((await within(heard[0]!, 5000, 'the backend to hear')).end, expected);
      assert.deepEqual([lab.flowCount, lab.endsOf(BACKEND)], [0, { idle: 1 }]);
    });
  }

  test('ends with RST also when reset in the very turn in which FIN was passed on', async (t) => {
    const here = await onWire(t, (socket) => {
      greet(socket);
      // Having read FIN, Node notices an RST only when it writes.
      const writing = setInterval(() => socket.write('?'), 5);
      socket.on('close', () => clearInterval(writing)).resume();
    });
    const { manager } = here.lab;
    for (let round = 0; round < 20; round++) {
      const client = await here.dial();
      await firstWord(client);
      const flow = here.lab.onlyFlow;
      client.end();
      // The state changes when FIN is passed on; shutdown() is then still to come.
      const original = manager.halfClosed.bind(manager);
      manager.halfClosed = (half) => {
        original(half);
        manager.halfClosed = original;
        manager.end(half, 'removed', 'reset');
      };
      assert.equal((await within(receive(client), 5000, 'RST')).end, 'reset');
      assert.equal(flow.tableIndex, -1);
    }
    await assertEmpty(here);
  });

  test('balances IPv6 on a port above 32767 with an offset', async (t) => {
    const backend = await TestServer.listen('::1', (socket) => socket.end('six'));
    t.after(() => backend.close());
    const port = 40_000 + (process.pid % 10_000);
    const { lab, dial } = await onWire(
      t,
      greet,
      {
        backends: ['::1'],
        frontend: { address: ipAddress('::1') },
        rule: { portOffset: backend.port - port },
      },
      { port },
    );
    const client = await dial();
    const { destination, destinationPort } = lab.onlyFlow.tuple;
    assert.equal((await within(receive(client), 5000, 'the answer')).text, 'six');
    assert.deepEqual([destination.text, destinationPort], ['::1', port]);
  });

  test('dials from the pool’s source addresses and ports, past those that others have', async (t) => {
    const seen: string[] = [];
    const base = 20_000 + (process.pid % 5000) * 2;
    // Another process holds the first port; the first address is not this machine's.
    const holder = await TestServer.listen('127.0.0.9', () => undefined, base);
    t.after(() => holder.close());
    const pool = {
      sourceAddresses: ['192.0.2.77', '127.0.0.9'].map(ipAddress),
      sourcePorts: portSetOf(base, base + 1, base + 2),
    };
    const { lab, dial } = await onWire(
      t,
      (socket) => {
        seen.push(`${socket.remoteAddress}:${socket.remotePort}`);
        greet(socket);
      },
      { pool },
    );
    for (let n = 0; n < 2; n++) await firstWord(await dial());
    assert.deepEqual(seen.sort(), [`127.0.0.9:${base + 1}`, `127.0.0.9:${base + 2}`]);
    assert.equal((await within(receive(await dial()), 5000, 'RST')).end, 'reset');
    assert.deepEqual(lab.drops(), { 'ports-exhausted': 1 });
    const kinds = lab.flushEvents().map(({ type }) => type);
    assert.ok(kinds.includes('source-port-pressure'));
    assert.ok(!kinds.includes('passive-failure'), 'not the backend’s fault');
  });
});
