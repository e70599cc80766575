import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventQueue } from '../../../src/flows/event-queue.js';
import { FlowManager } from '../../../src/flows/flow-manager.js';
import { Flow } from '../../../src/flows/flow.js';
import type { Protocol } from '../../../src/model/address.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { portSetOf } from '../../../src/model/ports.js';
import type { FlowAction } from '../../../src/model/configuration.js';
import { FakeClock } from '../../support/fake-clock.js';
import {
  AZURE_POLICY,
  testRule,
  testState,
  type TestStateParts,
  type RuleParts,
} from '../../support/forwarding-state.js';
import { aTuple, placementOn, RecordingTransport, slotOf } from './flow-fixtures.js';

const ADDRESSES = ['10.0.0.1', '10.0.0.2'] as const;
const DOWN = { address: '10.0.0.1', valid: false } as const;

class Bench {
  readonly clock = new FakeClock();
  readonly manager: FlowManager;

  constructor(parts: Partial<TestStateParts> = {}) {
    const { clock } = this;
    this.manager = new FlowManager(
      { clock, events: new EventQueue(clock) },
      { flowEvents: false, worker: 0, workers: 1 },
      testState({ backends: ADDRESSES, ...parts }),
    );
  }

  flow(protocol: Protocol, address: string): { readonly flow: Flow; readonly calls: readonly string[] } {
    const transport = new RecordingTransport();
    const [slot = slotOf(testRule())] = this.manager.slotsFor(this.manager.state.configuration);
    const flow = this.manager.open(aTuple(protocol), slot, transport);
    assert.ok(flow instanceof Flow);
    this.manager.place(flow, placementOn(`nvas/${address}`));
    this.manager.establish(flow);
    return { flow, calls: transport.calls };
  }

  apply(state: ForwardingState): void {
    this.manager.apply(state);
  }
}

