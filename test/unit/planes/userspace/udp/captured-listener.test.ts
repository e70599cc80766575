import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { ipAddress } from '../../../../../src/model/address.js';
import { CapturedPorts } from '../../../../../src/planes/userspace/captured-ports.js';
import { HandoverState } from '../../../../../src/planes/userspace/handover-state.js';
import type { Listener } from '../../../../../src/planes/userspace/listeners.js';
import { RulePorts } from '../../../../../src/selection/rule-ports.js';
import { eventually } from '../../../../support/deadline.js';
import { testState, type RuleParts } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { echo, FakeOrigins, openDescriptors, Peer, Rig } from './rig.js';

/* The captured socket is bound to a loopback address here, and clients send to it. */

const at = loopbackBlock(9);
const RECEIVER = at(1);
const FRONTEND = at(2);
const BACKEND = at(11);
const [ASKED, OTHER] = [20_053, 20_054];

interface Lab {
  readonly rig: Rig;
  readonly feed: FakeOrigins;
  readonly listener: Listener;
  readonly to: { readonly address: string; readonly port: number };
  /** Resolves when what was sent before has arrived. */
  fence(): Promise<void>;
}

async function setUp(t: TestContext, rule: RuleParts = {}, handover = new HandoverState()): Promise<Lab> {
  const state = testState({ backends: [BACKEND], rule, frontend: { address: ipAddress(FRONTEND) } });
  const feed = new FakeOrigins({ receiver: RECEIVER, destination: FRONTEND });
  const rig = await Rig.create(t, state, { origins: feed, handover });
  const slots = rig.manager.slotsFor(state.configuration);
  const [slot] = slots;
  assert.ok(slot);
  const { frontend } = slot.rule;
  const owners = new RulePorts(state.configuration.rules).at('udp', frontend.address);
  const ports = new CapturedPorts(frontend, slot, owners, slots);
  const listener = await rig.open(RECEIVER, 0, { captured: { protocol: 'udp', ports } });
  const to = { address: RECEIVER, port: listener.port };
  const other = await Peer.open(t, at(250));
  const fence = async (): Promise<void> => {
    const witness = await echo(t, BACKEND, 9);
    feed.isNew(other, 9, { id: 1_000_000 });
    await other.ask('fence', to);
    witness.close();
  };
  return { rig, feed, listener, to, fence };
}

function tuples({ rig }: Lab): readonly string[] {
  return [...rig.manager.table.all()]
    .map(
      ({ tuple }) =>
        `${tuple.source.text} ${tuple.sourcePort} ${tuple.destination.text} ${tuple.destinationPort}`,
    )
    .filter((text) => !text.endsWith(' 9'));
}

const FLOW = (port: number, sourcePort = 5000): string => `198.51.100.7 ${sourcePort} ${FRONTEND} ${port}`;

