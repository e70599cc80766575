import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../../../src/model/address.js';
import { portSetOf } from '../../../../../src/model/ports.js';
import { eventually, within } from '../../../../support/deadline.js';
import { FakeClock } from '../../../../support/fake-clock.js';
import { testState, type TestStateParts } from '../../../../support/forwarding-state.js';
import { freePort, receive, TcpLab, TestServer } from './tcp-lab.js';

const FIRST = '127.0.0.2';
const SECOND = '127.0.0.3';
const THIRD = '127.0.0.4';

interface Cleanup {
  after: (fn: () => void) => void;
}

/** A backend that says its name to each client and then echoes. */
async function namedServer(t: Cleanup, host: string, port?: number): Promise<TestServer> {
  const server = await TestServer.listen(
    host,
    (socket) => {
      socket.write(host);
      socket.pipe(socket);
    },
    port === undefined ? {} : { port },
  );
  t.after(() => server.close());
  return server;
}

async function openLab(
  t: Cleanup,
  parts: TestStateParts,
  options?: { readonly clock?: FakeClock; readonly port?: number },
): Promise<TcpLab> {
  const lab = await TcpLab.open(testState(parts), options);
  t.after(() => lab.close());
  return lab;
}

async function dial(t: Cleanup, lab: TcpLab, localAddress?: string): Promise<Socket> {
  const client = connect({
    host: lab.host,
    port: lab.port,
    allowHalfOpen: true,
    ...(localAddress === undefined ? {} : { localAddress }),
  });
  t.after(() => client.destroy());
  client.on('error', () => undefined);
  await new Promise((resolve, reject) => client.once('connect', resolve).once('error', reject));
  return client;
}

/** Whether a new client is met with RST, be it while `connect` is still to be told. */
async function isRefused(t: Cleanup, lab: TcpLab): Promise<boolean> {
  try {
    const client = await dial(t, lab);
    return (await within(receive(client), 5000, 'RST')).end === 'reset';
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ECONNRESET';
  }
}

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

function onlyFlow(lab: TcpLab) {
  const [flow] = lab.manager.table.all();
  assert.ok(flow !== undefined, 'there is a flow');
  return flow;
}

