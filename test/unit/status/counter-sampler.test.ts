import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CounterSampler } from '../../../src/status/counters.js';
import type { PlaneCounters } from '../../../src/planes/contract.js';
import { FakeClock } from '../../support/fake-clock.js';
import { aReading } from './counters-fixtures.js';

/** Answers when the test says so, each time with how often it has been asked as `workersLost`. */
class SlowPlane {
  asked = 0;
  readonly #waiting: { resolve: (counters: PlaneCounters) => void; reject: (error: Error) => void }[] = [];

  counters(): Promise<PlaneCounters> {
    this.asked++;
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  async answer(): Promise<void> {
    this.#waiting.shift()?.resolve(aReading({ workersLost: this.asked }));
    await new Promise((resolve) => setImmediate(resolve));
  }

  async fail(): Promise<void> {
    this.#waiting.shift()?.reject(new Error('gone'));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function lab() {
  const clock = new FakeClock();
  const plane = new SlowPlane();
  const sampler = new CounterSampler({ clock, plane });
  return { clock, plane, sampler };
}

describe('CounterSampler', () => {
  test('start() reads at once and then every second, and keeps the last two', async () => {
    const { clock, plane, sampler } = lab();
    const heard: number[] = [];
    sampler.subscribe(({ atMs }) => heard.push(atMs));
    sampler.start();
    sampler.start();
    await plane.answer();
    for (let second = 0; second < 2; second++) {
      clock.advance(1000);
      await plane.answer();
    }
    assert.equal(plane.asked, 3);
    assert.equal(sampler.latest?.atMs, 2000);
    assert.deepEqual(heard, [0, 1000, 2000]);
  });

  test('a slow read is waited for, not piled up', async () => {
    const { clock, plane, sampler } = lab();
    const heard: number[] = [];
    sampler.subscribe(({ atMs }) => heard.push(atMs));
    sampler.start();
    clock.advance(3500);
    assert.equal(plane.asked, 1);
    await plane.answer();
    assert.equal(sampler.latest?.atMs, 3500);
    assert.deepEqual(heard, [3500]);
    clock.advance(500);
    assert.equal(plane.asked, 2);
  });

  test('a failed read is left out', async () => {
    const { clock, plane, sampler } = lab();
    sampler.start();
    await plane.answer();
    clock.advance(1000);
    await plane.fail();
    assert.equal(sampler.latest?.atMs, 0);
    clock.advance(1000);
    await plane.answer();
    assert.equal(sampler.latest.atMs, 2000);
  });

  test("stop() ends it, and what is under way is nobody's news", async () => {
    const { clock, plane, sampler } = lab();
    const heard: unknown[] = [];
    sampler.subscribe((sample) => heard.push(sample));
    sampler.start();
    sampler.stop();
    await plane.answer();
    clock.advance(5000);
    assert.equal(plane.asked, 1);
    assert.deepEqual(heard, []);
    assert.equal(clock.pendingTimers, 0);
  });

  test('subscribe() returns what ends it', async () => {
    const { plane, sampler } = lab();
    const heard: unknown[] = [];
    sampler.subscribe((sample) => heard.push(sample))();
    sampler.start();
    await plane.answer();
    assert.deepEqual(heard, []);
  });

  test('fresh() takes what is new enough, and reads anew else', async () => {
    const { clock, plane, sampler } = lab();
    sampler.start();
    await plane.answer();
    clock.advance(600);
    assert.equal((await sampler.fresh(600)).counters.workersLost, 1);
    const anew = sampler.fresh(599);
    const another = sampler.fresh(0);
    assert.equal(plane.asked, 2);
    await plane.answer();
    assert.equal((await anew).counters.workersLost, 2);
    assert.equal(await anew, await another, 'two who ask at the same time share a read');
    assert.equal(sampler.latest?.atMs, 0, 'only regular samples count as such');
  });

  test('fresh() does not take a read that had begun too early', async () => {
    const { clock, plane, sampler } = lab();
    sampler.start();
    clock.advance(500);
    const fresh = sampler.fresh(100);
    assert.equal(plane.waiting, 1);
    await plane.answer();
    assert.equal(plane.waiting, 1, 'reads anew once that one is answered');
    await plane.answer();
    assert.equal((await fresh).counters.workersLost, 2);
  });

  test('fresh() rejects where the plane fails or is silent for a second', async () => {
    const { clock, plane, sampler } = lab();
    const failing = assert.rejects(sampler.fresh(0), /gone/);
    await plane.fail();
    await failing;
    const silent = assert.rejects(sampler.fresh(0), { code: 'LB_INTERNAL', message: 'No answer in 1000 ms' });
    clock.advance(1000);
    await silent;
  });

  test('samples() pairs a sample with an earlier one, but none that is too near', async () => {
    const { clock, plane, sampler } = lab();
    sampler.start();
    await plane.answer();
    assert.equal((await sampler.samples(0)).previous, undefined);
    clock.advance(1000);
    await plane.answer();
    assert.equal((await sampler.samples(0)).previous?.atMs, 0);
    clock.advance(100);
    const near = sampler.samples(0);
    await plane.answer();
    assert.deepEqual([(await near).latest?.atMs, (await near).previous?.atMs], [1100, 0]);
    clock.advance(400);
    const far = sampler.samples(0);
    await plane.answer();
    assert.deepEqual([(await far).latest?.atMs, (await far).previous?.atMs], [1500, 1000]);
  });
});
