import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { OperatorState } from '../../../src/control/overrides.js';
import { aPool } from './settings.js';

const [one, two] = aPool(2).backends;

describe('OperatorState', () => {
  test('what nobody set is as configured', () => {
    const state = new OperatorState();
    assert.equal(state.adminState({ ...one!, adminState: 'down' }), 'down');
    assert.equal(state.weight(one!), undefined);
    assert.equal(state.drainStage(one!.id), undefined);
    assert.deepEqual(state.ids(), []);
  });

  test('admin state and weight are set and taken back apart from each other', () => {
    const state = new OperatorState();
    state.setAdminState(one!.id, 'up');
    state.setWeight(one!.id, 7);
    assert.equal(state.adminState(one!), 'up');
    assert.equal(state.weight(one!), 7);
    state.setAdminState(one!.id, 'configured');
    assert.equal(state.adminState(one!), 'none');
    assert.equal(state.weight(one!), 7);
    state.setWeight(one!.id, 'configured');
    assert.deepEqual(state.ids(), []);
  });

  test('retain() forgets backends that are gone, and says whose settings were lost', () => {
    const state = new OperatorState();
    state.setAdminState(one!.id, 'none');
    state.setDrainStage(two!.id, { ending: false });
    assert.equal(state.adminStateCount, 1);
    assert.deepEqual(state.retain(new Set([one!.id])), [two!.id]);
    assert.deepEqual(state.ids(), [one!.id]);
    assert.equal(state.drainStage(two!.id), undefined);
  });
});
