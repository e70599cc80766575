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

const DOWN = { address: '10.0.0.1', valid: false };
const SITUATIONS = {
  'one of two down': [DOWN, '10.0.0.2'],
  'all of two down': [DOWN, { address: '10.0.0.2', valid: false }],
  'the only one down': [DOWN],
} as const;
type Situation = keyof typeof SITUATIONS;

function view(situation: Situation): PoolView {
  return testState({ backends: SITUATIONS[situation], failOpen: true }).views[0] ?? assert.fail();
}

function ruleThat(action: FlowAction, overrides: RuleParts = {}): Rule {
  const actions = { tcp: action, udp: action };
  return testRule({
    flowPolicy: Object.fromEntries(FLOW_TRIGGERS.map((trigger) => [trigger, actions])) as Rule['flowPolicy'],
    ...overrides,
  });
}

type Kernel = Parameters<typeof policyAction>[4];

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
  ] as const) {
    test(`policyAction() as Azure: ${protocol}, ${trigger}, ${situation}: ${verdict}`, () => {
      const rule = testRule({ flowPolicy: AZURE_POLICY });
      assert.equal(policyAction(rule, protocol, trigger, view(situation), undefined), verdict);
    });
  }

  const nextHop = { mode: 'next-hop' } as const;
  for (const [what, action, protocol, kernel, verdict] of [
    ['resets TCP that cannot be moved', 'rebalance', 'tcp', undefined, 'reset'],
    ['moves UDP', 'rebalance', 'udp', undefined, 'rebalance'],
    ['moves TCP where backends only forward its packets', 'rebalance', 'tcp', nextHop, 'rebalance'],
    ['resets that TCP where it is told to', 'reset', 'tcp', nextHop, 'reset'],
    ['resets TCP in nat', 'rebalance', 'tcp', { mode: 'nat' }, 'reset'],
    ...(['persist', 'reset', 'drop'] as const).flatMap((same) =>
      (['tcp', 'udp'] as const).map((each) => [`gives ${each}`, same, each, undefined, same] as const),
    ),
  ] as const satisfies readonly (readonly [string, FlowAction, Protocol, Kernel, FlowAction])[]) {
    test(`policyAction() ${what}: ${action} is ${verdict}, whatever the trigger`, () => {
      for (const situation of Object.keys(SITUATIONS) as Situation[]) {
        for (const trigger of FLOW_TRIGGERS) {
          const given = policyAction(ruleThat(action), protocol, trigger, view(situation), kernel);
          assert.equal(given, verdict, `${trigger}, ${situation}`);
        }
      }
    });
  }

  for (const [action, protocol, trigger, situation, verdict] of [
    ['rebalance', 'udp', 'probe-down', 'all of two down', 'persist'],
    ['rebalance', 'udp', 'probe-down', 'one of two down', 'rebalance'],
    ['persist', 'tcp', 'probe-down', 'the only one down', 'persist'],
    ['rebalance', 'udp', 'admin-down', 'all of two down', 'rebalance'],
  ] as const satisfies readonly (readonly [FlowAction, Protocol, FlowTrigger, Situation, FlowAction])[]) {
    test(`policyAction() of a rule that fails open: ${action}, ${trigger}, ${situation}: ${verdict}`, () => {
      const rule = ruleThat(action, { allDown: 'fail-open' });
      assert.equal(policyAction(rule, protocol, trigger, view(situation), undefined), verdict);
    });
  }
});
