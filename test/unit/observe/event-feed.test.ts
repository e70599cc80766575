import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { EventFeedSource } from '../../../src/admin/sse.js';
import type { FeedEvent } from '../../../src/api/views.js';
import type { EventLine } from '../../../src/model/events.js';
import { EventFeed } from '../../../src/observe/bus.js';
import { FakeClock } from '../../support/fake-clock.js';

function setUp() {
  const clock = new FakeClock();
  const feed = new EventFeed({ clock });
  const tell = (message: string, level: EventLine['level'] = 'info', type = 'x', fields = {}): void =>
    feed.add({ level, type, message, fields });
  return { clock, feed, tell };
}

const ids = (events: readonly FeedEvent[]) => events.map(({ id }) => id);

describe('EventFeed', () => {
  test('since() gives lines from info upwards as events', () => {
    const { clock, feed, tell } = setUp();
    tell('Not this', 'debug', 'passive-failure');
    tell('Applied', 'info', 'applied', { revision: 3 });
    clock.advance(5);
    tell('Failed', 'error', 'apply-failed', { code: 7 });
    const source: EventFeedSource = feed;
    const atMs = clock.wallOffsetMs;
    assert.deepEqual(source.since(0), [
      { id: 1, atMs, level: 'info', type: 'applied', message: 'Applied', fields: { revision: 3 } },
      { id: 2, atMs: atMs + 5, level: 'error', type: 'apply-failed', message: 'Failed', fields: { code: 7 } },
    ]);
    assert.deepEqual(ids(feed.since(1)), [2]);
    assert.deepEqual(ids(feed.since(2)), []);
    assert.deepEqual(ids(feed.since(99)), []);
  });

  test('since() remembers the last thousand', () => {
    const { feed, tell } = setUp();
    for (let line = 1; line <= 3500; line++) tell('x');
    const remembered = ids(feed.since(0));
    assert.equal(remembered.length, 1000);
    assert.equal(remembered[0], 2501);
    assert.equal(remembered.at(-1), 3500);
  });

  test('subscribe() brings each event until it is ended', () => {
    const { feed, tell } = setUp();
    const seen: number[] = [];
    const listener = (event: FeedEvent) => seen.push(event.id);
    const end = feed.subscribe(listener);
    const endOther = feed.subscribe(listener);
    tell('a');
    end();
    tell('b');
    end();
    tell('c');
    endOther();
    tell('d');
    assert.deepEqual(seen, [1, 1, 2, 3]);
  });

  test('a listener that throws harms no other', () => {
    const { feed, tell } = setUp();
    const seen: number[] = [];
    feed.subscribe(() => {
      throw new Error('broken');
    });
    feed.subscribe(({ id }) => seen.push(id));
    tell('a');
    tell('b');
    assert.deepEqual(seen, [1, 2]);
    assert.equal(feed.since(0).length, 2);
  });

  test('a listener may end itself, and others, while it is called', () => {
    const { feed, tell } = setUp();
    const seen: string[] = [];
    const end = feed.subscribe(() => {
      seen.push('first');
      end();
    });
    feed.subscribe(() => seen.push('second'));
    tell('a');
    tell('b');
    assert.deepEqual(seen, ['first', 'second', 'second']);
  });

  test('a listener that comes while an event is told hears the next one first', () => {
    const { feed, tell } = setUp();
    const seen: number[] = [];
    const end = feed.subscribe(() => {
      end();
      feed.subscribe(({ id }) => seen.push(id));
    });
    tell('a');
    tell('b');
    assert.deepEqual(seen, [2]);
  });
});
