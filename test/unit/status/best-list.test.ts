import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BestList } from '../../../src/status/flows.js';

/** Keeps the smallest `limit`, by `weight`. */
function smallest(limit: number, ...weights: readonly number[]): readonly { weight: number; turn: number }[] {
  const best = new BestList<{ weight: number; turn: number }>((a, b) => a.weight - b.weight, limit);
  for (const [turn, weight] of weights.entries()) best.offer({ weight, turn });
  return best.items;
}

describe('BestList', () => {
  test('keeps as many as a sort and a slice would, in every order', () => {
    for (let round = 0; round < 50; round++) {
      const weights = Array.from({ length: 100 }, (_, index) => (index * (7 + round * 2) + round) % 37);
      for (const limit of [1, 10, 100, 200]) {
        const expected = weights
          .map((weight, turn) => ({ weight, turn }))
          .sort((a, b) => a.weight - b.weight)
          .slice(0, limit);
        assert.deepEqual(smallest(limit, ...weights), expected);
      }
    }
  });

  test('keeps nobody where nobody is wanted', () => {
    assert.deepEqual(smallest(0, 1, 2), []);
  });
});