describe('a captured UDP listener', () => {
  test('first datagrams wait for their origin, and pass in order', async (t) => {
    const lab = await setUp(t);
    const { feed, to } = lab;
    const server = await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    for (const text of ['a', 'b', 'c']) client.send(text, to);
    await lab.fence();
    assert.deepEqual(tuples(lab), []);
    feed.isNew(client, ASKED);
    client.send('d', to);
    await server.count(4);
    assert.deepEqual(
      server.received.map(({ text }) => text),
      ['a', 'b', 'c', 'd'],
    );
    assert.deepEqual(tuples(lab), [FLOW(ASKED)]);
    const [reply] = await client.count(4);
    assert.deepEqual(
      [reply?.text, reply?.from.address, reply?.from.port],
      [`${BACKEND}:a`, to.address, to.port],
    );
  });

  test('a lost event is made up for by a listing', async (t) => {
    const lab = await setUp(t);
    const { rig, feed, to } = lab;
    await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    client.send('a', to);
    await lab.fence();
    feed.entries = [feed.origin(client, ASKED)];
    rig.clock.advance(49);
    assert.equal(feed.lists, 0);
    rig.clock.advance(1);
    assert.equal((await client.count(1))[0]?.text, `${BACKEND}:a`);
    assert.equal(feed.lists, 1);
  });

  test('what stays unknown is dropped after a second, and listings are few', async (t) => {
    const lab = await setUp(t);
    const { rig, feed, to } = lab;
    const client = await Peer.open(t, at(100));
    for (let n = 0; n < 20; n++) client.send('x', to);
    await lab.fence();
    assert.equal(rig.drops('unknown-origin'), 4, 'no room for more than 16 of a client');
    for (let n = 0; n < 25; n++) {
      rig.clock.advance(50);
      // A listing is answered in between.
      await Promise.resolve();
      await Promise.resolve();
    }
    assert.equal(rig.drops('unknown-origin'), 20);
    assert.ok(feed.lists >= 3 && feed.lists <= 5, `${feed.lists} listings`);
    rig.clock.advance(10_000);
    assert.ok(feed.lists <= 5, 'and none when no client waits');
  });

  test('a flow whose entry has gone is suspended, and continues for the same client', async (t) => {
    const lab = await setUp(t);
    const { rig, feed, to } = lab;
    const server = await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    const first = feed.isNew(client, ASKED);
    const { from } = (await client.ask('a', to), server.received[0] ?? assert.fail());
    feed.follower?.onGone({ ...first, id: 77 });
    await client.ask('the entry of another id', to);
    feed.follower?.onGone(first);
    server.send('into the void', { address: from.address, port: from.port });
    client.send('b', to);
    await lab.fence();
    await eventually(() => rig.drops('send-failed') === 1, 5000, 'the reply to be dropped');
    assert.equal(server.received.length, 2);
    feed.isNew(client, ASKED);
    await server.count(3);
    assert.equal(server.received[2]?.from.port, from.port, 'the same flow');
    await client.count(3);
    assert.deepEqual(tuples(lab), [FLOW(ASKED)]);
  });

  test('a client port that is given to another flow ends the first', async (t) => {
    const lab = await setUp(t);
    const { feed, to } = lab;
    await echo(t, BACKEND, ASKED);
    const server = await echo(t, BACKEND, OTHER);
    const client = await Peer.open(t, at(100));
    const first = feed.isNew(client, ASKED);
    await client.ask('a', to);
    feed.follower?.onGone(first);
    client.send('b', to);
    await lab.fence();
    feed.isNew(client, OTHER);
    assert.equal((await server.count(1))[0]?.text, 'b');
    assert.deepEqual(tuples(lab), [FLOW(OTHER)]);
    // Without word of the end of the second.
    feed.isNew(client, ASKED, { sourcePort: 5001 });
    assert.deepEqual(tuples(lab), []);
    await client.ask('c', to);
    assert.deepEqual(tuples(lab), [FLOW(ASKED, 5001)]);
  });

  test('a listing after a gap puts all right, but for what events told meanwhile', async (t) => {
    const lab = await setUp(t);
    const { rig, feed, to } = lab;
    for (const port of [ASKED, OTHER]) await echo(t, BACKEND, port);
    const [gone, moved, told] = [
      await Peer.open(t, at(100)),
      await Peer.open(t, at(101)),
      await Peer.open(t, at(102)),
    ];
    for (const [n, client] of [gone, moved].entries()) {
      feed.isNew(client, ASKED, { sourcePort: 5000 + n });
      await client.ask('a', to);
    }
    feed.entries = [feed.origin(moved, OTHER), feed.origin(told, OTHER, { sourcePort: 5002 })];
    let release = (): void => undefined;
    feed.until = new Promise((resolve) => (release = resolve));
    feed.follower?.onGap();
    feed.isNew(told, ASKED, { sourcePort: 5002 });
    release();
    gone.send('b', to);
    assert.equal((await moved.ask('b', to)).text, `${BACKEND}:b`);
    assert.equal((await told.ask('b', to)).text, `${BACKEND}:b`);
    assert.equal(gone.received.length, 1, 'its flow is suspended');
    assert.deepEqual(tuples(lab).slice().sort(), [FLOW(ASKED), FLOW(OTHER), FLOW(ASKED, 5002)]);
    rig.pass(31_000);
    assert.equal(rig.manager.table.size, 0);
  });

  test('an origin that has not been used for long is looked up again', async (t) => {
    const lab = await setUp(t);
    const { rig, feed, to } = lab;
    await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    feed.entries = [feed.origin(client, ASKED)];
    feed.isNew(client, ASKED);
    await client.ask('a', to);
    rig.pass(31_000);
    await client.ask('within the time that entries outlive flows', to);
    assert.equal(feed.lists, 0);
    rig.pass(31_000);
    rig.clock.advance(46_000);
    client.send('after it', to);
    await lab.fence();
    assert.equal(client.received.length, 2);
    rig.clock.advance(50);
    await client.count(3);
    assert.equal(feed.lists, 1);
  });

  test('what no rule serves is dropped', async (t) => {
    const lab = await setUp(t);
    const { rig, feed, to } = lab;
    const client = await Peer.open(t, at(100));
    feed.isNew(client, ASKED, { destination: '192.0.2.1' });
    client.send('to another frontend', to);
    await lab.fence();
    assert.equal(rig.drops('unknown-origin'), 1);
    const direct = await Peer.open(t, at(101));
    feed.isNew(direct, to.port, { destination: RECEIVER });
    direct.send('to the socket itself', to);
    await lab.fence();
    assert.equal(rig.drops('unknown-origin'), 2);
  });

  test('flows continue in another process', async (t) => {
    const lab = await setUp(t);
    const { feed, listener, to } = lab;
    const server = await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    feed.isNew(client, ASKED);
    await client.ask('a', to);
    const [record] = listener.freeze?.() ?? [];
    assert.deepEqual([record?.clientPort, record?.tuple.sourcePort], [client.port, 5000]);
    listener.destroy();
    assert.equal(feed.follower, undefined, 'events are followed no more');
    assert.ok(record);

    const handover = new HandoverState();
    handover.setFlows([record]);
    const next = await setUp(t, {}, handover);
    assert.deepEqual(tuples(next), [FLOW(ASKED)]);
    await client.ask('b', next.to);
    assert.equal(server.received[1]?.from.port, server.received[0]?.from.port);
    // Events tell the id later; any other origin ends it.
    next.feed.follower?.onGone(next.feed.origin(client, ASKED));
    client.send('c', next.to);
    await next.fence();
    assert.equal(server.received.length, 2);
  });
});

