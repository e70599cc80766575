import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDrain } from '../../../src/cli/operate.js';
import { aDrain, NOW_MS } from '../../support/api-answers.js';

test('formatDrain() says what comes after the deadline, and once it has passed what happens', () => {
  const lines = (atMs: number): readonly string[] =>
    formatDrain(aDrain({ deadlineAtMs: atMs }), { nowMs: NOW_MS, width: 100 }).filter((line) =>
      line.startsWith('  deadline'),
    );
  assert.deepEqual(
    [...lines(NOW_MS + 60_000), ...lines(NOW_MS)],
    [
      '  deadline   in 1m00s; then flows that are left end as their rule says, over 10s',
      '  deadline   passed; flows that are left end as their rule says, over 10s',
    ],
  );
});