describe('FlowManager.apply()', () => {
  test('apply() leaves flows of valid backends alone', () => {
    const bench = new Bench();
    const { flow, calls } = bench.flow('tcp', '10.0.0.2');
    bench.apply(testState({ backends: [DOWN, '10.0.0.2'] }));
    bench.apply(testState({ backends: [DOWN, { address: '10.0.0.2', eligible: false }], digest: 'b' }));
    assert.deepEqual(calls, []);
    assert.equal(flow.placement?.reason, 'hash');
  });

  test('apply() pins TCP and unpins UDP on probe-down, as Azure does', () => {
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
    test(`apply() does ${action} to TCP where policy says so, once`, () => {
      const flowPolicy = { ...AZURE_POLICY, 'admin-down': { tcp: action, udp: action } };
      const bench = new Bench({ rule: { flowPolicy } });
      const { calls: made } = bench.flow('tcp', '10.0.0.1');
      const invalid = { ...DOWN, invalidBecause: 'admin-down' } as const;
      const state = testState({ backends: [invalid, '10.0.0.2'], rule: { flowPolicy } });
      bench.apply(state);
      bench.apply(state);
      assert.deepEqual(made, calls);
      const ended = bench.manager.traffic.of('ha-ports', 'nvas/10.0.0.1', 'tcp').flowsEnded;
      assert.deepEqual(ended, calls.includes('close reset' as never) ? { 'admin-down': 1 } : {});
    });
  }

  test('apply() ends flows of a removed rule', () => {
    const bench = new Bench();
    const { calls } = bench.flow('tcp', '10.0.0.1');
    bench.apply(
      testState({ backends: ADDRESSES, rule: { name: 'another', ports: portSetOf(80) }, digest: 'b' }),
    );
    assert.deepEqual(calls, ['close reset']);
    const { flowsEnded } = bench.manager.traffic.of('ha-ports', 'nvas/10.0.0.1', 'tcp');
    assert.deepEqual(flowsEnded, { 'rule-removed': 1 });
  });

  for (const protocol of ['tcp', 'udp'] as const) {
    test(`apply() has ${protocol} flows of a renamed rule continue under the new name`, () => {
      const bench = new Bench();
      const { flow, calls } = bench.flow(protocol, '10.0.0.1');
      flow.bytesToBackend = 100;
      const renamed = testState({
        backends: ADDRESSES,
        rule: { name: 'new', frontend: 'edge' },
        frontend: { name: 'edge' },
        digest: 'b',
      });
      bench.apply(renamed);
      assert.deepEqual(calls, []);
      assert.equal(flow.rule, renamed.configuration.rules[0]);
      flow.bytesToBackend = 130;
      bench.manager.settleAll();
      const totals = (rule: string) => {
        const { flowsOpened, flowsActive, bytesToBackend } = bench.manager.traffic.of(
          rule,
          'nvas/10.0.0.1',
          protocol,
        );
        return { flowsOpened, flowsActive, bytesToBackend };
      };
      assert.deepEqual(totals('ha-ports'), { flowsOpened: 1, flowsActive: 0, bytesToBackend: 100 });
      assert.deepEqual(totals('new'), { flowsOpened: 0, flowsActive: 1, bytesToBackend: 30 });
      // And back again, as after an apply that was taken back.
      bench.apply(testState({ backends: ADDRESSES }));
      assert.deepEqual([flow.rule.name, calls], ['ha-ports', []]);
    });
  }

  test('apply() judges a flow of a renamed rule by the rule as it is now', () => {
    const bench = new Bench();
    const { calls } = bench.flow('tcp', '10.0.0.1');
    const flowPolicy = { ...AZURE_POLICY, 'probe-down': { tcp: 'reset', udp: 'reset' } } as const;
    bench.apply(testState({ backends: [DOWN, '10.0.0.2'], rule: { name: 'new', flowPolicy }, digest: 'b' }));
    assert.deepEqual(calls, ['close reset']);
  });

  test('apply() ends flows of a protocol that the renamed rule no longer has', () => {
    const bench = new Bench();
    const [tcp, udp] = [bench.flow('tcp', '10.0.0.1'), bench.flow('udp', '10.0.0.1')];
    bench.apply(testState({ backends: ADDRESSES, rule: { name: 'new', protocols: ['udp'] }, digest: 'b' }));
    assert.deepEqual([tcp.calls, udp.calls], [['close reset'], []]);
  });

  test('apply() treats a backend that is gone, or of another pool now, as removed', () => {
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

  test('apply() hands flows their rule as it is now', () => {
    const bench = new Bench();
    const { flow } = bench.flow('udp', '10.0.0.1');
    const state = testState({ backends: ADDRESSES, rule: { tcpReset: false }, digest: 'b' });
    bench.apply(state);
    assert.equal(flow.rule, state.configuration.rules[0]);
  });

  test('apply() lets a flow be that has no backend yet, or is blackholed', () => {
    const bench = new Bench();
    const transport = new RecordingTransport();
    bench.manager.open(aTuple('tcp'), slotOf(testRule()), transport);
    const { flow, calls } = bench.flow('udp', '10.0.0.1');
    bench.manager.blackhole(flow);
    bench.apply(testState({ backends: [], digest: 'b' }));
    assert.deepEqual(transport.calls, []);
    assert.deepEqual(calls, ['blackhole']);
  });
});

describe('FlowManager.apply() after a drain', () => {
  const drained = (endSpreadMs?: number, rule: RuleParts = {}): ForwardingState =>
    testState({
      backends: [
        {
          address: '10.0.0.1',
          valid: false,
          invalidBecause: 'drain-deadline',
          ...(endSpreadMs === undefined ? {} : { endSpreadMs }),
        },
        '10.0.0.2',
      ],
      rule,
    });

  const policy = (action: FlowAction): RuleParts => ({
    flowPolicy: { ...AZURE_POLICY, 'drain-deadline': { tcp: action, udp: action } },
  });

  const flows = (bench: Bench, count: number): readonly ReturnType<Bench['flow']>[] =>
    Array.from({ length: count }, () => bench.flow('tcp', '10.0.0.1'));

  const endedOf = (bench: Bench): number =>
    bench.manager.traffic.of('ha-ports', 'nvas/10.0.0.1', 'tcp').flowsEnded['drain-deadline'] ?? 0;

  test('flows of the backend end over the time asked for, whatever is applied meanwhile, and no others', () => {
    const bench = new Bench();
    flows(bench, 40);
    const other = bench.flow('tcp', '10.0.0.2');
    bench.apply(drained(2000));
    assert.equal(endedOf(bench), 0);
    for (let elapsedMs = 100; elapsedMs <= 2000; elapsedMs += 100) {
      bench.clock.advance(100);
      bench.apply(drained(2000));
      assert.ok(Math.abs(endedOf(bench) - elapsedMs / 50) <= 3, `${endedOf(bench)} at ${elapsedMs} ms`);
    }
    assert.equal(endedOf(bench), 40);
    assert.deepEqual(other.calls, []);
    assert.equal(bench.manager.table.size, 1);
  });

  for (const [action, calls] of [
    ['reset', ['close reset']],
    ['drop', ['blackhole']],
    ['rebalance', ['close reset']],
    ['persist', []],
  ] as const satisfies readonly (readonly [FlowAction, readonly string[]])[]) {
    test(`the policy ${action} is met once, with no spread at once`, () => {
      const bench = new Bench({ rule: policy(action) });
      const { flow, calls: made } = bench.flow('tcp', '10.0.0.1');
      bench.apply(drained(undefined, policy(action)));
      bench.apply(drained(undefined, policy(action)));
      assert.deepEqual(made, calls);
      assert.equal(flow.placement?.reason, action === 'persist' ? 'pinned' : 'hash');
      assert.equal(bench.clock.pendingTimers, 0);
    });
  }

  test('UDP that is to move is asked to once', () => {
    const bench = new Bench({ rule: policy('rebalance') });
    const { calls } = bench.flow('udp', '10.0.0.1');
    bench.apply(drained(500, policy('rebalance')));
    assert.deepEqual(calls, []);
    bench.clock.advance(500);
    bench.apply(drained(500, policy('rebalance')));
    bench.clock.advance(500);
    assert.deepEqual(calls, ['unpin']);
  });

  test('a drain that is cancelled, or a backend that is down or gone by then, ends the schedule', () => {
    for (const [state, expected] of [
      [testState({ backends: ADDRESSES }), 0],
      // Persists on a dead backend under this policy.
      [testState({ backends: [DOWN, '10.0.0.2'] }), 0],
      [testState({ backends: ['10.0.0.2'], digest: 'b' }), 0],
    ] as const) {
      const bench = new Bench();
      const all = flows(bench, 10);
      bench.apply(drained(1000));
      bench.clock.advance(100);
      const before = endedOf(bench);
      bench.apply(state);
      assert.equal(bench.clock.pendingTimers, 0);
      bench.clock.advance(5000);
      assert.equal(endedOf(bench) - before, expected);
      // Removed: TCP is reset at once by this policy.
      const removed = state.configuration.digest === 'b' ? 10 : before;
      assert.equal(all.filter(({ calls }) => calls.length > 0).length, removed);
    }
  });

  test('a flow that has finished, or is on another backend when its turn comes, is left alone', () => {
    const bench = new Bench();
    const [finished, moved] = [bench.flow('tcp', '10.0.0.1'), bench.flow('tcp', '10.0.0.1')];
    bench.apply(drained(1000));
    bench.manager.end(finished.flow, 'closed', 'gone');
    bench.manager.move(moved.flow, placementOn('nvas/10.0.0.2'));
    bench.clock.advance(2000);
    assert.deepEqual([finished.calls, moved.calls], [['close gone'], []]);
    assert.equal(endedOf(bench), 0);
  });

  test('stop() ends no flow any more', () => {
    const bench = new Bench();
    const [one] = flows(bench, 1);
    bench.apply(drained(1000));
    bench.manager.stop();
    bench.clock.advance(2000);
    assert.deepEqual(one?.calls, []);
  });
});
