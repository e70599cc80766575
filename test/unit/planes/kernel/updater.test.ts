import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { FlowFinder } from '../../../../src/planes/kernel/enforce.js';
import { KernelUpdater, type KernelUpdaterDeps } from '../../../../src/planes/kernel/updater.js';
import { setupOf } from '../../../../src/planes/kernel/plane.js';
import { parseConntrackEntry, type EntryFilter } from '../../../../src/planes/netfilter/conntrack.js';
import type { Stage } from '../../../../src/planes/netfilter/reconciler.js';
import type { KernelSetup } from '../../../../src/planes/netfilter/setup.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { KernelStates, oneRule } from '../../../support/kernel-states.js';
import { NO_FLOWS } from '../../../support/no-flows.js';
import type { Conditions } from '../../../support/state-factory.js';

/** A reconciler over a kernel in memory. What was done, in order: `put`, `forget -p udp ...`. */
class Kernel implements Pick<KernelUpdaterDeps['reconciler'], 'want' | 'forget' | 'present'> {
  readonly done: string[] = [];
  readonly setups: KernelSetup[] = [];
  /** Lines that `conntrack -L` tells. */
  entries: readonly string[] = [];
  refuses = false;

  get present(): KernelSetup | undefined {
    return this.setups.at(-1);
  }

  async want(stages: readonly Stage[]): Promise<void> {
    if (this.refuses) throw new Error('no');
    for (const { setup, forget } of stages) {
      this.done.push('put');
      this.setups.push(setup);
      if (forget !== undefined) await this.forget(forget);
    }
  }

  async forget(find: () => Promise<readonly EntryFilter[]>): Promise<void> {
    for (const filter of await find()) this.done.push(`forget ${filter.join(' ')}`);
  }
}

describe('KernelUpdater', () => {
  let states: KernelStates;
  before(async () => {
    states = await KernelStates.create();
  });

  function start(): { kernel: Kernel; updater: KernelUpdater; clock: FakeClock; due: string[] } {
    const [kernel, clock, due] = [new Kernel(), new FakeClock(), [] as string[]];
    const updater = new KernelUpdater({
      ...{ clock, reconciler: kernel, flows: NO_FLOWS },
      finder: new FlowFinder({
        list: (_filter, onEntries) => {
          onEntries(kernel.entries.flatMap((line) => parseConntrackEntry(line) ?? []));
          return Promise.resolve(undefined);
        },
      }),
      setupOf: (program) => setupOf(program, []),
      onDue: () => due.push('due'),
    });
    return { kernel, updater, clock, due };
  }

  function state(
    conditions: Conditions = {},
    rule: object = {},
    hosts = [11, 12, 13],
  ): Parameters<KernelUpdater['update']>[0] {
    const backends = hosts.map((host) => `10.2.0.${host}`);
    const raw = oneRule({ backends, rule: { probe: 'alive', ...rule } });
    return states.state(raw, { tableSize: 251 }, conditions);
  }

  const slotsOf = (setup: KernelSetup | undefined): unknown => setup?.sets.get('to-nvas.alive');
  const sizeOf = (setup: KernelSetup | undefined, name: string): number | undefined =>
    setup?.sets.get(name)?.size;

  test('puts who is out first, forgets his UDP flows, and lets the slots follow', async () => {
    const { kernel, updater } = start();
    await updater.update(state());
    kernel.done.length = 0;
    await updater.update(state({ health: { b12: 'down' } }));
    const [before, urgent, last] = kernel.setups.slice(-3);
    assert.deepEqual(
      kernel.done.map((line) => line.replace(/0x[0-9a-f]{8}\/.*/, 'MARK')),
      ['put', 'forget -p udp -f ipv4 --mark MARK', 'put'],
    );
    assert.equal(slotsOf(urgent), slotsOf(before));
    assert.equal(sizeOf(urgent, 'out-nvas.alive'), 1);
    assert.notDeepEqual(slotsOf(last), slotsOf(before));
  });

  test('forgets flows that were reset before their backend may keep flows again', async () => {
    const { kernel, updater } = start();
    const rule = { flowPolicy: { preset: 'azure', probeDown: 'reset' } };
    await updater.update(state({}, rule));
    await updater.update(state({ health: { b12: 'down' } }, rule));
    assert.equal(sizeOf(kernel.setups.at(-1), 'tcp-reset-all'), 1);
    kernel.done.length = 0;
    await updater.update(state({}, rule));
    const [urgent, last] = kernel.setups.slice(-2);
    assert.equal(sizeOf(urgent, 'tcp-reset-all'), 1, 'resets go on until conntrack has forgotten the flows');
    assert.equal(sizeOf(last, 'tcp-reset-all'), 0);
    assert.match(kernel.done[1] ?? '', /^forget -p tcp /);
  });

  test('knows a removed backend until conntrack has none of its flows', async () => {
    const { kernel, updater, clock, due } = start();
    const rule = { flowPolicy: { preset: 'azure', removed: 'reset' } };
    await updater.update(state({}, rule));
    await updater.update(state({}, rule, [11, 13]));
    assert.equal(updater.program?.backends.length, 3);
    assert.equal(
      sizeOf(kernel.setups.at(-1), 'tcp-reset-all'),
      1,
      'the preset resets flows of who was removed',
    );
    clock.advance(30_000);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(due, ['due']);
    await updater.update(state({}, rule, [11, 13]));
    assert.equal(updater.program.backends.length, 2);
    assert.equal(sizeOf(kernel.setups.at(-1), 'tcp-reset-all'), 0);
  });

  test('ends flows of a drained backend when the time is over, not before', async () => {
    const { kernel, updater, clock, due } = start();
    await updater.update(state());
    await updater.update(state({ drained: { b12: 1000 } }));
    assert.equal(sizeOf(kernel.setups.at(-1), 'tcp-reset-all'), 0);
    for (let step = 0; step < 10 && due.length === 0; step++) {
      clock.advance(250);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(due, ['due']);
    await updater.update(state({ drained: { b12: 1000 } }));
    assert.equal(sizeOf(kernel.setups.at(-1), 'tcp-reset-all'), 1);
  });

  test('a health that the kernel refuses for now is the present one: the reconciler tries again', async () => {
    const { kernel, updater } = start();
    await updater.update(state());
    kernel.refuses = true;
    await assert.rejects(updater.update(state({ health: { b12: 'down' } })));
    kernel.refuses = false;
    kernel.done.length = 0;
    await updater.update(state({ health: { b12: 'down' } }));
    assert.equal(
      kernel.done.filter((line) => line.startsWith('forget')).length,
      1,
      'its flows are not overlooked',
    );
    assert.equal(updater.state?.views[0]?.backends[1]?.valid, false);
  });

  test('a configuration that is refused leaves the one before in force', async () => {
    const { kernel, updater } = start();
    await updater.update(state());
    kernel.refuses = true;
    await assert.rejects(updater.update(state({}, {}, [11])));
    assert.equal(updater.program?.backends.length, 3);
    kernel.refuses = false;
    await updater.update(state());
    assert.equal(updater.program.backends.length, 3);
  });
});