describe('TCP connection', () => {
  test('retries at the next backend when the first refuses', async (t) => {
    const second = await namedServer(t, SECOND);
    const lab = await openLab(t, { backends: [FIRST, SECOND] }, { port: second.port });
    const client = await dial(t, lab);
    assert.equal(await firstWord(client), SECOND);
    const flow = onlyFlow(lab);
    assert.equal(flow.placement?.backendId, `nvas/${SECOND}`);
    assert.equal(flow.placement.reason, 'retry');
    assert.deepEqual(flow.placement.excluded, [`nvas/${FIRST}`]);
    assert.equal(flow.state, 'established');
    const failed = lab.manager.traffic.of('ha-ports', `nvas/${FIRST}`, 'tcp');
    assert.equal(failed.connectFailures, 1);
    assert.equal(failed.connectRetries, 1);
    assert.equal(failed.flowsOpened, 0);
    assert.equal(failed.flowsActive, 0);
    assert.deepEqual(
      lab.latencies.map(({ backendId }) => backendId),
      [`nvas/${SECOND}`],
    );
    const passive = lab.flushEvents().find(({ type }) => type === 'passive-failure');
    assert.ok(passive?.type === 'passive-failure');
    assert.equal(passive.backendId, `nvas/${FIRST}`);
    assert.equal(passive.evidence, 'ECONNREFUSED');
  });

  test('loses no byte that the client sent before a retry', async (t) => {
    const second = await TestServer.listen(SECOND, (socket) => {
      void receive(socket).then(({ text }) => socket.end(text.toUpperCase()));
    });
    t.after(() => second.close());
    const lab = await openLab(t, { backends: [FIRST, SECOND] }, { port: second.port });
    const client = await dial(t, lab);
    client.end('early words');
    assert.equal((await within(receive(client), 5000, 'the answer')).text, 'EARLY WORDS');
  });

  test('resets the client when every attempt fails', async (t) => {
    const lab = await openLab(t, { backends: [FIRST, SECOND, THIRD], pool: { connectAttempts: 2 } });
    assert.ok(await isRefused(t, lab));
    assert.equal(lab.flowCount, 0);
    assert.deepEqual(lab.endsOf(SECOND), { 'connect-failed': 1 });
    assert.equal(lab.manager.traffic.of('ha-ports', `nvas/${THIRD}`, 'tcp').connectFailures, 0);
  });

  test('tries the next backend when a connect takes too long', async (t) => {
    const port = await freePort(FIRST);
    const second = await namedServer(t, SECOND, port);
    assert.ok(second.port === port);
    await deafListener(t, FIRST, port);
    const lab = await openLab(t, { backends: [FIRST, SECOND], pool: { connectTimeoutMs: 250 } }, { port });
    const startedMs = performance.now();
    const client = await dial(t, lab);
    assert.equal(await firstWord(client), SECOND);
    const tookMs = performance.now() - startedMs;
    assert.ok(tookMs >= 240 && tookMs < 2000, `took ${tookMs} ms`);
    const passive = lab.flushEvents().find(({ type }) => type === 'passive-failure');
    assert.ok(passive?.type === 'passive-failure');
    assert.equal(passive.evidence, 'connect timeout');
    assert.ok((lab.latencies[0]?.seconds ?? 0) >= 0.24, 'latency counts from the first attempt');
  });

  test('sends flows past a backend at its cap, and refuses when all are full', async (t) => {
    const first = await namedServer(t, FIRST);
    await namedServer(t, SECOND, first.port);
    const lab = await openLab(
      t,
      {
        backends: [
          { address: FIRST, backend: { maxConnections: 1 } },
          { address: SECOND, backend: { maxConnections: 1 } },
        ],
      },
      { port: first.port },
    );
    const one = await dial(t, lab);
    assert.equal(await firstWord(one), FIRST);
    const two = await dial(t, lab);
    assert.equal(await firstWord(two), SECOND);
    assert.ok(await isRefused(t, lab));
    assert.deepEqual(lab.drops(), { 'backends-full': 1 });
    one.resetAndDestroy();
    await eventually(() => lab.flowCount === 1, 5000, 'the first flow to end');
    assert.equal(await firstWord(await dial(t, lab)), FIRST);
  });

  test('resets when no backend is eligible', async (t) => {
    const lab = await openLab(t, { backends: [{ address: FIRST, eligible: false }] });
    assert.ok(await isRefused(t, lab));
    assert.deepEqual(lab.drops(), { 'no-backend': 1 });
    assert.equal(lab.arrivals(), 1);
    assert.equal(lab.flowCount, 0);
  });

  test('holds the client unanswered under allDown drop until the embryonic limit', async (t) => {
    const clock = new FakeClock();
    const parts = { backends: [{ address: FIRST, eligible: false }], rule: { allDown: 'drop' as const } };
    const lab = await openLab(t, parts, { clock });
    const client = await dial(t, lab);
    client.write('anybody?');
    const reception = receive(client);
    await eventually(() => lab.flowCount === 1, 5000, 'the flow');
    assert.equal(onlyFlow(lab).state, 'blackholed');
    // Data that was not read when the socket is closed would make the kernel send RST.
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(lab.drops(), { 'no-backend': 1 });
    clock.advance(9_900);
    lab.manager.tick();
    assert.equal(lab.flowCount, 1);
    clock.advance(1_000);
    lab.manager.tick();
    assert.equal(lab.flowCount, 0);
    assert.deepEqual(await within(reception, 5000, 'the end'), { bytes: 0, text: '', end: 'fin' });
  });

  test('forgets a held client that resets', async (t) => {
    const parts = { backends: [{ address: FIRST, eligible: false }], rule: { allDown: 'drop' as const } };
    const lab = await openLab(t, parts);
    const client = await dial(t, lab);
    await eventually(() => lab.flowCount === 1, 5000, 'the flow');
    client.resetAndDestroy();
    await eventually(() => lab.flowCount === 0, 5000, 'the flow to go');
  });

  test('blackhole() cuts an established flow off from its backend and leaves the client', async (t) => {
    const first = await namedServer(t, FIRST);
    const lab = await openLab(t, { backends: [FIRST] }, { port: first.port });
    const client = await dial(t, lab);
    await firstWord(client);
    lab.manager.blackhole(onlyFlow(lab));
    await eventually(() => first.sockets.size === 0, 5000, 'the backend side to go');
    let ended = false;
    client.on('close', () => (ended = true));
    client.on('end', () => (ended = true));
    client.write(Buffer.alloc(1024 * 1024));
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(ended, false);
    assert.equal(lab.flowCount, 1);
    assert.equal(lab.manager.table.use('embryonic').used, 1);
  });

  test('serves as fail-open when the rule says so', async (t) => {
    const first = await namedServer(t, FIRST);
    const lab = await openLab(
      t,
      { backends: [{ address: FIRST, eligible: false }], rule: { allDown: 'fail-open' }, failOpen: true },
      { port: first.port },
    );
    assert.equal(await firstWord(await dial(t, lab)), FIRST);
    assert.equal(onlyFlow(lab).placement?.reason, 'fail-open');
  });

  for (const style of ['reset', 'close'] as const) {
    test(`manager.end() with "${style}" reaches both ends`, async (t) => {
      const heard: ReturnType<typeof receive>[] = [];
      const first = await TestServer.listen(FIRST, (socket) => {
        heard.push(receive(socket));
        socket.write('hello');
      });
      t.after(() => first.close());
      const lab = await openLab(t, { backends: [FIRST] }, { port: first.port });
      const client = await dial(t, lab);
      await firstWord(client);
      const reception = receive(client);
      lab.manager.end(onlyFlow(lab), 'idle', style);
      const expected = style === 'reset' ? 'reset' : 'fin';
      assert.equal((await within(reception, 5000, 'the client to hear')).end, expected);
      assert.equal((await within(heard[0]!, 5000, 'the backend to hear')).end, expected);
      assert.equal(lab.flowCount, 0);
      assert.deepEqual(lab.endsOf(FIRST), { idle: 1 });
    });
  }

  test('ends with RST also when reset in the very turn in which FIN was passed on', async (t) => {
    const first = await TestServer.listen(FIRST, (socket) => {
      socket.write('hello');
      // Having read FIN, Node notices an RST only when it writes.
      const writing = setInterval(() => socket.write('?'), 5);
      socket.on('close', () => clearInterval(writing)).resume();
    });
    t.after(() => first.close());
    const lab = await openLab(t, { backends: [FIRST] }, { port: first.port });
    for (let round = 0; round < 20; round++) {
      const client = await dial(t, lab);
      await firstWord(client);
      const flow = onlyFlow(lab);
      client.end();
      // The state changes when FIN is passed on; shutdown() is then still to come.
      const original = lab.manager.halfClosed.bind(lab.manager);
      lab.manager.halfClosed = (half) => {
        original(half);
        lab.manager.halfClosed = original;
        lab.manager.end(half, 'removed', 'reset');
      };
      assert.equal((await within(receive(client), 5000, 'RST')).end, 'reset');
      assert.equal(flow.tableIndex, -1);
    }
    await eventually(() => first.sockets.size === 0, 5000, 'the backend side to go');
  });

  test('ends while connecting without a trace', async (t) => {
    const port = await freePort(FIRST);
    await deafListener(t, FIRST, port);
    const lab = await openLab(t, { backends: [FIRST] }, { port });
    const client = await dial(t, lab);
    const reception = receive(client);
    await eventually(() => lab.flowCount === 1, 5000, 'the flow');
    lab.manager.end(onlyFlow(lab), 'removed', 'reset');
    assert.equal((await within(reception, 5000, 'RST')).end, 'reset');
    assert.equal(lab.flowCount, 0);
    assert.equal(lab.flushEvents().filter(({ type }) => type === 'passive-failure').length, 0);
  });

  test('admits by the frontend lists', async (t) => {
    const first = await namedServer(t, FIRST);
    const block = { address: ipAddress('127.0.0.1'), prefixLength: 32, text: '127.0.0.1/32' };
    const lab = await openLab(t, { backends: [FIRST], frontend: { deny: [block] } }, { port: first.port });
    assert.ok(await isRefused(t, lab));
    assert.deepEqual(lab.drops(), { denied: 1 });
    assert.equal(await firstWord(await dial(t, lab, '127.0.0.77')), FIRST);
    assert.equal(onlyFlow(lab).tuple.source.text, '127.0.0.77');
    assert.equal(lab.arrivals(), 2);
  });

  test('refuses flows beyond the budget of one source', async (t) => {
    const first = await namedServer(t, FIRST);
    const lab = await openLab(
      t,
      { backends: [FIRST], limits: { tcpFlowsPerSource: 1 } },
      { port: first.port },
    );
    assert.equal(await firstWord(await dial(t, lab)), FIRST);
    assert.ok(await isRefused(t, lab));
    assert.deepEqual(lab.drops(), { 'source-cap': 1 });
  });

  test('balances IPv6 on a port above 32767 with an offset', async (t) => {
    const server = await TestServer.listen('::1', (socket) => socket.end('six'));
    t.after(() => server.close());
    const port = 40_000 + (process.pid % 10_000);
    const lab = await openLab(
      t,
      {
        backends: ['::1'],
        frontend: { address: ipAddress('::1') },
        rule: { portOffset: server.port - port },
      },
      { port },
    );
    const client = await dial(t, lab);
    const tuples: string[] = [];
    for (const { tuple } of lab.manager.table.all())
      tuples.push(`${tuple.destination.text} ${tuple.destinationPort}`);
    assert.equal((await within(receive(client), 5000, 'the answer')).text, 'six');
    assert.deepEqual(tuples, [`::1 ${port}`]);
  });

  test('dials from the pool’s source addresses and ports', async (t) => {
    const seen: string[] = [];
    const first = await TestServer.listen(FIRST, (socket) => {
      seen.push(`${socket.remoteAddress}:${socket.remotePort}`);
      socket.write('hello');
    });
    t.after(() => first.close());
    const base = 20_000 + (process.pid % 5000) * 2;
    // Another process holds the first port.
    const holder = await TestServer.listen('127.0.0.9', () => undefined, { port: base });
    t.after(() => holder.close());
    const lab = await openLab(
      t,
      {
        backends: [FIRST],
        pool: {
          sourceAddresses: [ipAddress('127.0.0.9')],
          sourcePorts: portSetOf(base, base + 1, base + 2),
        },
      },
      { port: first.port },
    );
    await firstWord(await dial(t, lab));
    await firstWord(await dial(t, lab));
    assert.deepEqual(seen.sort(), [`127.0.0.9:${base + 1}`, `127.0.0.9:${base + 2}`]);
    assert.ok(await isRefused(t, lab));
    assert.deepEqual(lab.drops(), { 'ports-exhausted': 1 });
    const kinds = lab.flushEvents().map(({ type }) => type);
    assert.ok(kinds.includes('source-port-pressure'));
    assert.ok(!kinds.includes('passive-failure'), 'not the backend’s fault');
  });

  test('passes over a source address that is not this machine’s', async (t) => {
    const first = await TestServer.listen(FIRST, (socket) => socket.end(String(socket.remoteAddress)));
    t.after(() => first.close());
    const lab = await openLab(
      t,
      {
        backends: [FIRST],
        pool: { sourceAddresses: [ipAddress('192.0.2.77'), ipAddress('127.0.0.9')] },
      },
      { port: first.port },
    );
    const { text } = await within(receive(await dial(t, lab)), 5000, 'the answer');
    assert.equal(text, '127.0.0.9');
  });

  test('gives the port back when the flow ends', async (t) => {
    const first = await namedServer(t, FIRST);
    const lab = await openLab(
      t,
      { backends: [FIRST], pool: { sourceAddresses: [ipAddress('127.0.0.9')] } },
      { port: first.port },
    );
    const client = await dial(t, lab);
    await firstWord(client);
    client.resetAndDestroy();
    await eventually(() => lab.flowCount === 0, 5000, 'the flow to end');
    // At rest it still counts; that it is no longer taken shows when it is released again without effect.
    assert.equal(lab.sourcePorts.uses()[0]?.used, 1);
  });

  test('does not take a connection to itself for a backend', async (t) => {
    // The one source port allowed is the backend's own port, on the backend's own address.
    const port = await freePort(FIRST);
    const lab = await openLab(
      t,
      { backends: [FIRST], pool: { sourceAddresses: [ipAddress(FIRST)], sourcePorts: portSetOf(port) } },
      { port },
    );
    assert.ok(await isRefused(t, lab));
    assert.deepEqual(lab.drops(), { 'ports-exhausted': 1 });
  });

  test('a listener that is closed keeps its connections', async (t) => {
    const first = await namedServer(t, FIRST);
    const lab = await openLab(t, { backends: [FIRST] }, { port: first.port });
    const client = await dial(t, lab);
    await firstWord(client);
    lab.closeListener();
    await assert.rejects(dial(t, lab), /ECONNREFUSED/);
    client.write('still there?');
    assert.equal(await firstWord(client), 'still there?');
  });

  test('listening on a port in use rejects with the system’s error', async (t) => {
    const lab = await openLab(t, { backends: [FIRST] });
    await assert.rejects(TcpLab.open(testState({ backends: [FIRST] }), { port: lab.port }), {
      code: 'EADDRINUSE',
    });
  });
});

/** Listens in another process, which never accepts, and fills its queue: SYNs then go unanswered. */
async function deafListener(t: Cleanup, host: string, port: number): Promise<void> {
  const script = `require('node:net').createServer().listen({host:'${host}',port:${port},backlog:1},()=>{
    process.stdout.write('up',()=>Atomics.wait(new Int32Array(new SharedArrayBuffer(4)),0,0));});`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  await within(new Promise((resolve) => child.stdout.once('data', resolve)), 5000, 'the deaf listener');
  for (let index = 0; index < 16; index++) {
    const filler = connect({ host, port });
    filler.on('error', () => undefined);
    t.after(() => filler.destroy());
    const connected = await Promise.race([
      new Promise<boolean>((resolve) => filler.once('connect', () => resolve(true))),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 200)),
    ]);
    if (!connected) return;
  }
  throw new Error('The queue of the deaf listener did not fill');
}
