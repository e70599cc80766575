import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GroupEvents } from '../../../../src/planes/workers/group.js';
import type { ListeningChanged, Overload, PlaneEvent, EventOf } from '../../../../src/model/events.js';

const overload = (phase: Overload['phase'], reason: Overload['reason'] = 'table-full'): Overload => ({
  type: 'overload',
  atMs: 1,
  phase,
  reason,
});
const lost = (worker: number): EventOf<'worker-lost'> => ({
  type: 'worker-lost',
  atMs: 2,
  worker,
  evidence: 'signal SIGKILL',
  flowsLost: 0,
});

void describe('GroupEvents', () => {
  test('an overload starts with its first worker and ends with its last', () => {
    const group = new GroupEvents(2);
    const story: readonly (readonly [number, Overload, number])[] = [
      [0, overload('started'), 1],
      [1, overload('started'), 0],
      [1, overload('started', 'source-cap'), 1],
      [0, overload('ended'), 0],
      [1, overload('ended'), 1],
      [0, overload('started'), 1],
    ];
    for (const [worker, event, count] of story) assert.equal(group.merge(worker, [event]).length, count);
  });

  test('a worker that dies is overloaded no more', () => {
    const group = new GroupEvents(2);
    group.merge(0, [overload('started')]);
    group.merge(1, [overload('started')]);
    assert.deepEqual(group.merge(0, [lost(0)]), [lost(0)]);
    assert.deepEqual(group.merge(1, [lost(1)]), [lost(1), { ...overload('ended'), atMs: 2 }]);
  });

  test('listening-changed tells of all workers together', () => {
    const group = new GroupEvents(2);
    const failure = {
      rule: 'r',
      protocol: 'udp',
      address: '127.0.0.1',
      port: 1,
      errorCode: 'EADDRINUSE',
    } as const;
    group.reported(0, { revision: 1, listeners: { tcp: 3, udp: 1 }, failures: [failure, failure] });
    group.reported(1, { revision: 1, listeners: { tcp: 2, udp: 4 }, failures: [failure] });
    const change: ListeningChanged = {
      type: 'listening-changed',
      atMs: 5,
      worker: 0,
      listeners: { tcp: 3, udp: 2 },
      failures: 1,
    };
    assert.deepEqual(group.merge(0, [change]), [{ ...change, listeners: { tcp: 5, udp: 6 }, failures: 2 }]);
    assert.deepEqual(group.listening, { listeners: { tcp: 5, udp: 6 }, failures: 2 });
  });

  test('all else passes as it is, in order', () => {
    const events: readonly PlaneEvent[] = [
      { type: 'passive-failure', atMs: 1, backendId: 'a', evidence: 'ECONNREFUSED' },
      lost(1),
      { type: 'passive-failure', atMs: 2, backendId: 'b', evidence: 'ECONNREFUSED' },
    ];
    assert.deepEqual(new GroupEvents(2).merge(1, events), events);
  });
});
