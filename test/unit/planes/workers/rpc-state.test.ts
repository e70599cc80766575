import assert from 'node:assert/strict';
import { serialize } from 'node:v8';
import { describe, test } from 'node:test';
import type { ForwardingState } from '../../../../src/model/forwarding.js';
import { StateReceiver, StateSender, type StateMessage } from '../../../../src/planes/workers/rpc.js';
import { StateFactory, type Conditions } from '../../../support/state-factory.js';

const factory = await StateFactory.create();

/** Two pools of three; the second is seen with a probe and without one. */
const FIRST = {
  frontends: [{ name: 'hub', address: '127.0.0.1' }],
  probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
  backendPools: ['a', 'b'].map((name, pool) => ({
    name,
    backends: [1, 2, 3].map((n) => ({ name: `${name}${n}`, address: `127.0.${pool + 1}.${n}` })),
  })),
  rules: [
    { name: 'one', backendPool: 'a', probe: 'alive', frontendPort: 80 },
    { name: 'two', backendPool: 'b', probe: 'alive', frontendPort: 81 },
    { name: 'three', backendPool: 'b', frontendPort: 82 },
  ].map((rule) => ({ ...rule, frontend: 'hub', protocol: 'tcp', backendPort: rule.frontendPort })),
};
const SECOND = { ...FIRST, rules: FIRST.rules.slice(1) };

/** Configurations by turns, as one factory compiles them: the same text is the same configuration. */
function statesOf(...steps: readonly (readonly [object, Conditions])[]): readonly ForwardingState[] {
  const configurations = new Map<object, ForwardingState['configuration']>();
  return steps.map(([text, conditions]) => {
    const configuration = configurations.get(text) ?? factory.state(text).configuration;
    configurations.set(text, configuration);
    return factory.compile(configuration, conditions);
  });
}

/** What each arrives as, and what crossed. */
function transferred(states: readonly ForwardingState[]): {
  readonly arrived: readonly ForwardingState[];
  readonly messages: readonly StateMessage[];
} {
  const [sender, receiver] = [new StateSender(), new StateReceiver()];
  const messages = states.map((state) => structuredClone(sender.pack(state)));
  return { messages, arrived: messages.map((message) => receiver.unpack(message)) };
}

function assertLinked({ configuration, views, viewOfRule }: ForwardingState): void {
  for (const [index, { pool, probe }] of configuration.rules.entries()) {
    assert.ok(configuration.backendPools.includes(pool));
    const view = views[viewOfRule[index]!]!;
    assert.equal(view.pool, pool);
    assert.equal(view.probe, probe);
    assert.ok(view.backends.every(({ backend }, member) => backend === pool.backends[member]));
  }
}

describe('A forwarding state on its way to another process', () => {
  test('arrives whole, with its links, whatever has crossed before', () => {
    const states = statesOf(
      [FIRST, {}],
      [FIRST, { health: { a1: 'down' } }],
      [FIRST, { health: { a1: 'down' } }],
      [FIRST, { health: { a1: 'down', a2: 'down', a3: 'down' } }],
      [FIRST, { admin: { b2: 'down' } }],
      [SECOND, {}],
      // Taken over: the same configuration again; then a worker goes back to the one before.
      [SECOND, { drained: { b1: 5000 } }],
      [FIRST, { admin: { b2: 'down' } }],
      [FIRST, {}],
    );
    const { arrived } = transferred(states);
    assert.deepEqual(arrived, states);
    arrived.forEach(assertLinked);
  });

  test('crosses as the views that have changed, and their tables only where those have', () => {
    const { messages, arrived } = transferred(
      statesOf(
        [FIRST, {}],
        [FIRST, { health: { a1: 'down' } }],
        [FIRST, { health: { a1: 'down', a2: 'up' }, admin: { b3: 'up' } }],
        [FIRST, { health: { a1: 'down', a2: 'up' }, admin: { b3: 'up' } }],
      ),
    );
    const changes = messages.slice(1).map((message) => {
      assert.ok('change' in message);
      return [...message.change.views].map(([view, { tables }]) => [view, tables !== undefined]);
    });
    const bothViewsOfB = [
      [1, false],
      [2, false],
    ];
    assert.deepEqual(changes, [[[0, true]], bothViewsOfB, []]);
    assert.ok(serialize(messages[2]).length < 2000, 'members of three backends, and no table');
    assert.equal(arrived[1]?.views[1], arrived[0]?.views[1]);
    assert.equal(arrived[3]?.configuration, arrived[0]?.configuration);
  });

  test('cannot be told from a change alone', () => {
    const { messages } = transferred(statesOf([FIRST, {}], [FIRST, {}]));
    assert.throws(() => new StateReceiver().unpack(messages[1]!), TypeError);
  });
});
