import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { ipAddress } from '../../../../../src/model/address.js';
import { portSetOf } from '../../../../../src/model/ports.js';
import { eventually } from '../../../../support/deadline.js';
import { placeOfRecord } from '../../../../../src/planes/userspace/udp/flow.js';
import { testState, type TestStateParts } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { aUdpFlow } from '../../hand-over-fixtures.js';
import { echo, Peer, Rig, udpLab, type UdpLab } from './rig.js';

const at = loopbackBlock(1);
const FRONTEND = at(1);
const BACKENDS = [at(11), at(12), at(13)] as const;

const lab = (t: TestContext, parts?: Partial<TestStateParts>, running?: readonly string[]): Promise<UdpLab> =>
  udpLab(t, at, parts, running && { running: [...running] });

function backendOf(text: string): string {
  return text.slice(0, text.indexOf(':'));
}

describe('a UDP flow', () => {
  test('UdpFlow gets its replies from the frontend address and port', async (t) => {
    const { rig, to, backends, client } = await lab(t);
    const { text, from } = await client.ask('hello', to);
    const address = backendOf(text);
    assert.equal(text, `${address}:hello`);
    assert.deepEqual([from.address, from.port], [to.address, to.port]);
    const [atBackend] = backends.get(address)?.received ?? [];
    assert.notEqual(atBackend?.from.port, to.port);
    assert.equal(rig.arrivals(), 1);
    const [started] = rig.eventsOf('flow-started');
    assert.equal(started?.flow.backendId, `nvas/${address}`);
    assert.equal(started.flow.tuple.sourcePort, client.port);
    assert.equal(started.flow.reason, 'hash');
  });

  test('UdpFlow counts bytes and packets each way', async (t) => {
    const { rig, to, client } = await lab(t);
    const { text } = await client.ask('12345', to);
    await client.ask('', to);
    rig.manager.settleAll();
    const totals = rig.manager.traffic.of('ha-ports', `nvas/${backendOf(text)}`, 'udp');
    assert.equal(totals.packetsToBackend, 2);
    assert.equal(totals.bytesToBackend, 5);
    assert.equal(totals.packetsToClient, 2);
    assert.equal(totals.bytesToClient, 5 + 2 * (backendOf(text).length + 1));
  });
});

const received = (backends: readonly Peer[]): readonly number[] => backends.map((one) => one.received.length);

describe('a per-packet UDP flow', () => {
  const rule = { udp: { perPacket: true } } as const;
  const silentLab = async (t: TestContext) => {
    const { backends, ...rest } = await udpLab(t, at, { rule }, { silent: true });
    return { ...rest, backends: [...backends.values()] };
  };

  test('PerPacketFlow spreads the datagrams of one client evenly', async (t) => {
    const { rig, to, backends, client } = await silentLab(t);
    for (let n = 0; n < 300; n++) client.send(`${n}`, to);
    await eventually(() => received(backends).reduce((a, b) => a + b) === 300, 5000, '300 datagrams');
    // Slots belong to the three in turn, and each datagram goes by one slot further: 7 rounds of 21 slots.
    for (const count of received(backends))
      assert.ok(Math.abs(count - 100) <= 1, received(backends).join(' '));
    rig.manager.settleAll();
    const totals = BACKENDS.map((address) => rig.manager.traffic.of('ha-ports', `nvas/${address}`, 'udp'));
    assert.deepEqual(
      totals.map(({ packetsToBackend, bytesToBackend }) => [packetsToBackend, bytesToBackend]),
      backends.map((one) => [
        one.received.length,
        one.received.reduce((sum, { data }) => sum + data.length, 0),
      ]),
    );
    const active = totals.reduce((sum, { flowsActive }) => sum + flowsActive, 0);
    const [flow] = rig.manager.table.all();
    assert.deepEqual([active, rig.manager.table.size, flow?.packetsToBackend], [1, 1, 300]);
  });

  test('PerPacketFlow follows a new configuration to another port', async (t) => {
    const { rig, to, client, backends } = await silentLab(t);
    client.send('a', to);
    await eventually(() => received(backends).reduce((a, b) => a + b) === 1, 5000, 'one datagram');
    const moved = await Promise.all(BACKENDS.map((address) => Peer.open(t, address, to.port + 1)));
    const parts = { backends: BACKENDS, rule: { ...rule, portOffset: 1 } };
    rig.apply(testState({ ...parts, revision: 2, digest: 'b' }));
    for (let n = 0; n < 6; n++) client.send('b', to);
    await eventually(() => received(moved).every((count) => count === 2), 5000, 'six datagrams');
  });
});

describe('a UDP flow without a route to its backend', () => {
  for (const [how, known] of [
    ['the look-up finds no route', undefined],
    // From a loopback address the kernel lets nothing go elsewhere.
    ['the kernel refuses to connect', ipAddress(at(60))],
  ] as const) {
    test(`UdpFlow moves on when ${how}, and ends when it finds none to any backend`, async (t) => {
      // TEST-NET-3 (RFC 5737).
      const routeless = ['203.0.113.1', '203.0.113.2'];
      const rig = await Rig.create(t, testState({ backends: [...routeless, at(11)] }), {
        routeSource: {
          known: ({ text }) => (text === at(11) ? ipAddress(at(61)) : known),
          sourceFor: () => Promise.reject(new Error('ENETUNREACH')),
        },
      });
      const to = { address: FRONTEND, port: (await rig.open(FRONTEND)).port };
      await echo(t, at(11), to.port);
      for (let n = 0; n < 6; n++) {
        const client = await Peer.open(t, at(100));
        assert.equal((await client.ask('a', to)).text, `${at(11)}:a`);
      }
      assert.ok(rig.eventsOf('passive-failure').length > 0);
      rig.apply(testState({ backends: routeless, revision: 2, digest: 'b' }));
      const client = await Peer.open(t, at(100));
      client.send('x', to);
      await eventually(() => rig.drops('send-failed') === 1, 5000, 'the drop');
      assert.ok(rig.flows().every(({ backendId }) => backendId === `nvas/${at(11)}`));
    });
  }
});

