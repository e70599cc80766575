import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EndPacer } from '../../../src/flows/end-pacer.js';
import { mix32, type Flow } from '../../../src/flows/flow.js';
import { FakeClock } from '../../support/fake-clock.js';
import { aFlow } from './flow-fixtures.js';

const BACKEND = 'nvas/10.0.0.1';

class Lab {
  readonly clock = new FakeClock();
  readonly ended: { readonly id: number; readonly atMs: number }[] = [];
  readonly pacer = new EndPacer<Flow>(this.clock, {
    endBatch: (batch) => {
      for (const { id } of batch) this.ended.push({ id, atMs: this.clock.monotonicMs() });
    },
    rank: ({ id }) => mix32(id),
  });

  drain(flows: readonly Flow[], spreadMs: number, backendId = BACKEND): void {
    this.pacer.replace(new Map([[backendId, { spreadMs, items: [...flows] }]]));
  }

  ids(): readonly number[] {
    return this.ended.map(({ id }) => id);
  }
}

function flows(count: number, firstId = 1): readonly Flow[] {
  return Array.from({ length: count }, (_, index) => aFlow(firstId + index, 'tcp'));
}

describe('EndPacer', () => {
  test('flows end evenly over the time asked for, each once, in batches, and in no order of age', () => {
    const lab = new Lab();
    lab.drain(flows(1000), 10_000);
    assert.equal(lab.ended.length, 0);
    for (let second = 1; second <= 10; second++) {
      lab.clock.advance(1000);
      const share = lab.ended.length / (second * 100);
      assert.ok(share >= 0.9 && share <= 1.1, `${lab.ended.length} have ended after ${second} s`);
    }
    assert.equal(lab.ended.length, 1000);
    assert.equal(new Set(lab.ids()).size, 1000);
    const times = new Set(lab.ended.map(({ atMs }) => atMs));
    assert.ok(times.size >= 90 && times.size <= 101, `${times.size} batches`);
    const half = lab.ids().slice(0, 500);
    const young = half.filter((id) => id > 500).length;
    assert.ok(young > 200 && young < 300, `${young} of the first 500 are of the younger half`);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('few flows do not end in the first moments either', () => {
    const lab = new Lab();
    lab.drain(flows(2), 10_000);
    lab.clock.advance(2400);
    assert.equal(lab.ended.length, 0);
    lab.clock.advance(200);
    assert.equal(lab.ended.length, 1);
    lab.clock.advance(4800);
    assert.equal(lab.ended.length, 1);
    lab.clock.advance(300);
    assert.equal(lab.ended.length, 2);
  });

  test('a spread of 0 ends them at once, one shorter than a step within it', () => {
    const lab = new Lab();
    lab.drain(flows(50), 0);
    assert.equal(lab.ended.length, 50);
    const short = new Lab();
    short.drain(flows(50), 30);
    short.clock.advance(30);
    assert.equal(short.ended.length, 50);
    assert.equal(lab.clock.pendingTimers + short.clock.pendingTimers, 0);
  });

  test('the same again neither begins anew nor ends anything twice', () => {
    const lab = new Lab();
    const all = flows(100);
    for (let step = 0; step < 20; step++) {
      lab.drain(all, 1000);
      lab.drain(all, 1000);
      assert.ok(lab.clock.pendingTimers <= 1);
      lab.clock.advance(50);
    }
    assert.equal(lab.ended.length, 100);
    assert.equal(new Set(lab.ids()).size, 100);
    lab.drain(all, 1000);
    lab.clock.advance(5000);
    assert.equal(lab.ended.length, 100);
  });

  test('flows that come later end in the time that is left, and at once after it', () => {
    const lab = new Lab();
    const first = flows(10);
    lab.drain(first, 1000);
    lab.clock.advance(500);
    const second = flows(10, 11);
    lab.drain([...first, ...second], 1000);
    assert.ok(lab.ended.length < 10);
    lab.clock.advance(500);
    assert.equal(lab.ended.length, 20);
    lab.drain(flows(1, 21), 1000);
    assert.equal(lab.ended.length, 21);
  });

  test('a backend that is no longer there has its endings called off, and starts afresh later', () => {
    const lab = new Lab();
    const all = flows(100);
    lab.drain(all, 1000);
    lab.clock.advance(500);
    const before = lab.ended.length;
    lab.pacer.replace(new Map());
    assert.equal(lab.clock.pendingTimers, 0);
    lab.clock.advance(5000);
    assert.equal(lab.ended.length, before);
    const left = all.filter(({ id }) => !lab.ids().includes(id));
    lab.drain(left, 1000);
    lab.clock.advance(500);
    assert.ok(lab.ended.length < 100, 'they end over the whole time again');
    lab.clock.advance(500);
    assert.equal(lab.ended.length, 100);
  });

  test('backends end their flows apart from each other, and another time asked for holds from now on', () => {
    const lab = new Lab();
    const [a, b] = [flows(10), flows(10, 11)];
    const drained = (spreadOfA: number) =>
      new Map([
        ['a', { spreadMs: spreadOfA, items: [...a] }],
        ['b', { spreadMs: 2000, items: [...b] }],
      ]);
    lab.pacer.replace(drained(60_000));
    lab.clock.advance(1000);
    lab.pacer.replace(drained(0));
    assert.deepEqual(lab.ids().filter((id) => id <= 10).length, 10);
    const ofB = lab.ids().filter((id) => id > 10).length;
    assert.ok(ofB >= 4 && ofB <= 6, `${ofB}`);
    lab.clock.advance(1000);
    assert.equal(lab.ended.length, 20);
  });

  test('stop() ends nothing any more and leaves no timer', () => {
    const lab = new Lab();
    lab.drain(flows(10), 1000);
    lab.clock.advance(400);
    const before = lab.ended.length;
    lab.pacer.stop();
    lab.drain(flows(10, 11), 1000);
    assert.equal(lab.clock.pendingTimers, 0);
    lab.clock.advance(5000);
    assert.equal(lab.ended.length, before);
  });

  /** A pacer whose batches take until they are told to finish. */
  function slowLab() {
    const clock = new FakeClock();
    const told: string[] = [];
    const lab = {
      ...{ clock, told },
      finish: (): void => undefined,
      pacer: new EndPacer<Flow>(clock, {
        endBatch: (batch, backendId) => {
          told.push(`${batch.length} of ${backendId}`);
          return new Promise<void>((resolve) => (lab.finish = resolve));
        },
        rank: ({ id }) => mix32(id),
        onOver: (backendId) => told.push(`${backendId} is over`),
      }),
    };
    return lab;
  }

  test('a batch that takes its time delays the next, which then holds all that is due', async () => {
    const lab = slowLab();
    const { clock, told, pacer } = lab;
    pacer.replace(new Map([[BACKEND, { spreadMs: 10_000, items: flows(2000) }]]));
    await clock.advanceAsync(100);
    assert.equal(told.length, 1);
    await clock.advanceAsync(5000);
    assert.equal(told.length, 1, 'the first is still on its way');
    lab.finish();
    await clock.advanceAsync(0.1);
    assert.equal(told.length, 2);
    const done = told.reduce((sum, batch) => sum + Number.parseInt(batch, 10), 0);
    assert.ok(done >= 1000 && done <= 1040, `${done}`);
    lab.finish();
    pacer.stop();
    await clock.advanceAsync(10_000);
    assert.equal(told.length, 2);
  });

  test('onOver() is called once, at the end of the time and after the last batch', async () => {
    const lab = slowLab();
    const { clock, told, pacer } = lab;
    const empty = { spreadMs: 1000, items: [] };
    pacer.replace(new Map(Object.entries({ a: empty, b: empty })));
    clock.advance(500);
    pacer.add('b', flows(1));
    pacer.add('unknown', flows(1));
    clock.advance(250);
    assert.deepEqual(told, ['1 of b']);
    clock.advance(250);
    assert.deepEqual(told, ['1 of b', 'a is over']);
    lab.finish();
    await clock.advanceAsync(5000);
    assert.deepEqual(told, ['1 of b', 'a is over', 'b is over']);
    pacer.replace(new Map([['a', empty]]));
    await clock.advanceAsync(5000);
    assert.equal(told.length, 3);
    assert.equal(clock.pendingTimers, 0);
  });
});
