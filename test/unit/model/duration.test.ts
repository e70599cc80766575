import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatDuration, parseDuration } from '../../../src/model/duration.js';

describe('duration', () => {
  const good: readonly (readonly [string, number])[] = [
    ['0ms', 0],
    ['500ms', 500],
    ['5s', 5000],
    ['4m', 240_000],
    ['1h', 3_600_000],
    ['05s', 5000],
  ];
  for (const [text, ms] of good) {
    it(`parseDuration() reads ${text}`, () => assert.equal(parseDuration(text), ms));
  }

  for (const text of [
    ...['', '5', 's', '5 s', '-5s', '+5s', '1.5s', '1m30s'],
    ...['5S', '5d', '5us', '1e3s', '5s\n', '٥s'],
  ]) {
    it(`parseDuration() refuses ${JSON.stringify(text)}`, () => assert.equal(parseDuration(text), undefined));
  }

  it('formatDuration() takes the largest unit that fits', () => {
    const texts = [0, 1, 999, 1000, 1500, 60_000, 90_000, 240_000, 3_600_000, 86_400_000].map(formatDuration);
    assert.deepEqual(texts, ['0ms', '1ms', '999ms', '1s', '1500ms', '1m', '90s', '4m', '1h', '24h']);
  });
});
