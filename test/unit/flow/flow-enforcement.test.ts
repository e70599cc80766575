import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventQueue } from '../../../src/dataplane/userspace/event-queue.js';
import { FlowEnforcement } from '../../../src/dataplane/userspace/flow-enforcement.js';
import { FlowKeeper } from '../../../src/dataplane/userspace/flow-keeper.js';
import { Flow } from '../../../src/flow/flow.js';
import type { Protocol } from '../../../src/model/five-tuple.js';
import type { ForwardingState } from '../../../src/model/forwarding-state.js';
import { portSetOf } from '../../../src/model/port-set.js';
import type { FlowAction } from '../../../src/model/rule.js';
import { FakeClock } from '../../support/fake-clock.js';
import { AZURE_POLICY, testRule, testState, type TestStateParts } from '../../support/forwarding-state.js';
import { aTuple, placementOn, RecordingTransport } from './flow-fixtures.js';

const ADDRESSES = ['10.0.0.1', '10.0.0.2'] as const;
const DOWN = { address: '10.0.0.1', valid: false } as const;

class Bench {
  readonly clock = new FakeClock();
  readonly keeper: FlowKeeper;
  readonly enforcement: FlowEnforcement;

  constructor(parts: Partial<TestStateParts> = {}) {
    const { clock } = this;
    this.keeper = new FlowKeeper(
      { clock, events: new EventQueue(clock) },
      { flowEvents: false, worker: 0, workers: 1 },
      testState({ backends: ADDRESSES, ...parts }),
    );
    this.enforcement = new FlowEnforcement(this.keeper);
  }

  flow(protocol: Protocol, address: string): { readonly flow: Flow; readonly calls: readonly string[] } {
    const transport = new RecordingTransport();
    const [rule = testRule()] = this.keeper.state.configuration.rules;
    const flow = this.keeper.open(aTuple(protocol), rule, transport);
    assert.ok(flow instanceof Flow);
    this.keeper.place(flow, placementOn(`nvas/${address}`));
    this.keeper.establish(flow);
    return { flow, calls: transport.calls };
  }

  apply(state: ForwardingState): void {
    const { configuration } = this.keeper.state;
    this.keeper.adopt(state);
    this.enforcement.enforce(configuration);
  }
}

describe('FlowEnforcement', () => {
  test('FlowEnforcement leaves flows of valid backends alone', () => {
    const bench = new Bench();
    const { flow, calls } = bench.flow('tcp', '10.0.0.2');
    bench.apply(testState({ backends: [DOWN, '10.0.0.2'] }));
    bench.apply(testState({ backends: [DOWN, { address: '10.0.0.2', eligible: false }], digest: 'b' }));
    assert.deepEqual(calls, []);
    assert.equal(flow.placement?.reason, 'hash');
  });

  test('FlowEnforcement pins TCP and unpins UDP on probe-down, as Azure does', () => {
    const bench = new Bench();
    const [tcp, udp] = [bench.flow('tcp', '10.0.0.1'), bench.flow('udp', '10.0.0.1')];
    bench.apply(testState({ backends: [DOWN, '10.0.0.2'] }));
    bench.apply(testState({ backends: [DOWN, '10.0.0.2'], revision: 2 }));
    assert.deepEqual([tcp.calls, udp.calls], [[], ['unpin', 'unpin']]);
    assert.equal(tcp.flow.placement?.reason, 'pinned');
  });

  for (const [action, calls] of [
    ['persist', []],
    ['reset', ['close reset']],
    ['drop', ['blackhole']],
    ['rebalance', ['close reset']],
  ] as const satisfies readonly (readonly [FlowAction, readonly string[]])[]) {
    test(`FlowEnforcement does ${action} to TCP where policy says so, once`, () => {
      const flowPolicy = { ...AZURE_POLICY, 'admin-down': { tcp: action, udp: action } };
      const bench = new Bench({ rule: { flowPolicy } });
      const { calls: made } = bench.flow('tcp', '10.0.0.1');
      const invalid = { ...DOWN, invalidBecause: 'admin-down' } as const;
      const state = testState({ backends: [invalid, '10.0.0.2'], rule: { flowPolicy } });
      bench.apply(state);
      bench.apply(state);
      assert.deepEqual(made, calls);
      const ended = bench.keeper.traffic.of('ha-ports', 'nvas/10.0.0.1', 'tcp').flowsEnded;
      assert.deepEqual(ended, calls.includes('close reset' as never) ? { 'admin-down': 1 } : {});
    });
  }

  test('FlowEnforcement ends flows of a removed rule', () => {
    const bench = new Bench();
    const { calls } = bench.flow('tcp', '10.0.0.1');
    bench.apply(
      testState({ backends: ADDRESSES, rule: { name: 'another', ports: portSetOf(80) }, digest: 'b' }),
    );
    assert.deepEqual(calls, ['close reset']);
    const { flowsEnded } = bench.keeper.traffic.of('ha-ports', 'nvas/10.0.0.1', 'tcp');
    assert.deepEqual(flowsEnded, { 'rule-removed': 1 });
  });

  test('FlowEnforcement treats a backend that is gone, or of another pool now, as removed', () => {
    for (const state of [
      testState({ backends: ['10.0.0.2'], digest: 'b' }),
      testState({
        backends: [{ address: '10.0.0.1', backend: { id: 'other/10.0.0.1' } }],
        rule: { backendPool: 'other' },
        digest: 'b',
      }),
    ]) {
      const bench = new Bench();
      const [tcp, udp] = [bench.flow('tcp', '10.0.0.1'), bench.flow('udp', '10.0.0.1')];
      bench.apply(state);
      assert.deepEqual([tcp.calls, udp.calls], [['close reset'], ['unpin']]);
    }
  });

  test('FlowEnforcement hands flows their rule as it is now', () => {
    const bench = new Bench();
    const { flow } = bench.flow('udp', '10.0.0.1');
    const state = testState({ backends: ADDRESSES, rule: { tcpReset: false }, digest: 'b' });
    bench.apply(state);
    assert.equal(flow.rule, state.configuration.rules[0]);
  });

  test('FlowEnforcement lets a flow be that has no backend yet, or is blackholed', () => {
    const bench = new Bench();
    const transport = new RecordingTransport();
    bench.keeper.open(aTuple('tcp'), testRule(), transport);
    const { flow, calls } = bench.flow('udp', '10.0.0.1');
    bench.keeper.blackhole(flow);
    bench.apply(testState({ backends: [], digest: 'b' }));
    assert.deepEqual(transport.calls, []);
    assert.deepEqual(calls, ['blackhole']);
  });
});
