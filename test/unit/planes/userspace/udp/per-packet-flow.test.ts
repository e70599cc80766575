import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { eventually } from '../../../../support/deadline.js';
import { AZURE_POLICY, testState, type TestStateParts } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { openDescriptors, Peer, udpLab } from './rig.js';

const at = loopbackBlock(3);
const BACKENDS = [at(11), at(12), at(13)] as const;
const PER_PACKET = { udp: { perPacket: true } } as const;

function state(parts: Partial<TestStateParts> = {}): ReturnType<typeof testState> {
  return testState({ backends: BACKENDS, rule: PER_PACKET, ...parts });
}

async function lab(t: TestContext, { silent = true } = {}) {
  const { backends, ...rest } = await udpLab(t, at, { rule: PER_PACKET }, { silent });
  return { ...rest, backends: [...backends.values()] };
}

const received = (backends: readonly Peer[]): readonly number[] => backends.map((one) => one.received.length);

describe('a per-packet UDP flow', () => {
  test('PerPacketFlow spreads the datagrams of one client evenly', async (t) => {
    const { rig, to, backends, client } = await lab(t);
    for (let n = 0; n < 300; n++) client.send(`${n}`, to);
    await eventually(() => received(backends).reduce((a, b) => a + b) === 300, 5000, '300 datagrams');
    // Slots belong to the three in turn, and each datagram goes by one slot further: 7 rounds of 21 slots.
    for (const count of received(backends))
      assert.ok(Math.abs(count - 100) <= 1, received(backends).join(' '));
    assert.equal(rig.manager.table.size, 1);
    rig.manager.settleAll();
    const totals = BACKENDS.map((address) => rig.manager.traffic.of('ha-ports', `nvas/${address}`, 'udp'));
    assert.deepEqual(
      totals.map(({ packetsToBackend }) => packetsToBackend),
      received(backends),
    );
    assert.deepEqual(
      totals.map(({ bytesToBackend }) => bytesToBackend),
      backends.map((one) => one.received.reduce((sum, { data }) => sum + data.length, 0)),
    );
    assert.equal(
      totals.reduce((sum, { flowsActive }) => sum + flowsActive, 0),
      1,
    );
    assert.equal([...rig.manager.table.all()][0]?.packetsToBackend, 300);
  });

  test('PerPacketFlow shares one socket a backend between clients and drops replies', async (t) => {
    const { rig, to, backends, client } = await lab(t, { silent: false });
    const other = await Peer.open(t, at(101));
    for (let n = 0; n < 30; n++) {
      client.send('a', to);
      other.send('b', to);
    }
    await eventually(() => rig.drops('unexpected-reply') === 60, 5000, '60 replies dropped');
    assert.deepEqual([client.received.length, other.received.length], [0, 0]);
    assert.equal(rig.manager.table.size, 2);
    for (const { received } of backends) assert.equal(new Set(received.map(({ from }) => from.port)).size, 1);
  });

  test('PerPacketFlow closes the shared sockets with the last flow', async (t) => {
    const { rig, to, backends, client } = await lab(t);
    const before = openDescriptors();
    for (let n = 0; n < 6; n++) client.send('a', to);
    await eventually(() => received(backends).every((count) => count === 2), 5000, 'six datagrams');
    assert.equal(openDescriptors(), before + 3);
    rig.pass(31_000);
    await eventually(() => openDescriptors() === before, 5000, 'sockets closed');
  });

  test('PerPacketFlow passes over a backend that goes down, and one that refuses', async (t) => {
    const { rig, to, backends, client } = await lab(t);
    for (let n = 0; n < 3; n++) client.send('a', to);
    await eventually(() => received(backends).every((count) => count === 1), 5000, 'three datagrams');
    // The one that the flow is listed under.
    const listed = BACKENDS.findIndex((address) => rig.flows()[0]?.backendId === `nvas/${address}`);
    const [gone, second, third] = [0, 1, 2].map((n) => (listed + n) % 3) as [number, number, number];
    const members = BACKENDS.map((address, n) => ({ address, valid: n !== gone }));
    rig.apply(state({ backends: members, revision: 2 }));
    for (let n = 0; n < 20; n++) client.send('b', to);
    await eventually(() => received(backends).reduce((a, b) => a + b) === 23, 5000, 'twenty more');
    assert.equal(backends[gone]?.received.length, 1);
    assert.equal(rig.flows().length, 1);
    assert.notEqual(rig.flows()[0]?.backendId, `nvas/${BACKENDS[gone]}`);

    backends[second]?.close();
    client.send('c', to);
    client.send('c', to);
    await eventually(() => rig.eventsOf('passive-failure').length === 1, 5000, 'the passive failure');
    const before = backends[third]?.received.length ?? 0;
    for (let n = 0; n < 10; n++) client.send('d', to);
    await backends[third]?.count(before + 10);
    assert.equal(rig.eventsOf('passive-failure')[0]?.backendId, `nvas/${BACKENDS[second]}`);
    // After a second it is tried again.
    rig.clock.advance(1000);
    const back = await Peer.open(t, BACKENDS[second] ?? '', to.port);
    for (let n = 0; n < 4; n++) client.send('e', to);
    await back.count(2);
  });

  test('PerPacketFlow follows a new configuration to another port', async (t) => {
    const { rig, to, client, backends } = await lab(t);
    client.send('a', to);
    await eventually(() => received(backends).reduce((a, b) => a + b) === 1, 5000, 'one datagram');
    const moved = await Promise.all(BACKENDS.map((address) => Peer.open(t, address, to.port + 1)));
    rig.apply(state({ rule: { ...PER_PACKET, portOffset: 1 }, revision: 2, digest: 'b' }));
    for (let n = 0; n < 6; n++) client.send('b', to);
    await eventually(() => received(moved).every((count) => count === 2), 5000, 'six datagrams');
  });

  test('PerPacketFlow ends when no backend is left, and is blackholed where policy says so', async (t) => {
    const { rig, to, client, backends } = await lab(t);
    client.send('a', to);
    await eventually(() => received(backends).reduce((a, b) => a + b) === 1, 5000, 'one datagram');
    rig.apply(state({ backends: [], revision: 2, digest: 'b' }));
    client.send('a', to);
    await eventually(() => rig.drops('no-backend') === 1, 5000, 'the drop');
    assert.equal(rig.manager.table.size, 0);

    const flowPolicy = { ...AZURE_POLICY, removed: { tcp: 'reset', udp: 'drop' } } as const;
    rig.apply(state({ rule: { ...PER_PACKET, flowPolicy }, revision: 3, digest: 'c' }));
    client.send('a', to);
    await eventually(() => rig.manager.table.size === 1, 5000, 'a flow');
    rig.apply(state({ backends: [], rule: { ...PER_PACKET, flowPolicy }, revision: 4, digest: 'd' }));
    client.send('a', to);
    await eventually(() => rig.drops('blackholed') === 1, 5000, 'the drop');
  });
});
