import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { policyAction } from '../../../src/flows/judge.js';
import type { Protocol } from '../../../src/model/address.js';
import type { PoolView } from '../../../src/model/forwarding.js';
import {
  FLOW_TRIGGERS,
  type FlowAction,
  type FlowTrigger,
  type Rule,
} from '../../../src/model/configuration.js';
import { AZURE_POLICY, testRule, testState, type RuleParts } from '../../support/forwarding-state.js';

const gone = { address: '10.0.0.1', valid: false };

const NEXT_HOP = { mode: 'next-hop' } as const;

function view(situation: 'one of two down' | 'all of two down' | 'the only one down'): PoolView {
  const rest = {
    'one of two down': ['10.0.0.2'],
    'all of two down': [{ address: '10.0.0.2', valid: false }],
    'the only one down': [],
  }[situation];
  const [made] = testState({ backends: [gone, ...rest], failOpen: true }).views;
  assert.ok(made);
  return made;
}

function ruleThat(action: FlowAction, overrides: RuleParts = {}): Rule {
  const actions = { tcp: action, udp: action };
  return testRule({
    flowPolicy: Object.fromEntries(FLOW_TRIGGERS.map((trigger) => [trigger, actions])) as Rule['flowPolicy'],
    ...overrides,
  });
}

describe('policyAction()', () => {
  // Azure, "Probe down behavior" and "Admin state": field.md 1.3.
  for (const [situation, protocol, trigger, verdict] of [
    ['one of two down', 'tcp', 'probe-down', 'persist'],
    ['one of two down', 'udp', 'probe-down', 'rebalance'],
    ['all of two down', 'tcp', 'probe-down', 'persist'],
    ['all of two down', 'udp', 'probe-down', 'rebalance'],
    ['the only one down', 'udp', 'probe-down', 'rebalance'],
    ['the only one down', 'tcp', 'admin-down', 'persist'],
    ['one of two down', 'tcp', 'admin-down', 'persist'],
    ['one of two down', 'udp', 'admin-down', 'rebalance'],
  ] as const satisfies readonly (readonly [
    Parameters<typeof view>[0],
    Protocol,
    FlowTrigger,
    FlowAction,
  ])[]) {
    test(`policyAction() as Azure: ${protocol}, ${trigger}, ${situation}: ${verdict}`, () => {
      assert.equal(
        policyAction(testRule({ flowPolicy: AZURE_POLICY }), protocol, trigger, view(situation), undefined),
        verdict,
      );
    });
  }

  test('policyAction() resets TCP that cannot be moved', () => {
    for (const trigger of FLOW_TRIGGERS) {
      assert.equal(
        policyAction(ruleThat('rebalance'), 'tcp', trigger, view('one of two down'), undefined),
        'reset',
      );
      assert.equal(
        policyAction(ruleThat('rebalance'), 'udp', trigger, view('one of two down'), undefined),
        'rebalance',
      );
    }
  });

  test('policyAction() moves TCP where backends only forward its packets', () => {
    for (const trigger of FLOW_TRIGGERS) {
      assert.equal(
        policyAction(ruleThat('rebalance'), 'tcp', trigger, view('one of two down'), NEXT_HOP),
        'rebalance',
      );
      assert.equal(
        policyAction(ruleThat('reset'), 'tcp', trigger, view('one of two down'), NEXT_HOP),
        'reset',
      );
    }
    const inNat = policyAction(ruleThat('rebalance'), 'tcp', 'removed', view('one of two down'), {
      mode: 'nat',
    });
    assert.equal(inNat, 'reset');
  });

  test('policyAction() gives what is configured otherwise', () => {
    for (const action of ['persist', 'reset', 'drop'] as const) {
      for (const trigger of FLOW_TRIGGERS) {
        for (const protocol of ['tcp', 'udp'] as const) {
          assert.equal(
            policyAction(ruleThat(action), protocol, trigger, view('all of two down'), undefined),
            action,
          );
        }
      }
    }
  });

  test('policyAction() leaves flows where they are when a rule that fails open has nowhere better', () => {
    const failOpen = { allDown: 'fail-open' } as const;
    const verdict = (
      action: FlowAction,
      protocol: Protocol,
      situation: Parameters<typeof view>[0],
    ): FlowAction =>
      policyAction(ruleThat(action, failOpen), protocol, 'probe-down', view(situation), undefined);
    assert.equal(verdict('rebalance', 'udp', 'all of two down'), 'persist');
    assert.equal(verdict('rebalance', 'udp', 'one of two down'), 'rebalance');
    assert.equal(verdict('persist', 'tcp', 'the only one down'), 'persist');
    assert.equal(
      policyAction(ruleThat('rebalance', failOpen), 'udp', 'admin-down', view('all of two down'), undefined),
      'rebalance',
    );
  });
});
