import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { InstanceLock } from '../../../../src/planes/netfilter/instance-lock.js';
import { FakeClock } from '../../../support/fake-clock.js';

/** No two runs of this test meet. */
const instance = `test-${process.pid}`;

function lock(clock = new FakeClock(), name = instance): InstanceLock {
  return new InstanceLock({ clock }, { instance: name });
}

describe('InstanceLock', () => {
  test('one process has it, and another cannot until it is released', async () => {
    const [first, second, other] = [lock(), lock(), lock(undefined, `${instance}-b`)];
    await first.take();
    await first.take();
    await assert.rejects(second.take(), {
      code: 'LB_INSTANCE_RUNNING',
      message: new RegExp(`^Instance "${instance}" runs already, must be another`),
    });
    await other.take();
    first.release();
    first.release();
    await second.take();
    second.release();
    other.release();
  });

  test('takeWhenFree() takes it once it is free', async () => {
    const clock = new FakeClock();
    const [first, second] = [lock(), lock(clock)];
    await first.take();
    second.takeWhenFree();
    await clock.advanceAsync(2000, 500);
    first.release();
    await settle(clock, () => isTaken(lock()));
    second.release();
    assert.equal(await isTaken(lock()), false);
  });

  test('release() ends takeWhenFree()', async () => {
    const clock = new FakeClock();
    const [first, second] = [lock(), lock(clock)];
    await first.take();
    second.takeWhenFree();
    second.release();
    first.release();
    await clock.advanceAsync(2000, 500);
    assert.equal(await isTaken(lock()), false);
    assert.equal(clock.pendingTimers, 0);
  });

  test('goes with the process that has it, however that ends', async () => {
    const script = `require('net').createServer().listen('\\0haports/${instance}', () => console.log('there'))`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    assert.equal(await isTaken(lock()), true);
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.equal(await isTaken(lock()), false);
  });
});

async function isTaken(one: InstanceLock): Promise<boolean> {
  try {
    await one.take();
    one.release();
    // Closing takes a turn of the loop.
    await new Promise((resolve) => setImmediate(resolve));
    return false;
  } catch {
    return true;
  }
}

async function settle(clock: FakeClock, isDone: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 50; tries++) {
    await clock.advanceAsync(500);
    if (await isDone()) return;
  }
  assert.fail('it was never taken');
}
