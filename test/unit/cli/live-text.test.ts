import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDrain } from '../../../src/cli/operate.js';
import { listenerText, shortListenerText } from '../../../src/cli/status.js';
import { aDrain, aStatus, NOW_MS } from '../../support/api-answers.js';

const KERNEL = {
  table: 'inet haports',
  mode: 'kernel nat, return by route',
  why: 'The configuration asks for the kernel data plane',
  state: 'in-place',
  sinceMs: 0,
  repairs: 0,
  failures: 0,
  tool: 'nftables v1.0.6',
} as const;
const LISTENERS = { tcp: 1, udp: 2 };

test('listenerText() says what the numbers count on each plane', () => {
  const modes = [undefined, { ...KERNEL, mode: 'capture, udp redirect' }, KERNEL];
  const statuses = modes.map((kernel) =>
    aStatus({ listeners: LISTENERS, ...(kernel === undefined ? {} : { kernel }) }),
  );
  assert.deepEqual(statuses.map(listenerText), [
    '1 TCP, 2 UDP',
    '1 TCP, 2 UDP sockets, which get all captured ports',
    'none: the kernel forwards TCP of 1 frontend, UDP of 2 frontends',
  ]);
  assert.deepEqual(statuses.map(shortListenerText), [
    'listeners 1 TCP 2 UDP',
    'captured by 1 TCP 2 UDP sockets',
    'forwarded by the kernel',
  ]);
});

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
