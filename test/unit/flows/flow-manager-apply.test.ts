import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { FlowAction } from '../../../src/model/configuration.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { portSetOf } from '../../../src/model/ports.js';
import { AZURE_POLICY, type RuleParts } from '../../support/forwarding-state.js';
import { A, B, FlowBench, placementOn, stateOf, type OpenFlow } from './flow-fixtures.js';

const DOWN = { address: '10.0.0.1', valid: false } as const;

/** What is done to a TCP flow that an action meets. */
const DONE = [
  ['persist', []],
  ['reset', ['close reset']],
  ['drop', ['blackhole']],
  // A spliced TCP stream cannot be moved.
  ['rebalance', ['close reset']],
] as const satisfies readonly (readonly [FlowAction, readonly string[]])[];

describe('FlowManager.apply()', () => {
  test('apply() leaves flows of valid backends alone', () => {
    const bench = new FlowBench();
    const { flow, calls } = bench.established('tcp', B);
    bench.manager.apply(stateOf({ backends: [DOWN, '10.0.0.2'] }));
    bench.manager.apply(stateOf({ backends: [DOWN, { address: '10.0.0.2', eligible: false }], digest: 'b' }));
    assert.deepEqual(calls, []);
    assert.equal(flow.placement?.reason, 'hash');
  });

  test('apply() pins TCP and unpins UDP on probe-down, as Azure does', () => {
    const bench = new FlowBench();
    const [tcp, udp] = [bench.established('tcp'), bench.established('udp')];
    bench.manager.apply(stateOf({ backends: [DOWN, '10.0.0.2'] }));
    bench.manager.apply(stateOf({ backends: [DOWN, '10.0.0.2'], revision: 2 }));
    assert.deepEqual([tcp.calls, udp.calls], [[], ['unpin', 'unpin']]);
    assert.equal(tcp.flow.placement?.reason, 'pinned');
  });

  for (const [action, calls] of DONE) {
    test(`apply() does ${action} to TCP where policy says so, once`, () => {
      const flowPolicy = { ...AZURE_POLICY, 'admin-down': { tcp: action, udp: action } };
      const bench = new FlowBench({ rule: { flowPolicy } });
      const { calls: made } = bench.established('tcp');
      const invalid = { ...DOWN, invalidBecause: 'admin-down' } as const;
      const state = stateOf({ backends: [invalid, '10.0.0.2'], rule: { flowPolicy } });
      bench.manager.apply(state);
      bench.manager.apply(state);
      assert.deepEqual(made, calls);
      const ended = bench.totals(A, 'tcp').flowsEnded;
      assert.deepEqual(ended, calls.includes('close reset' as never) ? { 'admin-down': 1 } : {});
    });
  }

  test('apply() ends flows of a removed rule', () => {
    const bench = new FlowBench();
    const { calls } = bench.established('tcp');
    bench.manager.apply(stateOf({ rule: { name: 'another', ports: portSetOf(80) }, digest: 'b' }));
    assert.deepEqual(calls, ['close reset']);
    const { flowsEnded } = bench.totals(A, 'tcp');
    assert.deepEqual(flowsEnded, { 'rule-removed': 1 });
  });

  for (const protocol of ['tcp', 'udp'] as const) {
    test(`apply() has ${protocol} flows of a renamed rule continue under the new name`, () => {
      const bench = new FlowBench();
      const { flow, calls } = bench.established(protocol);
      flow.bytesToBackend = 100;
      const renamed = stateOf({
        rule: { name: 'new', frontend: 'edge' },
        frontend: { name: 'edge' },
        digest: 'b',
      });
      bench.manager.apply(renamed);
      assert.deepEqual(calls, []);
      assert.equal(flow.rule, renamed.configuration.rules[0]);
      flow.bytesToBackend = 130;
      bench.manager.settleAll();
      const totals = (rule: string) => {
        const { flowsOpened, flowsActive, bytesToBackend } = bench.totals(A, protocol, rule);
        return { flowsOpened, flowsActive, bytesToBackend };
      };
      assert.deepEqual(totals('ha-ports'), { flowsOpened: 1, flowsActive: 0, bytesToBackend: 100 });
      assert.deepEqual(totals('new'), { flowsOpened: 0, flowsActive: 1, bytesToBackend: 30 });
      // And back again, as after an apply that was taken back.
      bench.manager.apply(stateOf());
      assert.deepEqual([flow.rule.name, calls], ['ha-ports', []]);
    });
  }

  test('apply() judges a flow of a renamed rule by the rule as it is now', () => {
    const bench = new FlowBench();
    const { calls } = bench.established('tcp');
    const flowPolicy = { ...AZURE_POLICY, 'probe-down': { tcp: 'reset', udp: 'reset' } } as const;
    bench.manager.apply(
      stateOf({ backends: [DOWN, '10.0.0.2'], rule: { name: 'new', flowPolicy }, digest: 'b' }),
    );
    assert.deepEqual(calls, ['close reset']);
  });

  test('apply() ends flows of a protocol that the renamed rule no longer has', () => {
    const bench = new FlowBench();
    const [tcp, udp] = [bench.established('tcp'), bench.established('udp')];
    bench.manager.apply(stateOf({ rule: { name: 'new', protocols: ['udp'] }, digest: 'b' }));
    assert.deepEqual([tcp.calls, udp.calls], [['close reset'], []]);
  });

  test('apply() treats a backend that is gone, or of another pool now, as removed', () => {
    for (const state of [
      stateOf({ backends: ['10.0.0.2'], digest: 'b' }),
      stateOf({
        backends: [{ address: '10.0.0.1', backend: { id: 'other/10.0.0.1' } }],
        rule: { backendPool: 'other' },
        digest: 'b',
      }),
    ]) {
      const bench = new FlowBench();
      const [tcp, udp] = [bench.established('tcp'), bench.established('udp')];
      bench.manager.apply(state);
      assert.deepEqual([tcp.calls, udp.calls], [['close reset'], ['unpin']]);
    }
  });

  test('apply() hands flows their rule as it is now', () => {
    const bench = new FlowBench();
    const { flow } = bench.established('udp');
    const state = stateOf({ rule: { tcpReset: false }, digest: 'b' });
    bench.manager.apply(state);
    assert.equal(flow.rule, state.configuration.rules[0]);
  });

  test('apply() lets a flow be that has no backend yet, or is blackholed', () => {
    const bench = new FlowBench();
    const waiting = bench.open('tcp');
    const { flow, calls } = bench.established('udp');
    bench.manager.blackhole(flow);
    bench.manager.apply(stateOf({ backends: [], digest: 'b' }));
    assert.deepEqual(waiting.calls, []);
    assert.deepEqual(calls, ['blackhole']);
  });
});

