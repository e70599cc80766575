import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { TrafficWindow } from '../../../src/monitors/probe-truth.js';
import { row } from './monitor-fixtures.js';

const A = row('127.0.0.11');
const unmarked = { isMark: false };

/** One flow a second, sampled each second from 0 on. */
function filled(seconds: number, marks: readonly number[] = []): TrafficWindow {
  const window = new TrafficWindow({ windowMs: 60_000 });
  for (let second = 0; second <= seconds; second++) {
    window.add(second * 1000, [{ ...A, flowsOpened: second }], { isMark: marks.includes(second) });
  }
  return window;
}

describe('TrafficWindow.since()', () => {
  test('since() counts from a mark exactly, else from the next step', () => {
    assert.equal(filled(30, [7]).since(7000, A).flowsOpened, 23);
    assert.equal(filled(30).since(7000, A).flowsOpened, 20);
    assert.equal(filled(8, [7]).since(7000, A).flowsOpened, 1);
    assert.equal(filled(8).since(7000, A).flowsOpened, 0);
  });

  test('since() goes back by eleven twelfths of the window to all of it, and no further', () => {
    for (let seconds = 60; seconds < 200; seconds++) {
      const { flowsOpened } = filled(seconds).since(0, A);
      assert.ok(flowsOpened >= 55 && flowsOpened <= 60, `${flowsOpened} after ${seconds} s`);
    }
  });

  test('since() counts a row from 0 that came later, and nothing of one that is unknown or gone', () => {
    const window = new TrafficWindow({ windowMs: 60_000 });
    window.add(0, [], unmarked);
    const facts = {
      flowsOpened: 5,
      connectFailures: 4,
      flowsEnded: { 'backend-reset': 3, closed: 1 },
      packetsToClient: 2,
      bytesToClient: 1,
    };
    window.add(1000, [{ ...A, ...facts }], unmarked);
    assert.deepEqual(window.since(0, A), {
      flowsOpened: 5,
      connectFailures: 4,
      backendResets: 3,
      packetsToClient: 2,
      bytesToClient: 1,
    });
    assert.equal(window.since(0, { ...A, protocol: 'udp' }).flowsOpened, 0);
    window.add(2000, [], unmarked);
    assert.equal(window.since(0, A).flowsOpened, 0);
    assert.equal(new TrafficWindow({ windowMs: 1000 }).since(0, A).flowsOpened, 0);
  });

  test('since() looks back less far under very many marks, rather than keep them all', () => {
    const window = new TrafficWindow({ windowMs: 600_000 });
    for (let second = 0; second <= 500; second++) {
      window.add(second * 1000, [{ ...A, flowsOpened: second }], { isMark: true });
    }
    const { flowsOpened } = window.since(0, A);
    assert.ok(flowsOpened >= 50 && flowsOpened < 100, String(flowsOpened));
  });
});
