import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { FlowEvictor } from '../../../../src/planes/kernel/enforce.js';
import { NO_FLOWS } from '../../../../src/planes/kernel/stop.js';
import { KernelChanges } from '../../../../src/planes/kernel/changes.js';
import { setupOf } from '../../../../src/planes/kernel/setup-of.js';
import type { KernelSetup } from '../../../../src/planes/netfilter/setup.js';
import type { ToolOutcome, Tools } from '../../../../src/planes/netfilter/tools.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { KernelStates } from '../../../support/kernel-states.js';
import type { Conditions } from '../../../support/state-factory.js';

/** What was done, in order: `install`, `update`, `conntrack -D ...`. */
class Kernel implements Tools {
  readonly done: string[] = [];
  readonly setups: KernelSetup[] = [];
  /** What `conntrack -L` tells. */
  entries = '';
  refuses = false;

  check = (): Promise<void> => Promise.resolve();
  install = (setup: KernelSetup): Promise<void> => this.#take('install', setup);
  update = (setup: KernelSetup): Promise<void> => this.#take('update', setup);

  run(tool: string, args: readonly string[]): Promise<ToolOutcome> {
    if (args[0] === '-D') this.done.push(`${tool} ${args.join(' ')}`);
    return Promise.resolve({ exitCode: 0, stdout: this.entries, stderr: '' });
  }

  follow(): () => void {
    return () => undefined;
  }

  #take(how: string, setup: KernelSetup): Promise<void> {
    if (this.refuses) return Promise.reject(new Error('no'));
    this.done.push(how);
    this.setups.push(setup);
    return Promise.resolve();
  }
}

describe('KernelChanges', () => {
  let states: KernelStates;
  before(async () => {
    states = await KernelStates.create();
  });

  function start(): { kernel: Kernel; changes: KernelChanges; clock: FakeClock; due: string[] } {
    const [kernel, clock, due] = [new Kernel(), new FakeClock(), [] as string[]];
    const changes = new KernelChanges({
      ...{ clock, keeper: kernel, flows: NO_FLOWS },
      evictor: new FlowEvictor({ tools: kernel, onFailure: (text) => assert.fail(text) }),
      setupOf: (input) => setupOf(input, { networks: [] }),
      onDue: () => due.push('due'),
    });
    return { kernel, changes, clock, due };
  }

  function state(
    conditions: Conditions = {},
    rule: object = {},
    hosts = [11, 12, 13],
  ): Parameters<KernelChanges['put']>[0] {
    const raw = {
      frontends: [{ name: 'hub', address: '10.9.0.10' }],
      probes: [{ name: 'alive', protocol: 'tcp', port: 80 }],
      backendPools: [
        { name: 'nvas', backends: hosts.map((n) => ({ name: `b${n}`, address: `10.2.0.${n}` })) },
      ],
      rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true, ...rule }],
    };
    return states.state(raw, { tableSize: 251 }, conditions);
  }

  const slotsOf = (setup: KernelSetup | undefined): unknown => setup?.sets.get('to-nvas.alive');
  const sizeOf = (setup: KernelSetup | undefined, name: string): number | undefined =>
    setup?.sets.get(name)?.size;

  test('puts who is out first, forgets his UDP flows, and lets the slots follow', async () => {
    const { kernel, changes } = start();
    await changes.put(state());
    kernel.done.length = 0;
    await changes.put(state({ health: { b12: 'down' } }));
    const [before, urgent, last] = kernel.setups.slice(-3);
    assert.deepEqual(
      kernel.done.map((line) => line.replace(/0x[0-9a-f]{8}\/.*/, 'MARK')),
      ['update', 'conntrack -D -p udp -f ipv4 --mark MARK', 'update'],
    );
    assert.equal(slotsOf(urgent), slotsOf(before));
    assert.equal(sizeOf(urgent, 'out-nvas.alive'), 1);
    assert.notDeepEqual(slotsOf(last), slotsOf(before));
  });

  test('forgets flows that were reset before their backend may keep flows again', async () => {
    const { kernel, changes } = start();
    const rule = { flowPolicy: { preset: 'azure', probeDown: 'reset' } };
    await changes.put(state({}, rule));
    await changes.put(state({ health: { b12: 'down' } }, rule));
    assert.equal(sizeOf(kernel.setups.at(-1), 'tcp-reset-all'), 1);
    kernel.done.length = 0;
    await changes.put(state({}, rule));
    const [urgent, last] = kernel.setups.slice(-2);
    assert.equal(sizeOf(urgent, 'tcp-reset-all'), 1, 'resets go on until conntrack has forgotten the flows');
    assert.equal(sizeOf(last, 'tcp-reset-all'), 0);
    assert.match(kernel.done[1] ?? '', /^conntrack -D -p tcp /);
  });

  test('knows a removed backend until conntrack has none of its flows', async () => {
    const { kernel, changes, clock, due } = start();
    const rule = { flowPolicy: { preset: 'azure', removed: 'reset' } };
    await changes.put(state({}, rule));
    await changes.put(state({}, rule, [11, 13]));
    assert.equal(changes.input?.backends.length, 3);
    assert.equal(
      sizeOf(kernel.setups.at(-1), 'tcp-reset-all'),
      1,
      'the preset resets flows of who was removed',
    );
    clock.advance(30_000);
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(due, ['due']);
    await changes.put(state({}, rule, [11, 13]));
    assert.equal(changes.input.backends.length, 2);
    assert.equal(sizeOf(kernel.setups.at(-1), 'tcp-reset-all'), 0);
  });

  test('ends flows of a drained backend when the time is over, not before', async () => {
    const { kernel, changes, clock, due } = start();
    await changes.put(state());
    await changes.put(state({ drained: { b12: 1000 } }));
    assert.equal(sizeOf(kernel.setups.at(-1), 'tcp-reset-all'), 0);
    for (let step = 0; step < 10 && due.length === 0; step++) {
      clock.advance(250);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.deepEqual(due, ['due']);
    await changes.put(state({ drained: { b12: 1000 } }));
    assert.equal(sizeOf(kernel.setups.at(-1), 'tcp-reset-all'), 1);
  });

  test('a state that is refused leaves the one before in force', async () => {
    const { kernel, changes } = start();
    await changes.put(state());
    kernel.refuses = true;
    await assert.rejects(changes.put(state({}, {}, [11])));
    assert.equal(changes.input?.backends.length, 3);
    kernel.refuses = false;
    await changes.put(state());
    assert.equal(changes.input.backends.length, 3);
  });
});
