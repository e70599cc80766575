import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { shifted } from '../../../src/upgrade/messages.js';
import { OperatorState } from '../../../src/control/overrides.js';
import { initialHealth } from '../../../src/health/tracker.js';
import { aPool } from './settings.js';

const [one, two] = aPool(2).backends;

describe('legacy', () => {
  test('shifted() has the times of flap damping on another clock, and nothing else changed', () => {
    const health = { ...initialHealth(), recentChangesMs: [10, 20], heldUntilMs: 30 };
    assert.deepEqual(shifted(health, -5), { ...health, recentChangesMs: [5, 15], heldUntilMs: 25 });
    assert.deepEqual(shifted(initialHealth(), 7), initialHealth());
  });

  test('OperatorState.restore() has what record() told, through structured clone, and nothing of before', () => {
    const old = new OperatorState();
    old.setAdminState(one!.id, 'down');
    old.setWeight(one!.id, 7);
    old.setDrainStage(two!.id, { ending: true, spreadMs: 5 });
    const fresh = new OperatorState();
    fresh.setWeight(two!.id, 99);
    fresh.restore(structuredClone(old.record()));
    assert.equal(fresh.adminState(one!), 'down');
    assert.equal(fresh.weight(one!), 7);
    assert.equal(fresh.weight(two!), undefined);
    assert.deepEqual(fresh.drainStage(two!.id), { ending: true, spreadMs: 5 });
    old.setWeight(one!.id, 8);
    assert.equal(fresh.weight(one!), 7);
  });
});
