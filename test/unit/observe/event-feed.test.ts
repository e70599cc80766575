import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { describe, test } from 'node:test';
import type { EventFeedSource } from '../../../src/admin/operations.js';
import { ipAddress } from '../../../src/model/address.js';
import type { FeedEvent } from '../../../src/model/events.js';
import { EventFeed } from '../../../src/observe/bus.js';
import { createLogger } from '../../../src/observe/log.js';
import { silentLogger } from '../../../src/runtime/logger.js';
import { FakeClock } from '../../support/fake-clock.js';
import { RecordingLogger } from './recording-logger.js';

function setUp(capacity?: number) {
  const clock = new FakeClock();
  const feed = new EventFeed({ clock }, ...(capacity === undefined ? [] : [{ capacity }]));
  const inner = new RecordingLogger();
  return { clock, feed, inner, logger: feed.wrap(inner) };
}

const ids = (events: readonly FeedEvent[]) => events.map(({ id }) => id);

describe('EventFeed', () => {
  test('wrap() says everything on as it is', () => {
    const { inner, logger } = setUp();
    const fields = { event: 'applied', revision: 3 };
    logger.debug(fields, 'one');
    logger.info(fields, 'two');
    logger.warn(fields, 'three');
    logger.error(fields, 'four');
    assert.deepEqual(
      inner.lines,
      (['debug', 'info', 'warn', 'error'] as const).map((level, index) => {
        return { level, fields, message: ['one', 'two', 'three', 'four'][index] };
      }),
    );
  });

  test('since() gives lines from info upwards as events', () => {
    const { clock, feed, logger } = setUp();
    logger.debug({ event: 'passive-failure' }, 'Not this');
    logger.info({ event: 'applied', revision: 3 }, 'Applied');
    clock.advance(5);
    logger.error({ code: 7 }, 'No name');
    const source: EventFeedSource = feed;
    assert.deepEqual(source.since(0), [
      {
        id: 1,
        atMs: clock.wallOffsetMs,
        level: 'info',
        type: 'applied',
        message: 'Applied',
        fields: { revision: 3 },
      },
      {
        id: 2,
        atMs: clock.wallOffsetMs + 5,
        level: 'error',
        type: 'log',
        message: 'No name',
        fields: { code: 7 },
      },
    ]);
    assert.deepEqual(ids(feed.since(1)), [2]);
    assert.deepEqual(ids(feed.since(2)), []);
    assert.deepEqual(ids(feed.since(99)), []);
  });

  test('since() remembers the last thousand', () => {
    const { feed, logger } = setUp();
    for (let line = 1; line <= 3500; line++) logger.info({ event: 'x' }, 'x');
    const remembered = ids(feed.since(0));
    assert.equal(remembered.length, 1000);
    assert.equal(remembered[0], 2501);
    assert.equal(remembered.at(-1), 3500);
  });

  test('the feed hears info where the log is written from error on', async () => {
    const { feed } = setUp();
    let written = '';
    const output = new Writable({
      write(chunk: Buffer, _encoding, done) {
        written += chunk.toString();
        done();
      },
    });
    const logger = feed.wrap(await createLogger({ level: 'error', format: 'json' }, output));
    logger.info({ event: 'applied' }, 'Applied');
    logger.error({ event: 'apply-failed' }, 'Failed');
    assert.deepEqual(
      feed.since(0).map(({ type }) => type),
      ['applied', 'apply-failed'],
    );
    assert.ok(!written.includes('Applied') && written.includes('Failed'));
  });

  test('subscribe() brings each event until it is ended', () => {
    const { feed, logger } = setUp();
    const seen: number[] = [];
    const listener = (event: FeedEvent) => seen.push(event.id);
    const end = feed.subscribe(listener);
    const endOther = feed.subscribe(listener);
    logger.info({}, 'a');
    end();
    logger.info({}, 'b');
    end();
    logger.info({}, 'c');
    endOther();
    logger.info({}, 'd');
    assert.deepEqual(seen, [1, 1, 2, 3]);
  });

  test('a listener that throws harms nobody', () => {
    const { feed, inner, logger } = setUp();
    const seen: number[] = [];
    feed.subscribe(() => {
      throw new Error('broken');
    });
    feed.subscribe(({ id }) => seen.push(id));
    logger.warn({}, 'a');
    logger.warn({}, 'b');
    assert.deepEqual(seen, [1, 2]);
    assert.equal(inner.lines.length, 2);
  });

  test('a listener may end itself, and others, while it is called', () => {
    const { feed, logger } = setUp();
    const seen: string[] = [];
    const end = feed.subscribe(() => {
      seen.push('first');
      end();
    });
    feed.subscribe(() => seen.push('second'));
    logger.info({}, 'a');
    logger.info({}, 'b');
    assert.deepEqual(seen, ['first', 'second', 'second']);
  });

  test('a listener that comes while an event is told hears the next one first', () => {
    const { feed, logger } = setUp();
    const seen: number[] = [];
    const end = feed.subscribe(() => {
      end();
      feed.subscribe(({ id }) => seen.push(id));
    });
    logger.info({}, 'a');
    logger.info({}, 'b');
    assert.deepEqual(seen, [2]);
  });

  test('fields are what JSON can hold: addresses and errors as text, no cycle', () => {
    const { feed } = setUp();
    const cyclic: Record<string, unknown> = {};
    cyclic['self'] = cyclic;
    feed.wrap(silentLogger).info(
      {
        event: 'x',
        address: ipAddress('fd00::1'),
        list: [ipAddress('127.0.0.1'), undefined, { deep: 5n }],
        error: new Error('no socket'),
        absent: undefined,
        nothing: null,
        work: () => undefined,
        cyclic,
      },
      'x',
    );
    const fields = feed.since(0)[0]?.fields ?? {};
    const { cyclic: cut, ...rest } = fields;
    assert.deepEqual(rest, {
      address: 'fd00::1',
      list: ['127.0.0.1', null, { deep: '5' }],
      error: 'no socket',
      nothing: null,
    });
    assert.ok(JSON.stringify(cut).length < 100);
  });
});
