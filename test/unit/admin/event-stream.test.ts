import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { describe, test, type TestContext } from 'node:test';
import { EventStreams } from '../../../src/admin/sse.js';
import { FakeClock } from '../../support/fake-clock.js';
import { eventually, within } from '../../support/deadline.js';
import { ask } from '../../support/admin-api.js';
import { adminLab, problemOf } from './admin-lab.js';
import { FakeFeed } from './fake-operations.js';

const text = new TextDecoder();

function streams(options: { heartbeatMs?: number; maxQueuedBytes?: number; maxStreams?: number } = {}) {
  const feed = new FakeFeed();
  const clock = new FakeClock();
  return { feed, clock, streams: new EventStreams({ events: feed, clock }, options) };
}

/** Takes chunks until there is nothing to take. */
async function take(reader: ReadableStreamDefaultReader<Uint8Array>, chunks: number): Promise<string> {
  let all = '';
  for (let index = 0; index < chunks; index++) {
    const { value } = await within(reader.read(), 1000, 'a chunk');
    all += text.decode(value);
  }
  return all;
}

const cut = () => undefined;

describe('EventStreams', () => {
  test('open() tells what happens from now on', async () => {
    const { feed, streams: all } = streams();
    feed.tell('before');
    const reader = all.open({ cut })!.getReader();
    assert.equal(await take(reader, 1), 'retry: 2000\n\n');
    feed.tell('after');
    assert.equal(
      await take(reader, 1),
      'id: 2\nevent: told\ndata: {"id":2,"atMs":1002,"level":"info","type":"told","message":"after","fields":{}}\n\n',
    );
  });

  test('open() tells again what came after an id', async () => {
    const { feed, streams: all } = streams();
    for (const message of ['one', 'two\nlines', 'three']) feed.tell(message);
    const reader = all.open({ sinceId: 1, cut })!.getReader();
    const told = await take(reader, 1);
    assert.deepEqual(
      [...told.matchAll(/^id: (\d+)$/gm)].map(([, id]) => id),
      ['2', '3'],
    );
    assert.ok(told.includes(String.raw`"two\nlines"`));
  });

  test('a sign of life goes out after each interval', async () => {
    const { clock, streams: all } = streams();
    const reader = all.open({ cut })!.getReader();
    await take(reader, 1);
    for (let beat = 0; beat < 3; beat++) {
      clock.advance(15_000);
      assert.equal(await take(reader, 1), ': \n\n');
    }
  });

  test('a reader that falls behind is cut off and holds no memory any more', () => {
    const { feed, clock, streams: all } = streams({ maxQueuedBytes: 2000 });
    let cuts = 0;
    all.open({ cut: () => cuts++ });
    for (let count = 0; count < 5; count++) feed.tell('x'.repeat(100));
    assert.equal(cuts, 0);
    for (let count = 0; count < 10; count++) feed.tell('x'.repeat(100));
    assert.deepEqual([cuts, all.size, feed.listeners.size, clock.pendingTimers], [1, 0, 0, 0]);
  });

  test('what a reader asked to be told again does not count against it', async () => {
    const { feed, streams: all } = streams({ maxQueuedBytes: 1000 });
    for (let count = 0; count < 100; count++) feed.tell('x'.repeat(100));
    const reader = all
      .open({
        sinceId: 0,
        cut: () => assert.fail('It was cut off'),
      })!
      .getReader();
    feed.tell('one more');
    assert.ok((await take(reader, 2)).includes('one more'));
  });

  test('a reader that takes nothing for a whole interval is cut off, a slow one is not', async () => {
    const { clock, streams: all } = streams();
    let cuts = 0;
    all.open({ cut: () => cuts++ });
    const slow = all.open({ cut: () => assert.fail('The slow one was cut off') })!.getReader();
    for (let beat = 0; beat < 4; beat++) {
      await take(slow, 1);
      clock.advance(15_000);
    }
    assert.deepEqual([cuts, all.size], [1, 1]);
  });

  test('giving a stream up ends its subscription', async () => {
    const { feed, clock, streams: all } = streams();
    await all.open({ cut })!.cancel();
    assert.deepEqual([all.size, feed.listeners.size, clock.pendingTimers], [0, 0, 0]);
    feed.tell('to nobody');
  });

  test('open() gives none above the limit, and one again when one has ended', async () => {
    const { streams: all } = streams({ maxStreams: 2 });
    const first = all.open({ cut })!;
    all.open({ cut });
    assert.equal(all.open({ cut }), undefined);
    await first.cancel();
    assert.ok(all.open({ cut }));
  });

  test('closeAll() ends streams after what is queued', async () => {
    const { feed, clock, streams: all } = streams();
    const reader = all.open({ cut })!.getReader();
    feed.tell('last');
    all.closeAll();
    assert.ok((await take(reader, 2)).includes('last'));
    assert.equal((await reader.read()).done, true);
    assert.deepEqual([all.size, feed.listeners.size, clock.pendingTimers], [0, 0, 0]);
  });
});

