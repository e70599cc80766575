import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { ipAddress } from '../../../../../src/model/address.js';
import type { ForwardingState } from '../../../../../src/model/forwarding.js';
import { portSetOf } from '../../../../../src/model/ports.js';
import { eventually } from '../../../../support/deadline.js';
import { placeOfRecord } from '../../../../../src/planes/userspace/udp/flow.js';
import { AZURE_POLICY, testState, type TestStateParts } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { aUdpFlow } from '../../hand-over-fixtures.js';
import { echo, Peer, Rig, udpLab, type UdpLab } from './rig.js';

const at = loopbackBlock(1);
const FRONTEND = at(1);
const BACKENDS = [at(11), at(12), at(13)] as const;

const lab = (t: TestContext, parts?: Partial<TestStateParts>, running?: readonly string[]): Promise<UdpLab> =>
  udpLab(t, at, parts, running && { running: [...running] });

/** Down by probe: not eligible, not valid. */
function down(address: string): TestStateParts['backends'][number] {
  return { address, valid: false };
}

function without(gone: string, parts: Partial<TestStateParts> = {}): ForwardingState {
  return testState({
    backends: BACKENDS.map((one) => (one === gone ? down(one) : one)),
    revision: 2,
    ...parts,
  });
}

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

  test('UdpFlow keeps its backend while states come that leave it valid', async (t) => {
    const { rig, to, client } = await lab(t);
    const address = backendOf((await client.ask('a', to)).text);
    // No new flow is placed there any more, yet it may keep what it has.
    const drained = BACKENDS.map((one) => (one === address ? { address: one, eligible: false } : one));
    rig.apply(testState({ backends: drained, revision: 2 }));
    assert.equal(backendOf((await client.ask('b', to)).text), address);
    rig.apply(testState({ backends: drained, revision: 3, digest: 'b' }));
    assert.equal(backendOf((await client.ask('c', to)).text), address);
    assert.deepEqual(rig.eventsOf('flow-moved'), []);
  });

  test('UdpFlow moves with the next datagram of a steady client when its backend goes down', async (t) => {
    const { rig, to, client, backends } = await lab(t);
    const address = backendOf((await client.ask('a', to)).text);
    rig.apply(without(address));
    const { text, from } = await client.ask('b', to);
    assert.notEqual(backendOf(text), address);
    assert.deepEqual([from.address, from.port], [to.address, to.port]);
    assert.equal(backends.get(address)?.received.length, 1);
    const [moved] = rig.eventsOf('flow-moved');
    assert.equal(moved?.fromBackendId, `nvas/${address}`);
    assert.equal(moved.flow.reason, 'rebalanced');
    assert.equal(moved.flow.epoch, 2);
    assert.equal(rig.manager.table.size, 1);
  });

  test('UdpFlow ends with its removed backend where policy says reset, and the next datagram starts anew', async (t) => {
    const flowPolicy = { ...AZURE_POLICY, removed: { tcp: 'reset', udp: 'reset' } } as const;
    const { rig, to, client } = await lab(t, { rule: { flowPolicy } });
    const address = backendOf((await client.ask('a', to)).text);
    const rest = BACKENDS.filter((one) => one !== address);
    rig.apply(testState({ backends: rest, revision: 2, digest: 'b', rule: { flowPolicy } }));
    assert.equal(rig.manager.table.size, 0);
    assert.equal(rig.eventsOf('flow-ended')[0]?.end, 'removed');
    assert.notEqual(backendOf((await client.ask('b', to)).text), address);
    assert.equal(rig.arrivals(), 2);
  });

  test('UdpFlow keeps its socket when it would only move to where it is', async (t) => {
    const { rig, to, client, backends } = await lab(t);
    const address = backendOf((await client.ask('a', to)).text);
    rig.apply(without(address));
    rig.apply(testState({ backends: BACKENDS, revision: 3 }));
    assert.equal(backendOf((await client.ask('b', to)).text), address);
    const ports = backends.get(address)?.received.map(({ from }) => from.port) ?? [];
    assert.equal(ports.length, 2);
    assert.equal(ports[0], ports[1]);
  });

  test('UdpFlow carries replies of its backend after that went down, until the client speaks', async (t) => {
    const { rig, to, client, backends } = await lab(t);
    const address = backendOf((await client.ask('a', to)).text);
    const backend = backends.get(address);
    assert.ok(backend?.received[0]);
    const { from } = backend.received[0];
    rig.apply(without(address));
    backend.send('late', from);
    assert.equal((await client.count(2))[1]?.text, 'late');
  });

  test('UdpFlow ends when no backend is left, and leaves nothing that would stick', async (t) => {
    const { rig, to, client } = await lab(t);
    await client.ask('a', to);
    rig.apply(testState({ backends: BACKENDS.map(down), revision: 2 }));
    client.send('lost', to);
    await eventually(() => rig.drops('no-backend') === 1, 5000, 'the drop');
    assert.equal(rig.manager.table.size, 0);
    assert.equal(rig.eventsOf('flow-ended')[0]?.end, 'no-backend');
    client.send('lost too', to);
    await eventually(() => rig.drops('no-backend') === 2, 5000, 'the second drop');
    rig.apply(testState({ backends: BACKENDS, revision: 3 }));
    assert.match((await client.ask('back', to)).text, /:back$/);
  });

  test('UdpFlow goes nowhere once policy has blackholed it', async (t) => {
    const flowPolicy = { ...AZURE_POLICY, 'probe-down': { tcp: 'persist', udp: 'drop' } } as const;
    const { rig, to, client } = await lab(t, { rule: { flowPolicy } });
    const address = backendOf((await client.ask('a', to)).text);
    rig.apply(without(address, { rule: { flowPolicy } }));
    client.send('b', to);
    await eventually(() => rig.drops('blackholed') === 1, 5000, 'the drop');
    // Idle time ends it, as seen from the client's last datagram.
    rig.pass(29_000);
    assert.equal(rig.manager.table.size, 1);
    rig.pass(2000);
    assert.equal(rig.manager.table.size, 0);
    assert.match((await client.ask('c', to)).text, /:c$/);
  });

  test('UdpFlow ends idle after its time, and not before', async (t) => {
    const { rig, to, client } = await lab(t);
    await client.ask('a', to);
    rig.pass(29_999);
    await client.ask('b', to);
    rig.pass(29_999);
    assert.equal(rig.manager.table.size, 1);
    rig.pass(1000);
    assert.equal(rig.manager.table.size, 0);
    assert.equal(rig.eventsOf('flow-ended')[0]?.end, 'idle');
  });
});

