import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { IdleWheel, WHEEL_TICK_MS, type WheelEntry } from '../../src/flows/idle-wheel.js';

class Entry implements WheelEntry {
  wheelNext: WheelEntry | undefined = undefined;
  wheelPrevious: WheelEntry | undefined = undefined;
  wheelSlot = -1;
  dueMs = 0;
}

type Step =
  | { readonly kind: 'schedule'; readonly entry: number; readonly inMs: number }
  | { readonly kind: 'touch'; readonly entry: number; readonly laterMs: number }
  | { readonly kind: 'cancel'; readonly entry: number }
  | { readonly kind: 'advance'; readonly byMs: number };

const ENTRIES = 6;
/** Often the same few, so that entries meet in one slot. */
const aDelayMs = fc.oneof(
  fc.nat({ max: 4 }).map((ticks) => ticks * WHEEL_TICK_MS),
  fc.nat({ max: 900_000 }),
);
const anEntry = fc.nat({ max: ENTRIES - 1 });
const aStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('schedule' as const), entry: anEntry, inMs: aDelayMs }),
  fc.record({ kind: fc.constant('touch' as const), entry: anEntry, laterMs: fc.nat({ max: 300_000 }) }),
  fc.record({ kind: fc.constant('cancel' as const), entry: anEntry }),
  fc.record({ kind: fc.constant('advance' as const), byMs: aDelayMs }),
);

test('IdleWheel fires as a plain list of due times would, within a tick', () => {
  fc.assert(
    fc.property(fc.array(aStep, { maxLength: 100, size: 'max' }), (steps) => {
      let nowMs = 0;
      const wheel = new IdleWheel<Entry>(0, ({ dueMs }) => dueMs);
      const entries = Array.from({ length: ENTRIES }, () => new Entry());
      // The oracle: who is scheduled, nothing else.
      const scheduled = new Set<Entry>();
      for (const step of steps) {
        if (step.kind === 'advance') {
          const untilMs = nowMs + step.byMs;
          for (; nowMs <= untilMs; nowMs += WHEEL_TICK_MS) {
            wheel.advance(nowMs, (entry) => {
              assert.ok(scheduled.delete(entry), 'fired what was not scheduled');
              assert.ok(entry.dueMs <= nowMs, 'fired early');
            });
            for (const { dueMs } of scheduled) assert.ok(dueMs > nowMs - WHEEL_TICK_MS, 'fired late');
          }
          continue;
        }
        const entry = entries[step.entry]!;
        if (step.kind === 'schedule') {
          entry.dueMs = nowMs + step.inMs;
          wheel.schedule(entry);
          scheduled.add(entry);
        } else if (step.kind === 'cancel') {
          wheel.cancel(entry);
          scheduled.delete(entry);
        } else {
          entry.dueMs += step.laterMs;
        }
        assert.equal(wheel.size, scheduled.size);
      }
    }),
    { numRuns: 300 },
  );
});
