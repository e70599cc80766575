import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { CapturedPorts } from '../../../../../src/planes/userspace/captured-ports.js';
import { HandoverState } from '../../../../../src/planes/userspace/handover-state.js';
import type { Listener } from '../../../../../src/planes/userspace/listeners.js';
import type { FlowOrigin, OriginFeed, OriginFollower } from '../../../../../src/model/flow.js';
import { RulePorts } from '../../../../../src/selection/rule-ports.js';
import { eventually } from '../../../../support/deadline.js';
import { testState } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { echo, Peer, Rig } from './rig.js';

/*
 * The captured socket is bound to a loopback address here, and clients send to it: what the kernel would say of them
 * is made up. Nothing in it is like what the socket sees.
 */

const at = loopbackBlock(9);
const RECEIVER = at(1);
const BACKEND = at(11);
const FRONTEND = '127.0.0.1';
const [ASKED, OTHER] = [20_053, 20_054];

class FakeFeed implements OriginFeed {
  follower: OriginFollower | undefined;
  entries: FlowOrigin[] = [];
  lists = 0;
  fails = false;
  #ids = 0;
  /** A listing waits for it. */
  until: Promise<void> = Promise.resolve();

  follow(_port: number, follower: OriginFollower): () => void {
    this.follower = follower;
    return () => (this.follower = undefined);
  }

  async list(): Promise<readonly FlowOrigin[] | undefined> {
    this.lists++;
    const entries = [...this.entries];
    await this.until;
    return this.fails ? undefined : entries;
  }

