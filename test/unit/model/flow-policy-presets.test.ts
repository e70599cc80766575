import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FLOW_POLICY_PRESETS, FLOW_TRIGGERS } from '../../../src/model/configuration.js';

describe('flow policy presets', () => {
  /** TCP / UDP, in the order of FLOW_TRIGGERS. */
  const table = {
    azure: ['persist/rebalance', 'persist/rebalance', 'persist/rebalance', 'reset/rebalance', 'reset/reset'],
    'aws-gwlb': ['persist/persist', 'persist/persist', 'persist/persist', 'reset/rebalance', 'reset/reset'],
    gcp: ['persist/rebalance', 'persist/rebalance', 'persist/rebalance', 'reset/rebalance', 'reset/reset'],
    firewall: ['reset/rebalance', 'reset/rebalance', 'reset/rebalance', 'reset/rebalance', 'reset/reset'],
  } as const;

  for (const preset of ['azure', 'aws-gwlb', 'gcp', 'firewall'] as const) {
    it(`${preset} is as its source says`, () => {
      const policy = FLOW_POLICY_PRESETS[preset];
      assert.deepEqual(
        FLOW_TRIGGERS.map((trigger) => `${policy[trigger].tcp}/${policy[trigger].udp}`),
        table[preset],
      );
    });
  }
});
