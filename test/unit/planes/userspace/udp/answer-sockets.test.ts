import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { CapturedFrontends } from '../../../../../src/planes/userspace/captured-ports.js';
import { UdpListenerRegistry } from '../../../../../src/planes/userspace/udp/listener.js';
import { ipAddress, parseCidr } from '../../../../../src/model/address.js';
import type { FlowOrigin, OriginFeed, OriginFollower } from '../../../../../src/model/flow.js';
import { createHasher } from '../../../../../src/selection/flow-hash.js';
import { Picker } from '../../../../../src/selection/picker.js';
import { DgramSockets } from '../../../../../src/planes/userspace/sockets/dgram.js';
import { RulePorts } from '../../../../../src/selection/rule-ports.js';
import { eventually } from '../../../../support/deadline.js';
import { testState } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { openDescriptors, Peer, Rig } from './rig.js';

const at = loopbackBlock(8);
const FRONTEND = at(1);
/** Stands for the frontend's captured socket. */
const PRIVATE = at(2);
const BACKEND = at(11);
const ASKED = 6900;
const ANSWERING = 6901;

const STATE = testState({
  backends: [BACKEND],
  frontend: { address: ipAddress(FRONTEND) },
  rule: { distribution: 'source-ip', udp: { perPacket: false, answersFrom: 'address' } },
});

/** A kernel that redirected what `client` sends, as if it had been sent to the frontend. */
class Redirected implements OriginFeed {
  readonly #origins: FlowOrigin[] = [];
  readonly #followers = new Set<OriginFollower>();

  add(client: Peer): void {
    const origin: FlowOrigin = {
      id: this.#origins.length + 1,
      receiver: PRIVATE,
      seenAddress: client.address,
      seenPort: client.port,
      source: client.address,
      sourcePort: client.port,
      destination: FRONTEND,
      destinationPort: ASKED,
      remainingMs: 90_000,
    };
    this.#origins.push(origin);
    for (const follower of this.#followers) follower.onNew(origin);
  }

  follow(_port: number, follower: OriginFollower): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  list(): Promise<readonly FlowOrigin[]> {
    return Promise.resolve([...this.#origins]);
  }
}

/** One captured socket, one backend that has got a client's request, and a second port of that backend. */
async function lab(t: TestContext) {
  const rig = await Rig.create(t, STATE);
  const kernel = new Redirected();
  const factory = new UdpListenerRegistry({
    manager: rig.manager,
    sockets: new DgramSockets(),
    picker: new Picker(await createHasher()),
    sourcePorts: rig.sourcePorts,
    routeSource: rig.routeSource,
    origins: kernel,
  });
  const block = parseCidr('240.0.0.0/4');
  const slots = rig.manager.slotsFor(STATE.configuration);
  const [slot] = slots;
  assert.ok(block && slot);
  const plan = { udp: 'redirect', port: 61_000, block } as const;
  const rulePorts = new RulePorts(STATE.configuration.rules);
  const frontends = new CapturedFrontends(STATE.configuration, { slots, rulePorts }, 'udp', plan);
  const ports = frontends.of(FRONTEND);
  assert.ok(ports);
  const listener = await factory.open(
    { protocol: 'udp', address: ipAddress(PRIVATE), port: 0, slot, captured: { protocol: 'udp', ports } },
    { handle: undefined, flows: [] },
  );
  listener.serve();
  t.after(() => {
    // As a plane that stops does: these sockets go with their flows.
    for (const flow of [...rig.manager.table.all()]) rig.manager.end(flow, 'shutdown', 'close');
    listener.destroy();
  });
  const backend = await Peer.open(t, BACKEND, ASKED);
  const answering = await Peer.open(t, BACKEND, ANSWERING);
  const client = await Peer.open(t, at(100));
  const captured = { address: PRIVATE, port: listener.binding.port };
  kernel.add(client);
  client.send('read', captured);
  await eventually(() => backend.received.length === 1, 5000, 'the request');
  const { from } = backend.received[0] ?? assert.fail('nothing received');
  return { rig, kernel, captured, backend, answering, client, from };
}

describe('answers from captured ports', () => {
  test('answer sockets: opens the port for a flow that a backend begins', async (t) => {
    const { rig, client, answering, from } = await lab(t);
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
    const { rig, kernel, captured, client, backend, answering, from } = await lab(t);
    answering.send('for one', from);
    await client.count(1);
    const other = await Peer.open(t, at(101));
    kernel.add(other);
    other.send('read', captured);
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
    const { rig, client, backend, answering, captured, from } = await lab(t);
    const before = openDescriptors();
    answering.send('block 1', from);
    await client.count(1);
    assert.equal(openDescriptors(), before + 2);
    rig.clock.advance(20_000);
    client.send('more', captured);
    await backend.count(2);
    rig.clock.advance(11_000);
    rig.manager.tick();
    assert.equal(rig.manager.table.size, 1);
    await eventually(() => openDescriptors() === before, 5000, 'the sockets to close');
    answering.send('again', from);
    assert.equal((await client.count(2))[1]?.from.port, ANSWERING);
  });

  test('answer sockets: leaves a port alone that another process has', async (t) => {
    const { rig, answering, from } = await lab(t);
    const service = await Peer.open(t, FRONTEND, ANSWERING);
    answering.send('block 1', from);
    await eventually(() => rig.drops('unexpected-reply') === 1, 5000, 'the drop');
    assert.equal(service.received.length, 0);
    assert.equal(rig.manager.table.size, 1);
  });
});
