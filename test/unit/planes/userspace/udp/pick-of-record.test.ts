import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { pickOfRecord } from '../../../../../src/planes/userspace/udp/flow.js';
import { testState } from '../../../../support/forwarding-state.js';
import { aUdpFlow } from '../../../dataplane/hand-over-fixtures.js';

const state = testState({ backends: ['10.0.0.1', { address: '10.0.0.2', valid: false }, '10.0.0.3'] });
const rule = state.configuration.rules[0]!;
const binding = { rule, ruleIndex: 0 };
const ids = state.views[0]!.backends.map(({ backend }) => backend.id);
const flowOn = (backendId: string | undefined) =>
  aUdpFlow(1, { rule: rule.name, backendId: backendId ?? '' });

describe('pickOfRecord', () => {
  test('finds the backend of the flow in the present state', () => {
    const pick = pickOfRecord(flowOn(ids[2]), state, binding);
    assert.equal(pick?.backendId, ids[2]);
    assert.deepEqual([pick?.ruleIndex, pick?.viewIndex, pick?.backendIndex], [0, 0, 2]);
  });

  test('finds none where the backend may keep no flows, or is gone', () => {
    assert.equal(pickOfRecord(flowOn(ids[1]), state, binding), undefined);
    assert.equal(pickOfRecord(flowOn('nvas/10.9.9.9'), state, binding), undefined);
  });

  test('finds none where another rule serves there, or datagrams are balanced one by one', () => {
    assert.equal(pickOfRecord({ ...flowOn(ids[0]), rule: 'other' }, state, binding), undefined);
    const perPacket = { ...rule, udp: { ...rule.udp, perPacket: true } };
    assert.equal(pickOfRecord(flowOn(ids[0]), state, { rule: perPacket, ruleIndex: 0 }), undefined);
  });
});
