import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { placeOfRecord } from '../../../../../src/planes/userspace/udp/flow.js';
import { testState } from '../../../../support/forwarding-state.js';
import { aUdpFlow } from '../../hand-over-fixtures.js';

const state = testState({ backends: ['10.0.0.1', { address: '10.0.0.2', valid: false }, '10.0.0.3'] });
const rule = state.configuration.rules[0]!;
const slot = { rule, index: 0, view: state.views[0] };
const ids = state.views[0]!.backends.map(({ backend }) => backend.id);
const flowOn = (backendId: string | undefined) =>
  aUdpFlow(1, { rule: rule.name, backendId: backendId ?? '' });

describe('placeOfRecord', () => {
  test('finds the backend of the flow in the present state', () => {
    const place = placeOfRecord(flowOn(ids[2]), slot);
    assert.equal(place?.backendId, ids[2]);
    assert.deepEqual([place?.ruleIndex, place?.backendIndex], [0, 2]);
  });

  test('finds none where the backend may keep no flows, or is gone', () => {
    assert.equal(placeOfRecord(flowOn(ids[1]), slot), undefined);
    assert.equal(placeOfRecord(flowOn('nvas/10.9.9.9'), slot), undefined);
  });

  test('finds none where another rule serves there, or datagrams are balanced one by one', () => {
    assert.equal(placeOfRecord({ ...flowOn(ids[0]), rule: 'other' }, slot), undefined);
    assert.equal(placeOfRecord(flowOn(ids[0]), undefined), undefined);
    const perPacket = { ...rule, udp: { ...rule.udp, perPacket: true } };
    assert.equal(placeOfRecord(flowOn(ids[0]), { ...slot, rule: perPacket }), undefined);
  });
});
