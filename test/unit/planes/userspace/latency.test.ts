import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ConnectLatency, LoopDelay } from '../../../../src/planes/userspace/latency.js';
import { systemClock } from '../../../../src/runtime/clock.js';
import { FakeClock } from '../../../support/fake-clock.js';

describe('ConnectLatency', () => {
  test('snapshot() counts cumulatively: a bucket holds everything up to its bound, the bound included', () => {
    const latency = new ConnectLatency();
    const observed = fc.array(
      fc.oneof(
        fc.double({ min: 0, max: 6, noNaN: true }),
        fc.constantFrom(0, 0.0005, 0.001, 0.01, 0.1, 1, 2.5, 5, 5.0001, 60),
      ),
      { minLength: 1, maxLength: 50 },
    );
    let run = 0;
    fc.assert(
      fc.property(observed, (all) => {
        const backend = `nvas/run-${run++}`;
        for (const seconds of all) latency.observe(backend, seconds);
        const histogram = latency.snapshot()[backend];
        assert.ok(histogram !== undefined);
        for (const [index, bound] of histogram.boundsSeconds.entries()) {
          const expected = all.filter((seconds) => seconds <= bound).length;
          assert.equal(histogram.counts[index], expected, `at most ${bound} s`);
        }
        assert.equal(histogram.count, all.length);
        assert.ok(Math.abs(histogram.sumSeconds - all.reduce((a, b) => a + b, 0)) < 1e-9);
      }),
      { numRuns: 50 },
    );
  });

  test('snapshot() has bounds that rise from under a millisecond to the default connect timeout', () => {
    const latency = new ConnectLatency();
    latency.observe('nvas/10.0.0.1', 1);
    const { boundsSeconds } = latency.snapshot()['nvas/10.0.0.1']!;
    assert.deepEqual(
      boundsSeconds,
      boundsSeconds.toSorted((a, b) => a - b),
    );
    assert.equal(new Set(boundsSeconds).size, boundsSeconds.length);
    assert.ok(boundsSeconds[0]! < 0.001);
    assert.equal(boundsSeconds.at(-1), 5);
  });

  test('snapshot() keeps backends apart and does not change with later observations', () => {
    const latency = new ConnectLatency();
    assert.deepEqual(latency.snapshot(), {});
    latency.observe('nvas/10.0.0.1', 0.002);
    const before = latency.snapshot();
    const copy = structuredClone(before);
    latency.observe('nvas/10.0.0.1', 0.002);
    latency.observe('nvas/10.0.0.2', 7);
    assert.deepEqual(before, copy);
    const after = latency.snapshot();
    assert.deepEqual([after['nvas/10.0.0.1']?.count, after['nvas/10.0.0.2']?.count], [2, 1]);
    assert.equal(after['nvas/10.0.0.2']?.counts.at(-1), 0, 'over the last bound');
  });
});

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
    lab.histogram.late(0);
    assert.equal(lab.worstMs(), 0, 'an interval that came in time is no delay');
    lab.histogram.late(200);
    // Whoever asks, and how often, changes nothing.
    for (let i = 0; i < 5; i++) assert.equal(lab.worstMs(), 200);
    lab.clock.advance(15_000);
    assert.equal(lab.worstMs(), 200, 'the window before');
    lab.histogram.late(50);
    assert.equal(lab.worstMs(), 200);
    lab.clock.advance(15_000);
    assert.equal(lab.worstMs(), 50);
    lab.clock.advance(15_000);
    assert.equal(lab.worstMs(), 0);
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
