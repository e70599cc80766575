import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from '../../support/fake-clock.js';

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
