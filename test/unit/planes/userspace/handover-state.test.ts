import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleSlots } from '../../../../src/flows/flow.js';
import { ipAddress, type Protocol } from '../../../../src/model/address.js';
import { HandoverState } from '../../../../src/planes/userspace/handover-state.js';
import type { ListenerBinding } from '../../../../src/planes/userspace/listen-plan.js';
import { testState } from '../../../support/forwarding-state.js';
import { aUdpFlow, FakeSocket } from '../hand-over-fixtures.js';

const HOST = '198.51.100.1';

function at(protocol: Protocol, address: string, port: number): ListenerBinding {
  const slot = ruleSlots(testState({ backends: [] }).configuration)[0]!;
  return { protocol, address: ipAddress(address), port, slot };
}

describe('HandoverState', () => {
  test('take() gives each socket once, by protocol, address and port', () => {
    const handover = new HandoverState();
    const [tcp, udp] = [new FakeSocket('tcp', 53), new FakeSocket('udp', 53)];
    handover.addSockets([tcp, udp]);
    assert.equal(handover.take(at('tcp', HOST, 54)).handle, undefined);
    assert.equal(handover.take(at('tcp', '198.51.100.2', 53)).handle, undefined);
    assert.equal(handover.take(at('udp', HOST, 53)).handle, udp.handle);
    assert.equal(handover.take(at('udp', HOST, 53)).handle, undefined);
    assert.equal(handover.take(at('tcp', HOST, 53)).handle, tcp.handle);
    handover.discard();
    assert.deepEqual([tcp.released, udp.released], [0, 0], 'what was taken is not closed');
  });

  test('discard() closes what no one took, and forgets the flows', () => {
    const handover = new HandoverState();
    const socket = new FakeSocket('tcp', 80);
    handover.addSockets([socket]);
    handover.setFlows([aUdpFlow(40_000)]);
    handover.discard();
    handover.discard();
    assert.equal(socket.released, 1);
    assert.equal(handover.take(at('tcp', HOST, 80)).handle, undefined);
    assert.deepEqual(handover.take(at('udp', HOST, 53)).flows, []);
  });

  test('take() gives the flows that came in there', () => {
    const handover = new HandoverState();
    const [one, two] = [aUdpFlow(1), aUdpFlow(2)];
    handover.setFlows([one, two]);
    assert.deepEqual(handover.take(at('udp', HOST, 53)).flows, [one, two]);
    assert.deepEqual(handover.take(at('udp', HOST, 54)).flows, []);
  });
});
