import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { ipAddress } from '../../../../../src/model/address.js';
import { portSetOf } from '../../../../../src/model/ports.js';
import { eventually } from '../../../../support/deadline.js';
import { testState, type TestStateParts, type RuleParts } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { openDescriptors, Peer, Rig, type Received } from './rig.js';

const at = loopbackBlock(7);
const FRONTEND = at(1);
const BACKENDS = [at(11), at(12)] as const;
/** Asked on the first, answered from the second. */
const ASKED = 6900;
const ANSWERING = 6901;

const BY_ADDRESS: RuleParts = {
  distribution: 'source-ip',
  udp: { perPacket: false, answersFrom: 'address' },
};

interface Lab {
  readonly rig: Rig;
  readonly client: Peer;
  /** Both ports of each backend, by address. */
  readonly backends: ReadonlyMap<string, { readonly asked: Peer; readonly answering: Peer }>;
}

const asked = { address: FRONTEND, port: ASKED };
const answering = { address: FRONTEND, port: ANSWERING };

/** A frontend with listeners on `ports`, and backends that wait on both ports. None answers by itself. */
async function lab(
  t: TestContext,
  rule: RuleParts = BY_ADDRESS,
  ports: readonly number[] = [ASKED, ANSWERING],
  parts: Partial<TestStateParts> = {},
): Promise<Lab> {
  const rig = await Rig.create(t, testState({ backends: BACKENDS, rule, ...parts }));
  for (const port of ports) await rig.open(FRONTEND, port);
  const backends = new Map<string, { asked: Peer; answering: Peer }>();
  const offset = rule.portOffset ?? 0;
  for (const address of BACKENDS) {
    backends.set(address, {
      asked: await Peer.open(t, address, ASKED + offset),
      answering: await Peer.open(t, address, ANSWERING + offset),
    });
  }
  return { rig, client: await Peer.open(t, at(100)), backends };
}

/** Which backend has got the client's first datagram, and from where. */
async function received(
  { backends }: Lab,
  text: string,
): Promise<{ readonly address: string; readonly answering: Peer; readonly from: Received['from'] }> {
  return eventually(
    () => {
      for (const [address, { asked: peer, answering: other }] of backends) {
        const found = peer.received.find((one) => one.text === text);
        if (found !== undefined) return { address, answering: other, from: found.from };
      }
      return undefined;
    },
    5000,
    `a backend to get ${text}`,
  );
}

/** The same, and a backend that has got the request of the client. */
async function requested(...args: Parameters<typeof lab>) {
  const setting = await lab(...args);
  setting.client.send('read', asked);
  return { ...setting, server: await received(setting, 'read') };
}

