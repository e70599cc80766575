import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { systemClock } from '../../../src/runtime/clock.js';

const CLOCK = new URL('../../../src/runtime/clock.js', import.meta.url).href;

/** Runs a script with the clock, and gives how long the process lived and what it printed. */
function run(script: string): { readonly lastedMs: number; readonly stdout: string } {
  const startedMs = performance.now();
  const source = `import { systemClock } from ${JSON.stringify(CLOCK)};\n${script}`;
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    timeout: 20_000,
    encoding: 'utf8',
  });
  assert.equal(status, 0);
  return { lastedMs: performance.now() - startedMs, stdout };
}

test('wallMs() is the machine`s time, monotonicMs() one that only grows', () => {
  const earliest = Date.now();
  const wallMs = systemClock.wallMs();
  assert.ok(wallMs >= earliest && wallMs <= Date.now());
  let previous = systemClock.monotonicMs();
  for (let i = 0; i < 1000; i++) {
    const now = systemClock.monotonicMs();
    assert.ok(now >= previous);
    previous = now;
  }
});

test('setTimer() calls once, not before its time', async () => {
  let calls = 0;
  const startedMs = performance.now();
  await new Promise<void>((resolve) => {
    systemClock.setTimer(20, () => {
      calls++;
      resolve();
    });
  });
  // Timers count whole milliseconds.
  assert.ok(performance.now() - startedMs >= 19);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(calls, 1);
});

test('setTimer() gives the way to cancel, which may be used late and twice', async () => {
  let calls = 0;
  const cancel = systemClock.setTimer(5, () => calls++);
  cancel();
  cancel();
  await new Promise<void>((resolve) => {
    const late = systemClock.setTimer(30, () => {
      late();
      resolve();
    });
  });
  assert.equal(calls, 0);
});

test('setTimer() keeps the process alive, unless told not to', () => {
  assert.equal(run(`systemClock.setTimer(100, () => console.log('fired'));`).stdout, 'fired\n');
  const { stdout, lastedMs } = run(
    `systemClock.setTimer(15_000, () => console.log('fired'), { unref: true });`,
  );
  assert.equal(stdout, '');
  assert.ok(lastedMs < 15_000);
});