const ANSWERING = OTHER;

/** The same, and a backend that has got a client's request and answers from another port. */
async function requested(t: TestContext) {
  const udp = { perPacket: false, answersFrom: 'address' } as const;
  const { rig, feed, to } = await setUp(t, { distribution: 'source-ip', udp });
  const backend = await Peer.open(t, BACKEND, ASKED);
  const answering = await Peer.open(t, BACKEND, ANSWERING);
  const client = await knownClient(t, feed, 100);
  client.send('read', to);
  const [{ from } = assert.fail('nothing received')] = await backend.count(1);
  return { rig, feed, to, backend, answering, client, from };
}

/** Captured as it is: from its own address and port. */
async function knownClient(t: TestContext, feed: FakeOrigins, host: number): Promise<Peer> {
  const client = await Peer.open(t, at(host));
  feed.isNew(client, ASKED, { source: client.address, sourcePort: client.port });
  return client;
}

describe('answers from captured ports', () => {
  test('answer sockets: opens the port for a flow that a backend begins', async (t) => {
    const { rig, client, answering, from } = await requested(t);
    answering.send('block 1', from);
    const [answer] = await client.count(1);
    assert.deepEqual(
      [answer?.text, answer?.from.address, answer?.from.port],
      ['block 1', FRONTEND, ANSWERING],
    );
    client.send('ack 1', { address: FRONTEND, port: ANSWERING });
    const [ack] = await answering.count(1);
    assert.deepEqual([ack?.text, ack?.from.port], ['ack 1', from.port]);
    assert.deepEqual(
      rig.eventsOf('flow-started').map(({ flow }) => flow.tuple.destinationPort),
      [ASKED, ANSWERING],
    );
  });

  test('answer sockets: serves flows of several clients on one port, and no others', async (t) => {
    const { rig, feed, to, client, backend, answering, from } = await requested(t);
    answering.send('for one', from);
    await client.count(1);
    const other = await knownClient(t, feed, 101);
    other.send('read', to);
    await backend.count(2);
    const there = backend.received[1]?.from ?? assert.fail('nothing received');
    const before = openDescriptors();
    answering.send('for two', there);
    assert.equal((await other.count(1))[0]?.from.port, ANSWERING);
    // A socket to the backend, none for the client.
    assert.equal(openDescriptors(), before + 1);
    const stranger = await Peer.open(t, at(102));
    stranger.send('in?', { address: FRONTEND, port: ANSWERING });
    await eventually(() => rig.drops('stopping') === 1, 5000, 'the drop');
  });

  test('answer sockets: closes with its last flow, and opens again for the next', async (t) => {
    const { rig, client, backend, answering, to, from } = await requested(t);
    const before = openDescriptors();
    answering.send('block 1', from);
    await client.count(1);
    assert.equal(openDescriptors(), before + 2);
    rig.clock.advance(20_000);
    client.send('more', to);
    await backend.count(2);
    rig.pass(11_000);
    assert.equal(rig.manager.table.size, 1);
    await eventually(() => openDescriptors() === before, 5000, 'the sockets to close');
    answering.send('again', from);
    assert.equal((await client.count(2))[1]?.from.port, ANSWERING);
  });

  test('answer sockets: leaves a port alone that another process has', async (t) => {
    const { rig, answering, from } = await requested(t);
    const service = await Peer.open(t, FRONTEND, ANSWERING);
    answering.send('block 1', from);
    await eventually(() => rig.drops('unexpected-reply') === 1, 5000, 'the drop');
    assert.equal(service.received.length, 0);
    assert.equal(rig.manager.table.size, 1);
  });
});
