import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import {
  DatagramBudget,
  Upstream,
  UpstreamDialer,
  type DialledSocket,
  type UpstreamOwner,
} from '../../../../../src/planes/userspace/udp/upstream.js';
import type { DialTarget } from '../../../../../src/planes/userspace/source-ports.js';
import { DEAF, type DatagramSocket } from '../../../../../src/planes/userspace/sockets/datagram-socket.js';
import { DgramSockets } from '../../../../../src/planes/userspace/sockets/dgram.js';
import { ipAddress } from '../../../../../src/model/address.js';
import { eventually } from '../../../../support/deadline.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { openDescriptors, Peer } from './rig.js';

const at = loopbackBlock(4);
const sockets = new DgramSockets();

/** Bound, or the test fails. */
function bound(address: string, use: 'exclusive' | 'shared', port = 0): DatagramSocket {
  const socket = sockets.bind({ address: ipAddress(address), port, use }, DEAF);
  assert.ok(!(socket instanceof Error));
  return socket;
}

class RecordingOwner implements UpstreamOwner {
  readonly calls: string[] = [];

  onConnected(): void {
    this.calls.push('connected');
  }

  onRefused(refusal: string): void {
    this.calls.push(`refused ${refusal}`);
  }

  onReply(datagram: Buffer): void {
    this.calls.push(`reply ${datagram.toString()}`);
  }

  onUnreachable(evidence: string): void {
    this.calls.push(`unreachable ${evidence}`);
  }

  onSendFailed(): void {
    this.calls.push('send failed');
  }
}

/** Hands out the ports it is given, one after another, and remembers what came back. */
class ListedPorts {
  readonly #ports: number[];
  readonly released: number[] = [];

  constructor(...ports: readonly number[]) {
    this.#ports = [...ports];
  }

  take(): number | undefined {
    return this.#ports.shift();
  }

  claim(): boolean {
    throw new Error('No port is claimed here');
  }

  release(_request: unknown, port: number): void {
    this.released.push(port);
  }
}

/** `isKnown`: whether the local address need not be looked up. */
function dialer(sourcePorts: ListedPorts, isKnown = (): boolean => true): UpstreamDialer {
  const source = ipAddress(at(1));
  return new UpstreamDialer({
    ...{ sockets, sourcePorts },
    routeSource: {
      known: () => (isKnown() ? source : undefined),
      sourceFor: () => Promise.resolve(source),
    },
  });
}

function target(backend: { readonly address: string; readonly port: number }): DialTarget {
  const endpoint = { address: ipAddress(backend.address), port: backend.port };
  return { backendId: 'b', endpoint, pool: { sourceAddresses: [], sourcePorts: [] } };
}

async function connected(t: TestContext) {
  const backend = await Peer.open(t, at(11));
  const ports = new ListedPorts(47_001);
  const owner = new RecordingOwner();
  const upstream = new Upstream(target(backend), dialer(ports), owner);
  upstream.start();
  t.after(() => upstream.close());
  assert.deepEqual(owner.calls, ['connected']);
  return { backend, ports, owner, upstream };
}

