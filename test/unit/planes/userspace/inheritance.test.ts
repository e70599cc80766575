import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Inheritance } from '../../../../src/planes/userspace/node-handles.js';
import { aUdpFlow, FakeSocket } from '../../dataplane/hand-over-fixtures.js';

const HOST = '198.51.100.1';

describe('Inheritance', () => {
  test('takeSocket() gives each socket once, by protocol, address and port', () => {
    const inheritance = new Inheritance();
    const [tcp, udp] = [new FakeSocket('tcp', 53), new FakeSocket('udp', 53)];
    inheritance.addSockets([tcp, udp]);
    assert.equal(inheritance.takeSocket('tcp', HOST, 54), undefined);
    assert.equal(inheritance.takeSocket('tcp', '198.51.100.2', 53), undefined);
    assert.equal(inheritance.takeSocket('udp', HOST, 53), udp.handle);
    assert.equal(inheritance.takeSocket('udp', HOST, 53), undefined);
    assert.equal(inheritance.takeSocket('tcp', HOST, 53), tcp.handle);
    inheritance.discard();
    assert.deepEqual([tcp.released, udp.released], [0, 0], 'what was taken is not closed');
  });

  test('discard() closes what nobody took, and forgets the flows', () => {
    const inheritance = new Inheritance();
    const socket = new FakeSocket('tcp', 80);
    inheritance.addSockets([socket]);
    inheritance.setFlows([aUdpFlow(40_000)]);
    inheritance.discard();
    inheritance.discard();
    assert.equal(socket.released, 1);
    assert.equal(inheritance.takeSocket('tcp', HOST, 80), undefined);
    assert.deepEqual(inheritance.flowsAt(HOST, 53), []);
  });

  test('flowsAt() gives the flows that came in there', () => {
    const inheritance = new Inheritance();
    const [one, two] = [aUdpFlow(1), aUdpFlow(2)];
    inheritance.setFlows([one, two]);
    assert.deepEqual(inheritance.flowsAt(HOST, 53), [one, two]);
    assert.deepEqual(inheritance.flowsAt(HOST, 54), []);
  });
});
