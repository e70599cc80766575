import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { handedOn } from '../../../../src/planes/workers/process.js';
import type { CapturePlan } from '../../../../src/model/capture.js';
import { parseCidr } from '../../../../src/model/address.js';

const PLAN: CapturePlan = {
  tcp: 'tproxy',
  udp: 'redirect',
  port: 61_000,
  block: parseCidr('240.0.0.0/4')!,
};

/** What a worker has as descriptor 4, 5 and so on comes behind its channel, which is 3. */
void describe('handedOn()', () => {
  test('numbers descriptors as the worker has them', () => {
    const { plan, descriptors } = handedOn({ ...PLAN, descriptors: { 4: 7, 6: 3 } });
    assert.deepEqual(descriptors, [7, 3]);
    assert.deepEqual(plan, { ...PLAN, descriptors: { 4: 4, 6: 5 } });
  });

  test('hands on a socket of both families once', () => {
    const { plan, descriptors } = handedOn({ ...PLAN, descriptors: { 4: 3, 6: 3 } });
    assert.deepEqual(descriptors, [3]);
    assert.deepEqual(plan.descriptors, { 4: 4, 6: 4 });
  });

  test('hands on only the plan where no sockets were handed in', () => {
    assert.deepEqual(handedOn(PLAN), { plan: PLAN, descriptors: [] });
  });
});