describe('Upstream', () => {
  test('send() tells of a datagram that is too long, and stays usable', async (t) => {
    const { backend, owner, upstream } = await connected(t);
    upstream.send(Buffer.alloc(65_508));
    await eventually(() => owner.calls.at(-1) === 'send failed', 5000, 'the failure');
    upstream.send(Buffer.from('x'));
    await backend.count(1);
    assert.deepEqual(owner.calls, ['connected', 'send failed']);
  });

  test('close() gives socket and port back once, and is silent afterwards', async (t) => {
    const { ports, owner, upstream } = await connected(t);
    const before = openDescriptors();
    upstream.send(Buffer.from('x'));
    upstream.close();
    upstream.close();
    upstream.send(Buffer.from('y'));
    assert.deepEqual(ports.released, [47_001]);
    await eventually(() => openDescriptors() === before - 1, 5000, 'the socket closed');
    assert.deepEqual(owner.calls, ['connected']);
  });

  test('Upstream hears only its backend', async (t) => {
    const { backend, owner, upstream } = await connected(t);
    upstream.send(Buffer.from('x'));
    const [{ from } = assert.fail()] = await backend.count(1);
    (await Peer.open(t, at(12))).send('stranger', from);
    (await Peer.open(t, at(11))).send('other port', from);
    backend.send('friend', from);
    await eventually(() => owner.calls.length > 1, 5000, 'the reply');
    assert.deepEqual(owner.calls, ['connected', 'reply friend']);
  });

  test('Upstream throws away what a stranger sent before the socket was connected', async (t) => {
    const backend = await Peer.open(t, at(11));
    const owner = new RecordingOwner();
    const stranger = bound(at(12), 'exclusive');
    t.after(() => stranger.close());
    const upstream = new Upstream(
      target(backend),
      {
        ready: () => undefined,
        dial: ({ endpoint }): DialledSocket => {
          const socket = bound(at(1), 'shared');
          const { port } = socket;
          stranger.sendTo(Buffer.from('stranger'), at(1), port);
          const peer = socket.connect(endpoint.address, endpoint.port);
          assert.ok(peer);
          return { socket, peer, source: ipAddress(at(1)), sourcePort: port };
        },
        close: ({ socket }) => socket.close(),
      },
      owner,
    );
    t.after(() => upstream.close());
    upstream.start();
    upstream.send(Buffer.from('x'));
    const [{ from } = assert.fail()] = await backend.count(1);
    backend.send('friend', from);
    await eventually(() => owner.calls.length > 1, 5000, 'the reply');
    assert.deepEqual(owner.calls, ['connected', 'reply friend']);
  });

  test('close() while the local address is looked up leaves nothing behind', async () => {
    const ports = new ListedPorts(47_002);
    const owner = new RecordingOwner();
    let isKnown = false;
    const backend = target({ address: at(11), port: 9 });
    const upstream = new Upstream(
      backend,
      dialer(ports, () => isKnown),
      owner,
    );
    upstream.start();
    upstream.send(Buffer.from('x'));
    upstream.close();
    isKnown = true;
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(owner.calls, []);
    assert.equal(ports.take(), 47_002);
  });
});

describe('UpstreamDialer', () => {
  test('dial() tries the next port when one is taken, and gives the taken one back', async (t) => {
    const backend = await Peer.open(t, at(11));
    const taken = await Peer.open(t, at(1));
    const ports = new ListedPorts(taken.port, 47_003);
    const outcome = dialer(ports).dial(target(backend));
    assert.ok(typeof outcome !== 'string');
    assert.equal(outcome.sourcePort, 47_003);
    assert.deepEqual(ports.released, [taken.port]);
    outcome.socket.close();
  });

  test('dial() gives up after 32 taken ports', async (t) => {
    const taken = await Peer.open(t, at(1));
    const ports = new ListedPorts(...Array.from({ length: 40 }, () => taken.port));
    const before = openDescriptors();
    assert.equal(dialer(ports).dial(target({ address: at(11), port: 9 })), 'ports-exhausted');
    assert.equal(ports.released.length, 32);
    await eventually(() => openDescriptors() === before, 5000, 'sockets closed');
  });

  for (const [name, sources, outcome, released] of [
    [
      'tries the next source address when one is not of this machine',
      ['203.0.113.9', at(2)],
      at(2),
      [47_004],
    ],
    ['gives up when none is of this machine', ['203.0.113.9'], 'send-failed', [47_004]],
    ['ignores source addresses of the other family', ['::1'], at(1), []],
  ] as const) {
    test(`dial() ${name}`, async (t) => {
      const backend = await Peer.open(t, at(11));
      const ports = new ListedPorts(47_004, 47_005, 47_006);
      const pool = { sourceAddresses: sources.map(ipAddress), sourcePorts: [] };
      const dialled = dialer(ports).dial({ ...target(backend), pool });
      assert.equal(typeof dialled === 'string' ? dialled : dialled.source.text, outcome);
      assert.deepEqual(ports.released, released);
      if (typeof dialled !== 'string') dialled.socket.close();
    });
  }
});

describe('bounds', () => {
  test('bind() returns the error of the system, and binds before it returns', () => {
    const socket = bound(at(1), 'exclusive');
    const { port } = socket;
    const second = sockets.bind({ address: ipAddress(at(1)), port, use: 'shared' }, DEAF);
    assert.ok(second instanceof Error);
    assert.equal(second.code, 'EADDRINUSE');
    socket.close();
  });

  test('DatagramBudget takes no more than its limit', () => {
    const memory = new DatagramBudget(1000);
    const datagram = Buffer.alloc(300);
    assert.equal(memory.take(datagram), true);
    assert.equal(memory.take(datagram), false);
    memory.give(datagram);
    assert.equal(memory.usedBytes, 0);
    assert.equal(memory.take(datagram), true);
  });
});