interface OpenStream {
  readonly incoming: IncomingMessage;
  /** All that has come. */
  readonly read: () => string;
}

async function openStream(
  t: TestContext,
  port: number,
  path = '/v1/events',
  headers: Record<string, string> = {},
): Promise<OpenStream> {
  const outgoing = request({ host: '127.0.0.1', port, path, agent: false, headers });
  outgoing.on('error', () => undefined);
  t.after(() => outgoing.destroy());
  outgoing.end();
  const [incoming] = (await within(once(outgoing, 'response'), 2000, 'an answer')) as [IncomingMessage];
  let all = '';
  incoming.on('data', (chunk: Buffer) => (all += chunk.toString()));
  incoming.on('error', () => undefined);
  return { incoming, read: () => all };
}

describe('GET /v1/events', () => {
  test('is a stream of events, as they happen', async (t) => {
    const { port, fake } = await adminLab(t);
    const { incoming, read } = await openStream(t, port);
    assert.equal(incoming.statusCode, 200);
    assert.equal(incoming.headers['content-type'], 'text/event-stream');
    assert.equal(incoming.headers['cache-control'], 'no-store');
    fake.events.tell('hello');
    await eventually(() => read().includes('"message":"hello"'), 2000, 'the event');
  });

  test('since tells from an id on, Last-Event-ID wins over it', async (t) => {
    const { port, fake } = await adminLab(t);
    for (let count = 0; count < 5; count++) fake.events.tell('old');
    const ids = async (path: string, headers: Record<string, string> = {}) => {
      const { read } = await openStream(t, port, path, headers);
      await eventually(() => read().includes('id: 5\n'), 2000, 'the last event');
      return [...read().matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id));
    };
    assert.deepEqual(await ids('/v1/events?since=3'), [4, 5]);
    assert.deepEqual(await ids('/v1/events?since=0', { 'last-event-id': '4' }), [5]);
  });

  test('ids that are none are refused', async (t) => {
    const { port } = await adminLab(t);
    for (const path of ['/v1/events?since=-1', '/v1/events?since=x', '/v1/events?since=1e3']) {
      assert.deepEqual(problemOf(await ask({ port }, path)), [400, 'LB_USAGE'], path);
    }
    const answer = await ask({ port }, '/v1/events', { headers: { 'last-event-id': 'x' } });
    assert.deepEqual(problemOf(answer), [400, 'LB_USAGE']);
  });

  test('a reader that has gone is forgotten', async (t) => {
    const { port, fake } = await adminLab(t);
    const { incoming } = await openStream(t, port);
    assert.equal(fake.events.listeners.size, 1);
    incoming.destroy();
    await eventually(() => fake.events.listeners.size === 0, 2000, 'the end of the subscription');
    fake.events.tell('to nobody');
  });

  test('HEAD leaves nothing behind', async (t) => {
    const { port, fake } = await adminLab(t);
    const { status, text: body } = await ask({ port }, '/v1/events', { method: 'HEAD' });
    assert.deepEqual([status, body, fake.events.listeners.size], [200, '', 0]);
  });

  test('a reader that takes nothing is cut off, and the server lives on', async (t) => {
    const { port, fake } = await adminLab(t, { streams: { maxQueuedBytes: 100_000 } });
    const { incoming } = await openStream(t, port);
    incoming.pause();
    const closed = new Promise((resolve) => incoming.once('close', resolve));
    // More than the sockets' own buffers, a little at a time.
    for (let count = 0; count < 3000 && fake.events.listeners.size > 0; count++) {
      fake.events.tell('x'.repeat(20_000));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(fake.events.listeners.size, 0);
    incoming.resume();
    await within(closed, 5000, 'the end of the connection');
    assert.equal((await ask({ port }, '/v1/status')).status, 200);
  });

  test('there are only so many at a time', async (t) => {
    const { port } = await adminLab(t, { streams: { maxStreams: 1 } });
    await openStream(t, port);
    assert.deepEqual(problemOf(await ask({ port }, '/v1/events')), [409, 'LB_CONFLICT']);
  });

  test('streams end when the server stops', async (t) => {
    const { port, server, fake } = await adminLab(t);
    const { incoming, read } = await openStream(t, port);
    const ended = once(incoming, 'end');
    fake.events.tell('last words');
    await within(Promise.all([server.stop(), ended]), 3000, 'the end of the stream');
    assert.ok(read().includes('last words'));
    assert.equal(fake.events.listeners.size, 0);
  });
});
