import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../../../src/runtime/backoff.js';

function next(backoff: Backoff, times: number): readonly number[] {
  return Array.from({ length: times }, () => backoff.nextMs());
}

test('nextMs() doubles from the first delay and stays at the greatest', () => {
  assert.deepEqual(
    next(new Backoff({ firstMs: 50, maxMs: 5000 }), 10),
    [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000],
  );
  assert.deepEqual(next(new Backoff({ firstMs: 1, maxMs: 8 }), 6), [1, 2, 4, 8, 8, 8]);
  assert.deepEqual(next(new Backoff({ firstMs: 100, maxMs: 100 }), 3), [100, 100, 100]);
});

test('nextMs() starts over after reset()', () => {
  const backoff = new Backoff({ firstMs: 50, maxMs: 300 });
  next(backoff, 5);
  backoff.reset();
  assert.deepEqual(next(backoff, 4), [50, 100, 200, 300]);
  const fresh = new Backoff({ firstMs: 50, maxMs: 300 });
  fresh.reset();
  assert.deepEqual(next(fresh, 2), [50, 100]);
});
