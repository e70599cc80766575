import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { followEvents, type OpenStream, type StreamState } from '../../../../src/admin/page/event-stream.js';
import { eventually } from '../../../support/deadline.js';

describe('followEvents()', () => {
  /** A server that ends each stream after one event. */
  function follow(open: OpenStream) {
    const [asked, events, states]: [
      (readonly [string, Readonly<Record<string, string>>])[],
      unknown[],
      StreamState[],
    ] = [[], [], []];
    const ending = new AbortController();
    const following = followEvents({
      open: (path, headers, signal) => {
        asked.push([path, headers]);
        return open(path, headers, signal);
      },
      onEvent: (event) => events.push(event),
      onState: (state) => states.push(state),
      signal: ending.signal,
    });
    return { asked, events, states, following, end: () => ending.abort() };
  }

  test('comes back with the last id, and from the beginning after restart()', async () => {
    let id = 0;
    const { asked, events, states, following, end } = follow(() =>
      Promise.resolve(new Response(`data: {"id":${++id}}\n\n`)),
    );
    await eventually(() => asked.length === 2, 3000, 'a second try');
    following.restart();
    await eventually(() => asked.length === 3, 3000, 'a third try');
    end();
    assert.deepEqual(asked, [
      ['v1/events?since=0', {}],
      ['v1/events', { 'last-event-id': '1' }],
      ['v1/events?since=0', {}],
    ]);
    assert.deepEqual(events.slice(0, 2), [{ id: 1 }, { id: 2 }]);
    assert.deepEqual(
      states.slice(0, 3).map(({ kind }) => kind),
      ['connecting', 'live', 'cut'],
    );
  });

  test('rests without a connection, and goes on where it was', async () => {
    const given: AbortSignal[] = [];
    const { asked, states, following, end } = follow((_path, _headers, signal) => {
      given.push(signal);
      const body = new ReadableStream<Uint8Array>({
        start: (controller) => {
          controller.enqueue(new TextEncoder().encode('data: {"id":5}\n\n'));
          signal.addEventListener('abort', () => controller.error(new Error('aborted')));
        },
      });
      return Promise.resolve(new Response(body));
    });
    await eventually(() => states.at(-1)?.kind === 'live', 3000, 'a stream');
    await new Promise((resolve) => setImmediate(resolve));
    following.rest();
    await eventually(() => states.at(-1)?.kind === 'resting', 3000, 'rest');
    assert.equal(given[0]?.aborted, true);
    await new Promise((resolve) => setTimeout(resolve, 700));
    assert.equal(asked.length, 1, 'no attempt while at rest');
    following.retry();
    await eventually(() => states.at(-1)?.kind === 'live', 3000, 'a stream again');
    end();
    assert.deepEqual(asked[1], ['v1/events', { 'last-event-id': '5' }]);
  });

  test('counts attempts and says why, until it is ended', async () => {
    const { asked, states, following, end } = follow(() => Promise.reject(new Error('no way')));
    await eventually(
      () => states.some((state) => state.kind === 'cut' && state.attempts === 1),
      3000,
      'a first failure',
    );
    following.retry();
    await eventually(
      () => states.some((state) => state.kind === 'cut' && state.attempts === 2),
      400,
      'the pause to be cut short',
    );
    assert.deepEqual(states.at(-1), { kind: 'cut', attempts: 2, why: 'no way' });
    end();
    const tries = asked.length;
    await new Promise((resolve) => setTimeout(resolve, 1200));
    assert.equal(asked.length, tries);
  });
});
