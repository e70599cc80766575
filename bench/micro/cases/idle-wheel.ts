import { IdleWheel, WHEEL_TICK_MS, type WheelEntry } from '../../../src/flows/idle-wheel.js';
import { Dice } from '../fixtures.js';
import type { MicroBench } from '../micro-bench.js';

const ENTRIES = 1_000_000;

/** The default idle time of TCP. */
const IDLE_MS = 240_000;

class Entry implements WheelEntry {
  wheelNext: WheelEntry | undefined = undefined;
  wheelPrevious: WheelEntry | undefined = undefined;
  wheelSlot = -1;
  dueMs: number;

  constructor(dueMs: number) {
    this.dueMs = dueMs;
  }
}

export const IDLE_WHEEL: readonly MicroBench[] = [
  {
    // About 2,000 entries come round in a tick; activity has put off most, the rest are taken up again.
    name: 'idle wheel: tick with 1 M entries that live on',
    prepare() {
      const dice = new Dice();
      const wheel = new IdleWheel<Entry>(0, (entry) => entry.dueMs);
      for (let n = 0; n < ENTRIES; n++) wheel.schedule(new Entry(dice.below(IDLE_MS)));
      let nowMs = 0;
      return {
        run(iterations) {
          let due = 0;
          for (let i = 0; i < iterations; i++) {
            nowMs += WHEEL_TICK_MS;
            wheel.advance(nowMs, (entry) => {
              due++;
              entry.dueMs = nowMs + 1 + dice.below(IDLE_MS);
              wheel.schedule(entry);
            });
          }
          return due;
        },
      };
    },
  },
  {
    name: 'idle wheel: schedule anew and cancel among 1 M entries',
    prepare() {
      const dice = new Dice();
      const wheel = new IdleWheel<Entry>(0, (entry) => entry.dueMs);
      const entries = Array.from({ length: ENTRIES }, () => new Entry(dice.below(IDLE_MS)));
      for (const entry of entries) wheel.schedule(entry);
      return {
        run(iterations) {
          for (let i = 0; i < iterations; i++) {
            const entry = entries[dice.below(ENTRIES)]!;
            wheel.cancel(entry);
            wheel.schedule(entry);
          }
          return wheel.size;
        },
      };
    },
  },
];
