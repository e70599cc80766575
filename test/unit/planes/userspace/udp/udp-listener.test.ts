import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import { parseCidr } from '../../../../../src/model/address.js';
import { campaign } from '../../../../support/campaign.js';
import { eventually } from '../../../../support/deadline.js';
import { testState } from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { openDescriptors, Peer, Rig, udpLab } from './rig.js';

const at = loopbackBlock(2);
const FRONTEND = at(1);
const BACKENDS = [at(11), at(12), at(13)] as const;
const FLOWS = campaign({ share: 500, whole: 2000 });

describe('a UDP listener', () => {
  test('open() rejects with the system error when the port is taken', async (t) => {
    const rig = await Rig.create(t, testState({ backends: BACKENDS }));
    const other = await Peer.open(t, FRONTEND);
    await assert.rejects(rig.open(FRONTEND, other.port), { code: 'EADDRINUSE' });
    const own = await rig.open(FRONTEND);
    await assert.rejects(rig.open(FRONTEND, own.port), { code: 'EADDRINUSE' });
    await assert.rejects(rig.open('203.0.113.1'), { code: 'EADDRNOTAVAIL' });
  });

  test('UdpListener serves IPv6, from a client that has several flows', async (t) => {
    const rig = await Rig.create(t, testState({ backends: ['::1'], rule: { portOffset: 1 } }));
    const { port } = await rig.open('::1');
    await Peer.open(t, '::1', port + 1, ({ text }) => `v6:${text}`);
    const to = { address: '::1', port };
    const [one, two] = [await Peer.open(t, '::1'), await Peer.open(t, '::1')];
    for (const client of [one, two, one]) {
      const { text, from } = await client.ask('x', to);
      assert.equal(text, 'v6:x');
      assert.deepEqual([from.address, from.port], ['::1', port]);
    }
    assert.equal(rig.manager.table.size, 2);
    rig.pass(31_000);
    assert.equal(rig.manager.table.size, 0);
    assert.equal((await two.ask('y', to)).text, 'v6:y');
    assert.equal((await one.ask('z', to)).text, 'v6:z');
    assert.equal(rig.manager.table.size, 2);
  });

  test('UdpListener takes in whom the frontend admits', async (t) => {
    const frontend = { allow: [parseCidr(`${at(0)}/24`)!], deny: [parseCidr(at(101))!] };
    const { rig, to, client } = await udpLab(t, at, { frontend });
    await client.ask('in', to);
    (await Peer.open(t, at(101))).send('denied', to);
    (await Peer.open(t, '127.0.0.1')).send('not allowed', to);
    await eventually(() => rig.drops('denied') === 2, 5000, 'two refusals');
    assert.equal(rig.manager.table.size, 1);
    assert.equal(rig.arrivals(), 3);
  });

  test('close() keeps flows, refuses new ones, and gives the port back after the last flow', async (t) => {
    const { rig, listener, to, client: old } = await udpLab(t, at);
    await old.ask('a', to);
    listener.close();
    listener.close();
    const { from } = await old.ask('b', to);
    assert.equal(from.port, to.port);
    (await Peer.open(t, at(101))).send('new', to);
    await eventually(() => rig.drops('stopping') === 1, 5000, 'the refusal');
    await assert.rejects(Peer.open(t, FRONTEND, to.port), { code: 'EADDRINUSE' });
    rig.pass(31_000);
    await Peer.open(t, FRONTEND, to.port);
  });

  test('open() takes over a port that a closed listener holds for its last flows', async (t) => {
    const { rig, listener, to, client: old } = await udpLab(t, at);
    const home = (await old.ask('a', to)).text;
    listener.close();
    await rig.open(FRONTEND, to.port);
    assert.equal((await old.ask('a', to)).text, home);
    await (await Peer.open(t, at(101))).ask('new', to);
    rig.pass(31_000);
    await old.ask('still listening', to);
  });

  test('close() gives the port back at once where there are no flows', async (t) => {
    const rig = await Rig.create(t, testState({ backends: BACKENDS }));
    const listener = await rig.open(FRONTEND);
    listener.close();
    await Peer.open(t, FRONTEND, listener.port);
  });

  test('close() makes the endpoint one like any other', async (t) => {
    const { rig, to } = await udpLab(t, at);
    const other = await rig.open(at(2));
    other.close();
    const client = await Peer.open(t, at(2), other.port);
    await client.ask('a', to);
    assert.equal(rig.drops('own-listener'), 0);
  });

  test('destroy() ends the flows that are left', async (t) => {
    const { rig, listener, to, client } = await udpLab(t, at);
    await client.ask('a', to);
    const descriptors = openDescriptors();
    listener.destroy();
    assert.equal(rig.manager.table.size, 0);
    await eventually(() => openDescriptors() === descriptors - 2, 5000, 'both sockets closed');
    await Peer.open(t, FRONTEND, to.port);
  });

  test(`UdpListener leaves no socket, port or number behind after ${FLOWS} flows`, async (t) => {
    const { rig, to } = await udpLab(t, at);
    const before = openDescriptors();
    const clients: Peer[] = [];
    for (let n = 0; n < FLOWS; n++) clients.push(await Peer.open(t, at(100 + (n % 8))));
    const withClients = openDescriptors();
    for (let start = 0; start < clients.length; start += 50) {
      await Promise.all(clients.slice(start, start + 50).map((one) => one.ask('a', to)));
    }
    assert.equal(rig.manager.table.size, FLOWS);
    assert.equal(openDescriptors(), withClients + FLOWS);
    rig.pass(31_000);
    assert.equal(rig.manager.table.size, 0);
    await eventually(() => openDescriptors() === withClients, 5000, 'every upstream socket closed');
    rig.clock.advance(10_000);
    assert.deepEqual(rig.sourcePorts.uses(), []);
    for (const client of clients) client.close();
    await eventually(() => openDescriptors() === before, 5000, 'every client socket closed');
  });
});

