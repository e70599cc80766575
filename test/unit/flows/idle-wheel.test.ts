import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { IdleWheel, WHEEL_TICK_MS, type WheelEntry } from '../../../src/flows/idle-wheel.js';

class Entry implements WheelEntry {
  wheelNext: WheelEntry | undefined = undefined;
  wheelPrevious: WheelEntry | undefined = undefined;
  wheelSlot = -1;
  dueMs: number;

  constructor(dueMs: number) {
    this.dueMs = dueMs;
  }
}

function aWheel(nowMs = 0): IdleWheel<Entry> {
  return new IdleWheel<Entry>(nowMs, ({ dueMs }) => dueMs);
}

/** Monotonic time at which a wheel that is turned every tick gives the entry up. */
function firedAtMs(
  wheel: IdleWheel<Entry>,
  entry: Entry,
  fromMs: number,
  untilMs: number,
): number | undefined {
  for (let nowMs = fromMs; nowMs <= untilMs; nowMs += WHEEL_TICK_MS) {
    const due: Entry[] = [];
    wheel.advance(nowMs, (one) => due.push(one));
    if (due.includes(entry)) return nowMs;
  }
  return undefined;
}

describe('IdleWheel', () => {
  for (const dueMs of [0, 1, 499, 500, 501, 30_000, 240_000, 255_500, 256_000, 256_001, 6_000_000]) {
    test(`advance() gives up what is due in ${dueMs} ms then, at most a tick late and never early`, () => {
      const wheel = aWheel();
      const entry = new Entry(dueMs);
      wheel.schedule(entry);
      const atMs = firedAtMs(wheel, entry, 0, dueMs + 10 * WHEEL_TICK_MS);
      assert.ok(
        atMs !== undefined && atMs >= dueMs && atMs <= dueMs + WHEEL_TICK_MS,
        `fired at ${atMs ?? '?'}`,
      );
      assert.equal(wheel.size, 0);
      assert.equal(entry.wheelSlot, -1);
    });
  }

  test('advance() visits all that is due after a stop longer than a turn of the wheel', () => {
    const wheel = aWheel(123_456);
    const entries = Array.from({ length: 600 }, (_, n) => new Entry(123_456 + n * 499));
    for (const entry of entries) wheel.schedule(entry);
    const due = new Set<Entry>();
    wheel.advance(123_456 + 3_600_000, (entry) => due.add(entry));
    assert.equal(due.size, 600);
    assert.equal(wheel.size, 0);
  });

  test('advance() lets the callback schedule and cancel', () => {
    const wheel = aWheel();
    const entries = [new Entry(1000), new Entry(1000), new Entry(3000)];
    for (const entry of entries) wheel.schedule(entry);
    const order: Entry[] = [];
    for (let nowMs = 0; nowMs <= 10_000; nowMs += WHEEL_TICK_MS) {
      wheel.advance(nowMs, (entry) => {
        order.push(entry);
        wheel.cancel(entries[2]!);
        if (order.length > 4) return;
        entry.dueMs = nowMs + 1000;
        wheel.schedule(entry);
      });
    }
    assert.equal(order.length, 6);
    assert.ok(!order.includes(entries[2]!));
    assert.equal(wheel.size, 0);
  });

  test('advance() does nothing when time stands still or goes back', () => {
    const wheel = aWheel(5000);
    const entry = new Entry(4000);
    wheel.schedule(entry);
    wheel.advance(5000, () => assert.fail('fired'));
    wheel.advance(1000, () => assert.fail('fired'));
    assert.equal(firedAtMs(wheel, entry, 5500, 6000), 5500);
  });
});
