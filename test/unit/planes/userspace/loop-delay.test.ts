import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { LoopDelay } from '../../../../src/planes/userspace/latency.js';
import { systemClock } from '../../../../src/runtime/clock.js';
import { FakeClock } from '../../../support/fake-clock.js';

const MS = 1e6;

/** Stands for perf_hooks' histogram, which records whole intervals of 20 ms, delay included. */
class FakeHistogram {
  max = 0;
  enabled = false;

  enable(): boolean {
    this.enabled = true;
    return true;
  }

  disable(): boolean {
    this.enabled = false;
    return true;
  }

  reset(): void {
    this.max = 0;
  }

  /** An interval that was this much longer than it should be. */
  late(byMs: number): void {
    this.max = Math.max(this.max, (20 + byMs) * MS);
  }
}

class Lab {
  readonly clock = new FakeClock();
  readonly histogram = new FakeHistogram();
  readonly delay = new LoopDelay(this.clock, this.histogram);

  worstMs(): number {
    return Math.round(this.delay.worstSeconds() * 1000);
  }
}

describe('LoopDelay', () => {
  test('worstSeconds() is the worst of this window and the one before, and no older', () => {
    const lab = new Lab();
    lab.delay.start();
    assert.equal(lab.worstMs(), 0);
    lab.histogram.late(200);
    assert.equal(lab.worstMs(), 200);
    lab.clock.advance(15_000);
    assert.equal(lab.worstMs(), 200, 'the window before');
    lab.histogram.late(50);
    assert.equal(lab.worstMs(), 200);
    lab.clock.advance(15_000);
    assert.equal(lab.worstMs(), 50);
    lab.clock.advance(15_000);
    assert.equal(lab.worstMs(), 0);
  });

  test('worstSeconds() does not depend on who asks, or how often', () => {
    const lab = new Lab();
    lab.delay.start();
    lab.histogram.late(80);
    for (let i = 0; i < 5; i++) assert.equal(lab.worstMs(), 80);
  });

  test('an interval that came in time is no delay', () => {
    const lab = new Lab();
    lab.delay.start();
    lab.histogram.late(0);
    assert.equal(lab.delay.worstSeconds(), 0);
  });

  test('stop() leaves no timer and no histogram running', () => {
    const lab = new Lab();
    lab.delay.start();
    assert.equal(lab.histogram.enabled, true);
    lab.clock.advance(40_000);
    lab.delay.stop();
    assert.equal(lab.histogram.enabled, false);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('a real block of the event loop shows, and a loop that turns freely shows next to none', async () => {
    // Other processes can make the loop late at any time: one calm tenth of a second is enough.
    let calmest = Infinity;
    for (let attempt = 0; attempt < 30 && calmest > 0.01; attempt++) {
      const calm = new LoopDelay(systemClock);
      calm.start();
      await new Promise((resolve) => setTimeout(resolve, 100));
      calmest = Math.min(calmest, calm.worstSeconds());
      calm.stop();
    }
    assert.ok(calmest <= 0.01, `The calmest was ${calmest} s`);

    const delay = new LoopDelay(systemClock);
    delay.start();
    try {
      await new Promise((resolve) => setTimeout(resolve, 60));
      const untilMs = performance.now() + 150;
      while (performance.now() < untilMs);
      await new Promise((resolve) => setTimeout(resolve, 60));
      assert.ok(delay.worstSeconds() >= 0.1, `Only ${delay.worstSeconds()} s`);
    } finally {
      delay.stop();
    }
  });
});
