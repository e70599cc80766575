import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventQueue } from '../../../src/flows/event-queue.js';
import type { PlaneEvent } from '../../../src/model/events.js';
import { FakeClock } from '../../support/fake-clock.js';

function bench() {
  const clock = new FakeClock();
  const queue = new EventQueue(clock);
  const batches: (readonly PlaneEvent[])[] = [];
  const unsubscribe = queue.subscribe((events) => batches.push(events));
  const failure = (n: number): PlaneEvent => ({
    type: 'passive-failure',
    atMs: n,
    backendId: 'a',
    evidence: 'ECONNREFUSED',
  });
  return { clock, queue, batches, unsubscribe, failure };
}

describe('EventQueue', () => {
  test('push() hands events on in one batch within 100 ms, and leaves no timer', () => {
    const { clock, queue, batches, failure } = bench();
    queue.push(failure(1));
    queue.push(failure(2));
    clock.advance(99);
    assert.equal(batches.length, 0);
    clock.advance(1);
    assert.deepEqual(batches, [[failure(1), failure(2)]]);
    assert.equal(clock.pendingTimers, 0);
  });

  test('push() hands a full batch on at once, in order and complete', () => {
    const { clock, queue, batches, failure } = bench();
    for (let n = 0; n < 3000; n++) queue.push(failure(n));
    assert.ok(batches.length >= 2);
    assert.ok(batches.every(({ length }) => length <= 1024));
    clock.advance(100);
    assert.deepEqual(
      batches.flat().map(({ atMs }) => atMs),
      Array.from({ length: 3000 }, (_, n) => n),
    );
    assert.equal(clock.pendingTimers, 0);
  });

  test('subscribe() returns what ends it', () => {
    const { queue, batches, unsubscribe, failure } = bench();
    unsubscribe();
    queue.push(failure(1));
    queue.flush();
    assert.deepEqual(batches, []);
  });

  test('dropped() makes one overload of many drops, which ends a second after the last', () => {
    const { clock, queue, batches } = bench();
    const phases = (): readonly string[] => {
      queue.flush();
      return batches
        .flat()
        .map((event) => (event.type === 'overload' ? `${event.phase} ${event.reason}` : '?'));
    };
    for (let n = 0; n < 10; n++) {
      queue.dropped('table-full');
      queue.dropped('denied');
      clock.advance(900);
      queue.tick();
    }
    assert.deepEqual(phases(), ['started table-full']);
    clock.advance(100);
    queue.tick();
    assert.deepEqual(phases(), ['started table-full', 'ended table-full']);
    queue.tick();
    queue.dropped('table-full');
    assert.deepEqual(phases(), ['started table-full', 'ended table-full', 'started table-full']);
  });
});