describe('answers from other ports', () => {
  test('RelatedEnds begins a flow when the backend answers from another port', async (t) => {
    const { rig, client, server } = await requested(t);
    server.answering.send('block 1', server.from);
    const [answer] = await client.count(1);
    assert.deepEqual(
      [answer?.text, answer?.from.address, answer?.from.port],
      ['block 1', FRONTEND, ANSWERING],
    );

    // The client continues with the new port, and the backend knows it by the same address and port.
    client.send('ack 1', answering);
    const [ack] = await server.answering.count(1);
    assert.deepEqual([ack?.text, ack?.from], ['ack 1', { ...server.from, size: 5 }]);
    server.answering.send('block 2', server.from);
    assert.equal((await client.count(2))[1]?.from.port, ANSWERING);

    assert.equal(rig.manager.table.size, 2);
    assert.equal(rig.arrivals(), 2);
    const started = rig.eventsOf('flow-started').map(({ flow }) => flow);
    assert.deepEqual(
      started.map(({ tuple, reason, backendEndpoint }) => [tuple.destinationPort, reason, backendEndpoint]),
      [
        [ASKED, 'hash', `${server.address}:${ASKED}`],
        [ANSWERING, 'pinned', `${server.address}:${ANSWERING}`],
      ],
    );
    assert.equal(started[1]?.tuple.sourcePort, client.port);
  });

  test('RelatedEnds carries many datagrams that come before the new socket is there, in order', async (t) => {
    const { rig, client, server } = await requested(t);
    const count = 50;
    for (let n = 0; n < count; n++) server.answering.send(String(n), server.from);
    const got = await client.count(count);
    assert.deepEqual(
      got.map(({ text }) => text),
      Array.from({ length: count }, (_, n) => String(n)),
    );
    assert.equal(rig.manager.table.size, 2);
  });

  test('RelatedEnds gives flows of one client endpoint one local end, those of others another', async (t) => {
    const setting = await lab(t);
    const { client } = setting;
    const other = await Peer.open(t, at(100));
    client.send('a', asked);
    const server = await received(setting, 'a');
    client.send('b', answering);
    const [second] = await server.answering.count(1);
    assert.equal(second?.from.port, server.from.port);
    other.send('c', asked);
    const { address, from } = await received(setting, 'c');
    assert.equal(address, server.address, 'the same source has the same backend');
    assert.notEqual(from.port, server.from.port);
    // Each client hears its own server's answers only.
    server.answering.send('for the other', from);
    assert.equal((await other.count(1))[0]?.text, 'for the other');
    assert.equal(client.received.length, 0);
  });

  test('RelatedEnds drops and counts what comes from a stranger', async (t) => {
    const { rig, client, server } = await requested(t);
    const stranger = await Peer.open(t, at(50), ANSWERING);
    stranger.send('spoofed', server.from);
    await eventually(() => rig.drops('unexpected-reply') === 1, 5000, 'the drop');
    assert.equal(client.received.length, 0);
    assert.equal(rig.manager.table.size, 1);
  });

  test('RelatedEnds drops and counts an answer from a port without a listener', async (t) => {
    const { rig, server } = await requested(t, BY_ADDRESS, [ASKED]);
    server.answering.send('block 1', server.from);
    await eventually(() => rig.drops('unexpected-reply') === 1, 5000, 'the drop');
    assert.equal(rig.manager.table.size, 1);
  });

  test('RelatedEnds keeps answers out where the rule takes them from the endpoint only', async (t) => {
    const { backends, client, server } = await requested(t, { distribution: 'source-ip' });
    const before = openDescriptors();
    server.answering.send('block 1', server.from);
    backends.get(server.address)?.asked.send('right', server.from);
    assert.deepEqual(
      (await client.count(1)).map(({ text }) => text),
      ['right'],
    );
    assert.equal(openDescriptors(), before);
  });

  test('RelatedEnds takes the port offset of the rule off', async (t) => {
    const { client, server } = await requested(t, { ...BY_ADDRESS, haPorts: false, portOffset: 100 });
    server.answering.send('block 1', server.from);
    assert.equal((await client.count(1))[0]?.from.port, ANSWERING);
  });

  test('RelatedEnds counts flows that backends begin against the caps', async (t) => {
    const { rig, client, server } = await requested(t, BY_ADDRESS, undefined, { limits: { udpFlows: 1 } });
    server.answering.send('block 1', server.from);
    await eventually(() => rig.drops('table-full') === 1, 5000, 'the drop');
    assert.equal(rig.drops('unexpected-reply'), 0);
    assert.equal(client.received.length, 0);
  });

  test('RelatedEnds gives sockets and ports back with the last flow of an end', async (t) => {
    const setting = await lab(t);
    const { rig, client } = setting;
    const before = openDescriptors();
    client.send('read', asked);
    const server = await received(setting, 'read');
    server.answering.send('block 1', server.from);
    await client.count(1);
    // Two connected ones and the one beside them.
    assert.equal(openDescriptors(), before + 3);
    rig.clock.advance(20_000);
    client.send('ack 1', answering);
    await server.answering.count(1);
    rig.pass(11_000);
    assert.equal(rig.manager.table.size, 1, 'the first flow is idle');
    server.answering.send('block 2', server.from);
    await client.count(2);
    rig.pass(31_000);
    assert.equal(rig.manager.table.size, 0);
    await eventually(() => openDescriptors() === before, 5000, 'the sockets to close');
    rig.clock.advance(6000);
    assert.deepEqual(rig.sourcePorts.uses(), []);
  });

  test('RelatedEnds serves backends at the same local end without mixing them up', async (t) => {
    // Both ends have to take the one port there is.
    const setting = await lab(t, { ...BY_ADDRESS, distribution: 'five-tuple' }, undefined, {
      pool: { sourcePorts: portSetOf(45_000), sourceAddresses: [ipAddress(at(60))] },
    });
    const { rig, client } = setting;
    client.send('one', asked);
    const first = await received(setting, 'one');
    let second: Awaited<ReturnType<typeof received>> | undefined;
    let otherClient = client;
    for (let n = 0; n < 40 && second === undefined; n++) {
      otherClient = await Peer.open(t, at(101 + n));
      const [text, size] = [`two ${n}`, rig.manager.table.size];
      const refused = rig.drops('ports-exhausted');
      otherClient.send(text, asked);
      await eventually(
        () => rig.manager.table.size > size || rig.drops('ports-exhausted') > refused,
        5000,
        'the flow',
      );
      if (rig.manager.table.size > size) second = await received(setting, text);
    }
    assert.ok(second !== undefined && second.address !== first.address);
    assert.deepEqual([first.from.port, second.from.port], [45_000, 45_000]);
    second.answering.send('of two', second.from);
    first.answering.send('of one', first.from);
    assert.equal((await client.count(1))[0]?.text, 'of one');
    assert.equal((await otherClient.count(1))[0]?.text, 'of two');
  });

  test('RelatedEnds moves flows of a lost backend, one by one, to one end at the next', async (t) => {
    const { server, ...setting } = await requested(t);
    const { rig, client } = setting;
    server.answering.send('block 1', server.from);
    await client.count(1);
    const rest = BACKENDS.map((address) =>
      address === server.address ? { address, valid: false } : { address },
    );
    rig.apply(testState({ backends: rest, rule: BY_ADDRESS, revision: 2 }));
    client.send('again', asked);
    client.send('ack', answering);
    const next = await received(setting, 'again');
    assert.notEqual(next.address, server.address);
    const [ack] = await next.answering.count(1);
    assert.equal(ack?.from.port, next.from.port);
    assert.equal(rig.manager.table.size, 2);
    // Nothing listens at the old end any more.
    server.answering.send('late', server.from);
    next.answering.send('in time', next.from);
    assert.equal((await client.count(2))[1]?.text, 'in time');
  });
});
