import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ForwardingCompiler } from '../../../src/selection/compiler.js';
import { SlowStart } from '../../../src/control/slow-start.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { FakeClock } from '../../support/fake-clock.js';
import { aPool, settings } from './settings.js';

const hash = await createHasher();
const configuration = settings({ tableSize: 65537, backendPools: [aPool(3, { slowStartMs: 10_000 })] });

class Lab {
  readonly clock = new FakeClock();
  readonly down = new Set<string>();
  steps = 0;
  state: ForwardingState | undefined;
  readonly #compiler = new ForwardingCompiler(hash);
  readonly slowStart = new SlowStart(this.clock, () => {
    this.steps++;
    this.serve();
  });

  serve(): void {
    const compile = (): ForwardingState =>
      this.#compiler.compile(configuration, {
        health: ({ id }) => ({ state: this.down.has(id) ? 'down' : 'up' }),
        adminState: () => 'none',
        draining: () => false,
        rampPercent: (backend) => this.slowStart.percent(backend),
      });
    const state = compile();
    this.state = this.slowStart.observe(this.state, state) ? compile() : state;
  }

  /** Share of the table, in percent, of each backend. */
  shares(): readonly number[] {
    const { table, backends } = this.state!.views[0]!;
    return backends.map((_, index) =>
      Math.round((table.filter((owner) => owner === index).length / table.length) * 100),
    );
  }
}

describe('SlowStart', () => {
  test('nobody ramps when the process starts', () => {
    const lab = new Lab();
    lab.serve();
    assert.deepEqual(lab.shares(), [33, 33, 33]);
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('a backend that comes back gets a tenth of its weight, and a tenth more with each tenth of the time', () => {
    const lab = new Lab();
    lab.down.add('nvas/10.0.0.2');
    lab.serve();
    lab.down.clear();
    lab.serve();
    // 0.1 of 2.1
    assert.deepEqual(lab.shares(), [48, 5, 48]);
    lab.clock.advance(500);
    assert.equal(lab.slowStart.percent({ id: 'nvas/10.0.0.2' }), 10, 'not before the step is over');
    lab.clock.advance(3500);
    // 0.5 of 2.5
    assert.deepEqual(lab.shares(), [40, 20, 40]);
    lab.clock.advance(5000);
    assert.deepEqual(lab.shares(), [33, 33, 33]);
    assert.equal(lab.steps, 9);
    lab.clock.advance(60_000);
    assert.equal(lab.steps, 9, 'the end is the end');
    assert.equal(lab.clock.pendingTimers, 0);
  });

  test('a backend that comes up where nobody serves gets everything at once', () => {
    const lab = new Lab();
    for (const number of [1, 2, 3]) lab.down.add(`nvas/10.0.0.${number}`);
    lab.serve();
    lab.down.delete('nvas/10.0.0.1');
    lab.serve();
    assert.deepEqual(lab.shares(), [100, 0, 0]);
    assert.equal(lab.slowStart.percent({ id: 'nvas/10.0.0.1' }), 100);
  });

  test('a backend that goes while it ramps begins anew when it comes back', () => {
    const lab = new Lab();
    lab.down.add('nvas/10.0.0.2');
    lab.serve();
    lab.down.clear();
    lab.serve();
    lab.clock.advance(8000);
    assert.equal(lab.slowStart.percent({ id: 'nvas/10.0.0.2' }), 90);
    lab.down.add('nvas/10.0.0.2');
    lab.serve();
    lab.down.clear();
    lab.serve();
    assert.equal(lab.slowStart.percent({ id: 'nvas/10.0.0.2' }), 10);
  });
});
