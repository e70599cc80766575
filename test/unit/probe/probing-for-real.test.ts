import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { ipAddress } from '../../../src/model/address.js';
import type { HealthTransition } from '../../../src/model/configuration.js';
import { initialHealth, observe } from '../../../src/health/tracker.js';
import { createProbeRunner } from '../../../src/health/probes.js';
import { ProbeScheduler } from '../../../src/health/scheduler.js';
import { systemClock } from '../../../src/runtime/clock.js';
import { httpProbe } from './probe-fixtures.js';
import { bind } from './loopback-server.js';

test('ProbeScheduler sees a real backend come up, fall sick, stop answering and recover', async (t) => {
  let mode: 200 | 503 | 'hang' = 200;
  let connections = 0;
  const server = createServer((_request, response) => {
    if (mode !== 'hang') response.writeHead(mode).end('said');
  });
  server.on('connection', () => connections++);
  const port = await bind(server);
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });

  const scheduler = new ProbeScheduler({
    clock: systemClock,
    runner: createProbeRunner({ clock: systemClock }),
    tracker: { initialHealth, observe },
    random: Math.random,
  });
  t.after(() => scheduler.stop());
  const next = () =>
    new Promise<HealthTransition>((resolve) => {
      const unsubscribe = scheduler.onHealth((_key, _health, transition) => {
        if (transition === undefined) return;
        unsubscribe();
        resolve(transition);
      });
    });
  const seen: string[] = [];
  const expectNext = async (change: () => void) => {
    const transition = next();
    change();
    const { from, to, evidence } = await transition;
    seen.push(`${from} ${to} ${evidence}`);
  };

  const probe = httpProbe({ port, intervalMs: 100, timeoutMs: 80 });
  await expectNext(() => scheduler.update([{ address: ipAddress('127.0.0.1'), probe }]));
  await expectNext(() => (mode = 503));
  await expectNext(() => (mode = 200));
  await expectNext(() => (mode = 'hang'));
  await expectNext(() => (mode = 200));
  assert.deepEqual(seen, [
    'unknown up HTTP 200',
    'up down HTTP 503',
    'down up HTTP 200',
    'up down no answer in 80ms',
    'down up HTTP 200',
  ]);

  await scheduler.stop();
  const atStop = connections;
  assert.ok(atStop >= 6, 'five transitions, the fourth of two probes');
  server.closeIdleConnections();
  const open = await new Promise<number>((resolve) =>
    server.getConnections((_error, count) => resolve(count)),
  );
  assert.ok(open <= 1, `${open} connections left open`);
});
