import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress } from '../../../../../src/model/address.js';
import type { UdpFlowState } from '../../../../../src/planes/contract.js';
import { HandoverState } from '../../../../../src/planes/userspace/handover-state.js';
import { eventually } from '../../../../support/deadline.js';
import { testState } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { echo, FakeOrigins, Peer, Rig } from './rig.js';

/* The captured socket is bound to a loopback address here, and clients send to it. */

const at = loopbackBlock(9);
const [RECEIVER, FRONTEND, BACKEND] = [at(1), at(2), at(11)];
const ASKED = 20_053;

describe('a captured UDP listener', () => {
  test('flows continue in another process', async (t) => {
    const state = testState({ backends: [BACKEND], frontend: { address: ipAddress(FRONTEND) } });
    const open = async (flows: readonly UdpFlowState[]) => {
      const feed = new FakeOrigins({ receiver: RECEIVER, destination: FRONTEND });
      const handover = new HandoverState();
      handover.setFlows(flows);
      const rig = await Rig.create(t, state, { origins: feed, handover });
      const listener = await rig.openCaptured(RECEIVER);
      return { rig, feed, listener, to: { address: RECEIVER, port: listener.port } };
    };
    const old = await open([]);
    const server = await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    old.feed.isNew(client, ASKED);
    await client.ask('a', old.to);
    const records = old.listener.freeze?.() ?? [];
    assert.deepEqual(
      records.map(({ clientPort, tuple }) => [clientPort, tuple.sourcePort]),
      [[client.port, 5000]],
    );
    old.listener.destroy();
    assert.equal(old.feed.follower, undefined, 'events are followed no more');

    const next = await open(records);
    const [flow] = next.rig.manager.table.all();
    assert.deepEqual(flow?.tuple, records[0]?.tuple);
    await client.ask('b', next.to);
    assert.equal(server.received[1]?.from.port, server.received[0]?.from.port);
    // Events tell the id later; any other origin ends it.
    next.feed.follower?.onGone(next.feed.origin(client, ASKED));
    client.send('c', next.to);
    // It waits for its origin, for a second.
    const isDropped = (): boolean => {
      next.rig.clock.advance(100);
      return next.rig.drops('unknown-origin') === 1;
    };
    await eventually(isDropped, 5000, 'the drop');
    assert.equal(server.received.length, 2);
  });
});