/** What python3 needs to send a datagram from an endpoint that is not its own: source, port, destination, port. */
const SPOOF = `
import socket, struct, sys
source, sport, destination, dport = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
data = b'spoofed'
udp = struct.pack('!HHHH', sport, dport, 8 + len(data), 0) + data
ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                 socket.inet_aton(source), socket.inet_aton(destination))
raw.sendto(ip + udp, (destination, 0))
`;

const cannotSpoof =
  process.getuid?.() !== 0
    ? 'a raw socket needs root'
    : spawnSync('python3', ['--version']).error === undefined
      ? false
      : 'python3 is not installed';

describe('datagrams that must not be answered', { skip: cannotSpoof }, () => {
  const run = promisify(execFile);
  const spoof = (from: string, fromPort: number, to: string, toPort: number): Promise<unknown> =>
    run('python3', ['-c', SPOOF, from, String(fromPort), to, String(toPort)]);

  test('UdpListener drops a datagram that an own listener seems to have sent', async (t) => {
    const { rig, to } = await udpLab(t, at);
    const two = await rig.open(at(2));
    await spoof(at(2), two.port, FRONTEND, to.port);
    await spoof(FRONTEND, to.port, FRONTEND, to.port);
    await eventually(() => rig.drops('own-listener') === 2, 5000, 'two drops');
    assert.equal(rig.manager.table.size, 0);
    assert.equal(rig.arrivals(), 0);
    // The same from an endpoint of no listener is taken in, so the drops were not for the spoofing.
    await spoof(at(3), 4444, FRONTEND, to.port);
    await eventually(() => rig.manager.table.size === 1, 5000, 'a flow');
  });

  test('UdpListener drops a datagram from port 0', async (t) => {
    const { rig, to } = await udpLab(t, at);
    await spoof(at(100), 0, FRONTEND, to.port);
    await eventually(() => rig.drops('send-failed') === 1, 5000, 'the drop');
    assert.equal(rig.manager.table.size, 0);
  });
});
