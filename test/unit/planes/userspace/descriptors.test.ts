import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  descriptorsForFlows,
  flowShortage,
  flowShortageAdvice,
} from '../../../../src/planes/userspace/descriptors.js';
import { testState } from '../../../support/forwarding-state.js';

const limits = { tcpFlows: 1000, udpFlows: 400, embryonicFlows: 100, embryonicTimeoutMs: 1000 };

function shares(limit: number, workers: number) {
  const { configuration } = testState({ backends: ['10.0.0.1', '10.0.0.2'] });
  return { limit, configuration: { ...configuration, workers, limits } };
}

describe('descriptorsForFlows()', () => {
  test('keeps a reserve: for connections to be refused, and in a process that controls for what that opens', () => {
    assert.equal(descriptorsForFlows(shares(10_000, 2), 1000), 10_000 - 64 - 1000);
    const alone = descriptorsForFlows(shares(10_000, 0), 1000);
    assert.ok(alone <= 10_000 - 64 - 144 - 1000 && alone > 8700, `${alone}`);
  });

  test('leaves half of a small limit to flows and listeners, and never less than nothing', () => {
    assert.equal(descriptorsForFlows(shares(100, 1), 10), 40);
    assert.equal(descriptorsForFlows(shares(100, 1), 90), 0);
  });
});

describe('flowShortage()', () => {
  test('says how many flows there can be in all workers, and what would do', () => {
    // Wanted: (2 * 1100 + 400) / 2 in each of two processes.
    assert.equal(flowShortage(shares(1300 + 64 + 10, 2), 10), undefined);
    const shortage = flowShortage(shares(1000, 2), 36);
    assert.deepEqual(shortage, { limit: 1000, tcpFlows: 900, udpFlows: 1350, needed: 36 + 64 + 1300 });
    assert.match(flowShortageAdvice(shortage), /900 TCP flows.*LimitNOFILE=1400/);
  });
});
