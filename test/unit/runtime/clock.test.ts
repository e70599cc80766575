import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { systemClock } from '../../../src/runtime/clock.js';
import { builtFile } from '../../support/commands.js';
import { FakeClock } from '../../support/fake-clock.js';

const CLOCK = pathToFileURL(builtFile('src/runtime/clock')).href;

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

describe('FakeClock', () => {
  test('time stands still until it is told to move', async () => {
    const clock = new FakeClock();
    const [wallMs, monotonicMs] = [clock.wallMs(), clock.monotonicMs()];
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual([clock.wallMs(), clock.monotonicMs()], [wallMs, monotonicMs]);
    clock.advance(250);
    assert.deepEqual([clock.wallMs(), clock.monotonicMs()], [wallMs + 250, monotonicMs + 250]);
    clock.wallOffsetMs -= 5000;
    assert.deepEqual([clock.wallMs(), clock.monotonicMs()], [wallMs - 4750, monotonicMs + 250]);
  });

  test('timers fire when they fall due, in order of due time, then of setting', () => {
    const clock = new FakeClock();
    const fired: string[] = [];
    const set = (name: string, delayMs: number) =>
      clock.setTimer(delayMs, () => fired.push(`${name} ${clock.monotonicMs()}`));
    set('late', 20);
    set('first', 10);
    set('second', 10);
    set('negative', -5);
    clock.advance(9);
    assert.deepEqual(fired, ['negative 0']);
    clock.advance(1);
    assert.deepEqual(fired, ['negative 0', 'first 10', 'second 10']);
    clock.advance(100);
    assert.deepEqual(fired, ['negative 0', 'first 10', 'second 10', 'late 20']);
    assert.equal(clock.monotonicMs(), 110);
    assert.equal(clock.pendingTimers, 0);
  });

  test('a timer that is set by another fires in the same move if it falls due in it', () => {
    const clock = new FakeClock();
    const fired: number[] = [];
    const again = () => {
      fired.push(clock.monotonicMs());
      clock.setTimer(10, again);
    };
    clock.setTimer(10, again);
    clock.advance(35);
    assert.deepEqual(fired, [10, 20, 30]);
    assert.equal(clock.pendingTimers, 1);
  });

  test('a cancelled timer does not fire, even if another timer of the same moment cancels it', () => {
    const clock = new FakeClock();
    const fired: string[] = [];
    let cancelSecond: () => void = () => undefined;
    clock.setTimer(10, () => {
      fired.push('first');
      cancelSecond();
    });
    cancelSecond = clock.setTimer(10, () => fired.push('second'));
    const cancelThird = clock.setTimer(10, () => fired.push('third'));
    cancelThird();
    cancelThird();
    clock.advance(10);
    assert.deepEqual(fired, ['first']);
    assert.equal(clock.pendingTimers, 0);
  });

  test('a timer that moves the clock itself never turns it back', () => {
    const clock = new FakeClock();
    clock.setTimer(10, () => clock.advance(100));
    clock.advance(20);
    assert.equal(clock.monotonicMs(), 110);
  });

  test('advanceAsync() lets promises run after each step', async () => {
    const clock = new FakeClock();
    const seen: string[] = [];
    const wait = (delayMs: number) => new Promise<void>((resolve) => void clock.setTimer(delayMs, resolve));
    const work = async () => {
      await wait(10);
      seen.push(`a ${clock.monotonicMs()}`);
      await wait(10);
      seen.push(`b ${clock.monotonicMs()}`);
    };
    const done = work();
    await clock.advanceAsync(25, 10);
    await done;
    // The second wait was set after the first step, at 10.
    assert.deepEqual(seen, ['a 10', 'b 20']);
    assert.equal(clock.monotonicMs(), 25, 'the last step is what is left');
  });
});