describe('FlowManager.apply() after a drain', () => {
  const drained = (endSpreadMs?: number, rule: RuleParts = {}): ForwardingState =>
    stateOf({
      backends: [
        {
          address: '10.0.0.1',
          valid: false,
          invalidBecause: 'drain-deadline',
          endSpreadMs,
        },
        '10.0.0.2',
      ],
      rule,
    });

  const policy = (action: FlowAction): RuleParts => ({
    flowPolicy: { ...AZURE_POLICY, 'drain-deadline': { tcp: action, udp: action } },
  });

  const flows = (bench: FlowBench, count: number): readonly OpenFlow[] =>
    Array.from({ length: count }, () => bench.established('tcp'));

  const endedOf = (bench: FlowBench): number => bench.totals(A, 'tcp').flowsEnded['drain-deadline'] ?? 0;

  for (const [action, calls] of DONE) {
    test(`the policy ${action} is met once, with no spread at once`, () => {
      const bench = new FlowBench({ rule: policy(action) });
      const { flow, calls: made } = bench.established('tcp');
      bench.manager.apply(drained(undefined, policy(action)));
      bench.manager.apply(drained(undefined, policy(action)));
      assert.deepEqual(made, calls);
      assert.equal(flow.placement?.reason, action === 'persist' ? 'pinned' : 'hash');
      bench.queue.flush();
      assert.equal(bench.clock.pendingTimers, 0);
    });
  }

  test('UDP that is to move is asked to once', () => {
    const bench = new FlowBench({ rule: policy('rebalance') });
    const { calls } = bench.established('udp');
    bench.manager.apply(drained(500, policy('rebalance')));
    assert.deepEqual(calls, []);
    bench.clock.advance(500);
    bench.manager.apply(drained(500, policy('rebalance')));
    bench.clock.advance(500);
    assert.deepEqual(calls, ['unpin']);
  });

  test('a drain that is cancelled, or a backend that is down or gone by then, ends the schedule', () => {
    for (const [state, expected] of [
      [stateOf(), 0],
      // Persists on a dead backend under this policy.
      [stateOf({ backends: [DOWN, '10.0.0.2'] }), 0],
      [stateOf({ backends: ['10.0.0.2'], digest: 'b' }), 0],
    ] as const) {
      const bench = new FlowBench();
      const all = flows(bench, 10);
      bench.manager.apply(drained(1000));
      bench.clock.advance(100);
      const before = endedOf(bench);
      bench.manager.apply(state);
      bench.queue.flush();
      assert.equal(bench.clock.pendingTimers, 0);
      bench.clock.advance(5000);
      assert.equal(endedOf(bench) - before, expected);
      // Removed: TCP is reset at once by this policy.
      const removed = state.configuration.digest === 'b' ? 10 : before;
      assert.equal(all.filter(({ calls }) => calls.length > 0).length, removed);
    }
  });

  test('a flow that has finished, or is on another backend when its turn comes, is left alone', () => {
    const bench = new FlowBench();
    const [finished, moved] = [bench.established('tcp'), bench.established('tcp')];
    bench.manager.apply(drained(1000));
    bench.manager.end(finished.flow, 'closed', 'gone');
    bench.manager.place(moved.flow, placementOn('nvas/10.0.0.2'));
    bench.clock.advance(2000);
    assert.deepEqual([finished.calls, moved.calls], [['close gone'], []]);
    assert.equal(endedOf(bench), 0);
  });

  test('stop() ends no flow any more', () => {
    const bench = new FlowBench();
    const [one] = flows(bench, 1);
    bench.manager.apply(drained(1000));
    bench.manager.stop();
    bench.clock.advance(2000);
    assert.deepEqual(one?.calls, []);
  });
});
