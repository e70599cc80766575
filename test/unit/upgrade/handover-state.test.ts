import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { shifted } from '../../../src/upgrade/messages.js';
import { Overrides } from '../../../src/control/overrides.js';
import { initialHealth } from '../../../src/health/thresholds.js';
import { aPool } from '../control/settings.js';

const [one, two] = aPool(2).backends;

describe('handover state', () => {
  test('shifted() has the times of flap damping on another clock, and nothing else changed', () => {
    const health = { ...initialHealth(), recentChangesMs: [10, 20], heldUntilMs: 30 };
    assert.deepEqual(shifted(health, -5), { ...health, recentChangesMs: [5, 15], heldUntilMs: 25 });
    assert.deepEqual(shifted(initialHealth(), 7), initialHealth());
  });

  test('Overrides.restore() has what record() told, through structured clone, and nothing of before', () => {
    const old = new Overrides();
    old.set(one!.id, { adminState: 'down' });
    old.set(one!.id, { weight: 7 });
    old.set(two!.id, { drain: { ending: true, spreadMs: 5 } });
    const fresh = new Overrides();
    fresh.set(two!.id, { weight: 99 });
    fresh.restore(structuredClone(old.record()));
    assert.deepEqual(fresh.of(one!.id), { adminState: 'down', weight: 7 });
    assert.deepEqual(fresh.of(two!.id), { drain: { ending: true, spreadMs: 5 } });
    old.set(one!.id, { weight: 8 });
    assert.equal(fresh.of(one!.id).weight, 7);
  });
});