describe('datagram sizes', () => {
  for (const [family, frontend, backend, largest] of [
    ['IPv4', FRONTEND, at(11), 65_507],
    ['IPv6', '::1', '::1', 65_527],
  ] as const) {
    test(`UdpFlow carries none to ${largest} bytes both ways over ${family}`, async (t) => {
      // ::1 is the only IPv6 loopback address, so the backend has another port there.
      const portOffset = family === 'IPv6' ? 1 : 0;
      const rig = await Rig.create(t, testState({ backends: [backend], rule: { portOffset } }));
      const { port } = await rig.open(frontend);
      await Peer.open(t, backend, port + portOffset, ({ data }) => data);
      const client = await Peer.open(t, family === 'IPv6' ? '::1' : at(100));
      for (const size of [0, 1, 1472, 9000, largest, 0]) {
        const sent = Buffer.alloc(size, size % 251);
        sent.write('edge', Math.max(0, size - 4));
        const { data, from } = await client.ask(sent, { address: frontend, port });
        assert.ok(data.equals(sent), `${size} bytes`);
        assert.deepEqual([from.address, from.port], [frontend, port]);
      }
      assert.equal(rig.drops('send-failed'), 0);
      assert.equal(rig.manager.table.size, 1);
    });
  }
});

describe('local addresses and ports', () => {
  test('UdpFlow starts from the source addresses of the pool in turn', async (t) => {
    const sourceAddresses = [ipAddress(at(51)), ipAddress(at(52))];
    const { to, backends } = await lab(t, { pool: { sourceAddresses } });
    for (let n = 0; n < 6; n++) await (await Peer.open(t, at(100))).ask('a', to);
    const sources = [...backends.values()].flatMap(({ received }) =>
      received.map(({ from }) => from.address),
    );
    assert.deepEqual(sources.sort(), [at(51), at(51), at(51), at(52), at(52), at(52)]);
  });

  test('UdpFlow shares one local port between backends, and is dropped when none is left', async (t) => {
    const pool = { sourcePorts: portSetOf(45_001, 45_002), sourceAddresses: [] };
    const { rig, to, backends } = await lab(t, { pool });
    const clients: Peer[] = [];
    for (let n = 0; n < 60; n++) {
      const client = await Peer.open(t, at(100));
      clients.push(client);
      client.send('a', to);
    }
    await eventually(
      () => rig.drops('ports-exhausted') + rig.flows().length === 60,
      5000,
      'every flow placed or dropped',
    );
    const seen = [...backends.values()].map(({ received }) => received.map(({ from }) => from.port).sort());
    assert.deepEqual(seen, [
      [45_001, 45_002],
      [45_001, 45_002],
      [45_001, 45_002],
    ]);
    assert.equal(rig.drops('ports-exhausted'), 54);
    assert.equal(rig.eventsOf('overload')[0]?.reason, 'ports-exhausted');
    assert.ok(rig.eventsOf('source-port-pressure').some(({ pressure }) => pressure === 'exhausted'));
  });

  test('UdpFlow avoids ports that other processes have', async (t) => {
    const taken = await Peer.open(t, '127.0.0.1');
    const sourcePorts = portSetOf(taken.port, taken.port === 65_535 ? 65_534 : taken.port + 1);
    const { to, client, backends } = await lab(t, { pool: { sourcePorts } });
    const { text } = await client.ask('a', to);
    assert.notEqual(backends.get(backendOf(text))?.received[0]?.from.port, taken.port);
  });

  test('UdpFlow holds what comes while the local address is looked up, in order and within bounds', async (t) => {
    let found: (() => void) | undefined;
    const lookedUp = new Promise<void>((resolve) => {
      found = resolve;
    });
    let isKnown = false;
    const source = ipAddress(at(60));
    const rig = await Rig.create(t, testState({ backends: [at(11)] }), {
      routeSource: {
        known: () => (isKnown ? source : undefined),
        sourceFor: () => lookedUp.then(() => source),
      },
    });
    const { port } = await rig.open(FRONTEND);
    const backend = await echo(t, at(11), port);
    const client = await Peer.open(t, at(100));
    for (let n = 0; n < 20; n++) client.send(`${n}`, { address: FRONTEND, port });
    await eventually(() => rig.drops('send-failed') === 4, 5000, 'four drops');
    isKnown = true;
    found?.();
    const received = await backend.count(16);
    assert.deepEqual(
      received.map(({ text }) => text),
      Array.from({ length: 16 }, (_, n) => `${n}`),
    );
    assert.equal(received[0]?.from.address, source.text);
    await client.count(16);
  });
});

const placed = testState({ backends: ['10.0.0.1', { address: '10.0.0.2', valid: false }, '10.0.0.3'] });
const rule = placed.configuration.rules[0]!;
const slot = { rule, index: 0, view: placed.views[0] };
const ids = placed.views[0]!.backends.map(({ backend }) => backend.id);
const flowOn = (backendId: string | undefined) =>
  aUdpFlow(1, { rule: rule.name, backendId: backendId ?? '' });

describe('placeOfRecord()', () => {
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