describe('idle time', () => {
  for (const who of ['client', 'backend'] as const) {
    test(`UdpFlow is kept by what the ${who} sends`, async (t) => {
      const { rig, to, client } = await lab(t, { backends: [at(11)] }, []);
      const backend = await Peer.open(t, at(11), to.port);
      client.send('subscribe', to);
      const [request] = await backend.count(1);
      assert.ok(request);
      for (let n = 1; n <= 4; n++) {
        if (who === 'client') client.send('a', to);
        else backend.send('news', request.from);
        await (who === 'client' ? backend.count(n + 1) : client.count(n));
        rig.pass(20_000);
      }
      assert.deepEqual([rig.arrivals(), rig.manager.table.size], [1, 1]);
    });
  }
});

describe('a UDP flow whose backend refuses', () => {
  test('UdpFlow forgets failures with the first reply', async (t) => {
    const pair = [at(11), at(12)] as const;
    const { rig, to, client } = await lab(t, { backends: pair }, []);
    client.send('a', to);
    await eventually(() => rig.eventsOf('passive-failure').length === 2, 5000, 'both refused');
    const second = rig.flows()[0]?.backendId?.slice('nvas/'.length) ?? '';
    const first = pair.find((address) => address !== second);
    assert.ok(first);
    const revived = await echo(t, second, to.port);
    assert.equal(backendOf((await client.ask('b', to)).text), second);
    await echo(t, first, to.port);
    revived.close();
    client.send('lost', to);
    await eventually(() => rig.eventsOf('passive-failure').length === 3, 5000, 'refused again');
    assert.equal(backendOf((await client.ask('c', to)).text), first);
  });

  test('UdpFlow takes its first datagram to another backend when ICMP says that nothing listens', async (t) => {
    for (const alive of BACKENDS) {
      const { rig, to, client } = await lab(t, {}, [alive]);
      const { text } = await client.ask('first', to);
      assert.equal(text, `${alive}:first`);
      const failures = rig.eventsOf('passive-failure');
      assert.ok(failures.length <= 2);
      for (const { evidence, backendId } of failures) {
        assert.equal(evidence, 'ICMP unreachable');
        assert.notEqual(backendId, `nvas/${alive}`);
      }
      const [flow] = rig.manager.table.all();
      assert.ok(flow?.placement);
      assert.equal(flow.placement.reason, failures.length === 0 ? 'hash' : 'retry');
      assert.deepEqual(
        [...flow.placement.excluded].sort(),
        failures.map(({ backendId }) => backendId).sort(),
      );
      rig.close();
    }
  });

  test('UdpFlow moves when a backend that has answered before closes its port', async (t) => {
    const { rig, to, client, backends } = await lab(t);
    const address = backendOf((await client.ask('a', to)).text);
    backends.get(address)?.close();
    client.send('into the void', to);
    await eventually(() => rig.eventsOf('passive-failure').length === 1, 5000, 'the passive failure');
    assert.notEqual(backendOf((await client.ask('b', to)).text), address);
    assert.equal(rig.manager.traffic.of('ha-ports', `nvas/${address}`, 'udp').connectRetries, 1);
    assert.equal(rig.manager.traffic.of('ha-ports', `nvas/${address}`, 'udp').flowsActive, 0);
  });

  test('UdpFlow tries each backend once a second when all refuse, and finds the one that comes back', async (t) => {
    const { rig, to, client } = await lab(t, {}, []);
    for (let n = 0; n < 20; n++) {
      client.send(`${n}`, to);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await eventually(() => rig.eventsOf('passive-failure').length >= 3, 5000, 'three failures');
    assert.equal(rig.eventsOf('passive-failure').length, 3);
    assert.equal(rig.manager.table.size, 1);
    const back = BACKENDS.find((address) => rig.flows()[0]?.backendId !== `nvas/${address}`);
    assert.ok(back);
    const backend = await echo(t, back, to.port);
    client.send('too early', to);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(backend.received.length, 0);
    rig.clock.advance(1000);
    const { text } = await client.ask('again', to);
    assert.equal(text, `${back}:again`);
  });

  test('UdpFlow stays with a pool of one that refuses, and continues when it is back', async (t) => {
    const { rig, to, client } = await lab(t, { backends: [at(11)] }, []);
    client.send('a', to);
    await eventually(() => rig.eventsOf('passive-failure').length === 1, 5000, 'the passive failure');
    await echo(t, at(11), to.port);
    assert.equal((await client.ask('b', to)).text, `${at(11)}:b`);
    assert.equal(rig.manager.table.size, 1);
  });

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

describe('expected responses', () => {
  test('UdpFlow ends when the expected responses to all requests have come', async (t) => {
    const rule = { udp: { perPacket: false, expectedResponses: 2 } };
    const { rig, to, client } = await lab(t, { backends: [at(11)], rule }, []);
    const backend = await Peer.open(t, at(11), to.port);
    client.send('1', to);
    client.send('2', to);
    const [request] = await backend.count(2);
    assert.ok(request);
    for (let n = 1; n <= 3; n++) backend.send(`r${n}`, request.from);
    await client.count(3);
    assert.equal(rig.manager.table.size, 1);
    backend.send('r4', request.from);
    await client.count(4);
    await eventually(() => rig.manager.table.size === 0, 5000, 'the end');
    assert.equal(rig.eventsOf('flow-ended')[0]?.end, 'responses-complete');
    client.send('3', to);
    await backend.count(3);
    assert.equal(rig.arrivals(), 2);
  });

  test('UdpFlow does not carry replies where none are expected', async (t) => {
    const { rig, to, client } = await lab(t, { rule: { udp: { perPacket: false, expectedResponses: 0 } } });
    client.send('a', to);
    await eventually(() => rig.drops('unexpected-reply') === 1, 5000, 'the drop');
    assert.equal(rig.manager.table.size, 1);
    assert.equal(client.received.length, 0);
  });
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