  /** What the kernel would have for that client. */
  origin(client: Peer, destinationPort: number, rest: Partial<FlowOrigin> = {}): FlowOrigin {
    return {
      ...{ id: ++this.#ids, receiver: RECEIVER, seenAddress: client.address, seenPort: client.port },
      ...{ source: '198.51.100.7', sourcePort: 5000, destination: FRONTEND, destinationPort },
      ...{ remainingMs: 90_000, ...rest },
    };
  }
}

interface Lab {
  readonly rig: Rig;
  readonly feed: FakeFeed;
  readonly listener: Listener & { readonly port: number };
  readonly to: { readonly address: string; readonly port: number };
  /** Resolves when what was sent before has arrived. */
  fence(): Promise<void>;
}

async function setUp(t: TestContext, inheritance?: HandoverState): Promise<Lab> {
  const state = testState({ backends: [BACKEND] });
  const feed = new FakeFeed();
  const rig = await Rig.create(t, state, {
    origins: feed,
    ...(inheritance === undefined ? {} : { inheritance }),
  });
  const slots = rig.manager.slotsFor(state.configuration);
  const [slot] = slots;
  assert.ok(slot);
  const { frontend } = slot.rule;
  const owners = new RulePorts(state.configuration.rules).at('udp', frontend.address);
  const ports = new CapturedPorts(frontend, slot, owners, slots);
  const listener = await rig.open(RECEIVER, 0, { captured: { protocol: 'udp', ports } });
  const to = { address: RECEIVER, port: listener.port };
  const other = await Peer.open(t, at(250));
  if (inheritance === undefined) await echo(t, BACKEND, 9);
  return {
    ...{ rig, feed, listener, to },
    async fence() {
      feed.follower?.onNew({ ...feed.origin(other, 9), id: 1_000_000 });
      await other.ask('fence', to);
    },
  };
}

function tuples({ rig }: Lab): readonly string[] {
  return [...rig.manager.table.all()]
    .map(
      ({ tuple }) =>
        `${tuple.source.text} ${tuple.sourcePort} ${tuple.destination.text} ${tuple.destinationPort}`,
    )
    .filter((text) => !text.endsWith(' 9'));
}

const FLOW = (port: number): string => `198.51.100.7 5000 127.0.0.1 ${port}`;

describe('a captured UDP listener', () => {
  test('first datagrams wait for their origin, and pass in order', async (t) => {
    const lab = await setUp(t);
    const { feed, to } = lab;
    const server = await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    for (const text of ['a', 'b', 'c']) client.send(text, to);
    await lab.fence();
    assert.deepEqual(tuples(lab), []);
    feed.follower?.onNew(feed.origin(client, ASKED));
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
    const first = feed.origin(client, ASKED);
    feed.follower?.onNew(first);
    const { from } = (await client.ask('a', to), server.received[0] ?? assert.fail());
    feed.follower?.onGone({ ...first, id: 77 });
    await client.ask('the entry of another id', to);
    feed.follower?.onGone(first);
    server.send('into the void', { address: from.address, port: from.port });
    client.send('b', to);
    await lab.fence();
    await eventually(() => rig.drops('send-failed') === 1, 5000, 'the reply to be dropped');
    assert.equal(server.received.length, 2);
    feed.follower?.onNew(feed.origin(client, ASKED));
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
    const first = feed.origin(client, ASKED);
    feed.follower?.onNew(first);
    await client.ask('a', to);
    feed.follower?.onGone(first);
    client.send('b', to);
    await lab.fence();
    feed.follower?.onNew(feed.origin(client, OTHER));
    assert.equal((await server.count(1))[0]?.text, 'b');
    assert.deepEqual(tuples(lab), [FLOW(OTHER)]);
    // Without word of the end of the second.
    feed.follower?.onNew(feed.origin(client, ASKED, { sourcePort: 5001 }));
    assert.deepEqual(tuples(lab), []);
    await client.ask('c', to);
    assert.deepEqual(tuples(lab), ['198.51.100.7 5001 127.0.0.1 20053']);
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
      feed.follower?.onNew(feed.origin(client, ASKED, { sourcePort: 5000 + n }));
      await client.ask('a', to);
    }
    feed.entries = [feed.origin(moved, OTHER), feed.origin(told, OTHER, { sourcePort: 5002 })];
    let release = (): void => undefined;
    feed.until = new Promise((resolve) => (release = resolve));
    feed.follower?.onGap();
    feed.follower?.onNew(feed.origin(told, ASKED, { sourcePort: 5002 }));
    release();
    gone.send('b', to);
    assert.equal((await moved.ask('b', to)).text, `${BACKEND}:b`);
    assert.equal((await told.ask('b', to)).text, `${BACKEND}:b`);
    assert.equal(gone.received.length, 1, 'its flow is suspended');
    assert.deepEqual(tuples(lab).slice().sort(), [
      FLOW(ASKED),
      FLOW(OTHER),
      '198.51.100.7 5002 127.0.0.1 20053',
    ]);
    rig.clock.advance(31_000);
    rig.manager.tick();
    assert.equal(rig.manager.table.size, 0);
  });

  test('an origin that has not been used for long is looked up again', async (t) => {
    const lab = await setUp(t);
    const { rig, feed, to } = lab;
    await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    feed.entries = [feed.origin(client, ASKED)];
    feed.follower?.onNew(feed.origin(client, ASKED));
    await client.ask('a', to);
    rig.clock.advance(31_000);
    rig.manager.tick();
    await client.ask('within the time that entries outlive flows', to);
    assert.equal(feed.lists, 0);
    rig.clock.advance(31_000);
    rig.manager.tick();
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
    feed.follower?.onNew(feed.origin(client, ASKED, { destination: '192.0.2.1' }));
    client.send('to another frontend', to);
    await lab.fence();
    assert.equal(rig.drops('unknown-origin'), 1);
    const direct = await Peer.open(t, at(101));
    feed.follower?.onNew(feed.origin(direct, to.port, { destination: RECEIVER }));
    direct.send('to the socket itself', to);
    await lab.fence();
    assert.equal(rig.drops('unknown-origin'), 2);
  });

  test('flows continue in another process', async (t) => {
    const lab = await setUp(t);
    const { feed, listener, to } = lab;
    const server = await echo(t, BACKEND, ASKED);
    const client = await Peer.open(t, at(100));
    feed.follower?.onNew(feed.origin(client, ASKED));
    await client.ask('a', to);
    const [record] = listener.freeze?.() ?? [];
    assert.deepEqual([record?.clientPort, record?.tuple.sourcePort], [client.port, 5000]);
    listener.destroy();
    assert.equal(feed.follower, undefined, 'events are followed no more');
    assert.ok(record);

    const inheritance = new HandoverState();
    inheritance.setFlows([record]);
    const next = await setUp(t, inheritance);
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
