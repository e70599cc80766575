import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import { parsePortSet } from '../../src/model/ports.js';
import { captureSetup } from '../../src/planes/capture/table.js';
import { flushInstance } from '../../src/planes/netfilter/nft.js';
import { type KernelSetup } from '../../src/planes/netfilter/setup.js';
import { Reconciler } from '../../src/planes/netfilter/reconciler.js';
import { systemTools } from '../../src/planes/netfilter/tools.js';
import { eventually, within } from '../support/deadline.js';
import { FakeClock } from '../support/fake-clock.js';
import { NamespaceLab, whyNoNamespaces } from '../support/namespaces.js';

const skip = whyNoNamespaces();
const FRONTENDS = { 4: '10.77.0.9', 6: 'fd77::9' };

/** Answers a TCP connection with the address and port it was accepted at, a datagram with the socket it came to. */
const SERVER = `
const net = require('node:net'), dgram = require('node:dgram');
const told = (s) => s.end(s.localAddress.replace('::ffff:', '') + ' ' + s.localPort);
const sockets = [['udp4', '240.9.0.0'], ['udp6', 'fd68:6170:6f72:7473:9::']].flatMap(([type, address]) =>
  [61000, 61001].map((port) => new Promise((resolve) => {
    const socket = dgram.createSocket(type);
    socket.on('message', (_, from) => socket.send(address + ' ' + port, from.port, from.address));
    socket.bind(port, address, resolve);
  })));
const listen = (port) => new Promise((resolve) => net.createServer(told).listen(port, '::', resolve));
Promise.all([...sockets, listen(61000), listen(22)]).then(() => console.log('ready'));
`;

/** argv: tcp or udp, address, port, local port. Prints the answer, or the error code. */
const CLIENT = `
const net = require('node:net'), dgram = require('node:dgram');
const [protocol, host, port] = process.argv.slice(1);
const say = (text) => { console.log(String(text)); process.exit(); };
setTimeout(say, 3000, 'no answer');
if (protocol === 'tcp') {
  net.connect(Number(port), host).on('data', say).on('error', (error) => say(error.code));
} else {
  const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (text, from) => say(text + ' from ' + from.address + ' ' + from.port));
  socket.on('error', (error) => say(error.code));
  socket.connect(Number(port), host, () => socket.send('x'));
}
`;

describe('captureSetup(), in the kernel', { skip }, () => {
  let lab: NamespaceLab;
  let reconciler: Reconciler;
  let server: ChildProcess;
  let setup: KernelSetup;

  before(async () => {
    lab = await NamespaceLab.create('box', 'far');
    await lab.link(
      { in: 'box', addresses: ['10.77.0.1/24', '10.77.0.9/24', 'fd77::1/64', 'fd77::9/64'] },
      { in: 'far', addresses: ['10.77.0.2/24', 'fd77::2/64'] },
    );
    // The far side tries to get at the private addresses past the frontend.
    await lab.ip('far', '-4 route add 240.0.0.0/4 via 10.77.0.1');
    await lab.ip('far', '-6 route add fd68:6170:6f72:7473::/64 via fd77::1');
    const block = parseCidr('240.0.0.0/4');
    const ports = parsePortSet('1-21,23-65535') ?? [];
    assert.ok(block);
    setup = captureSetup({
      instance: 'haports',
      plan: { udp: 'redirect', port: 61000, block },
      workers: 2,
      frontends: ([4, 6] as const).map((family) => ({
        name: 'hub',
        address: ipAddress(FRONTENDS[family]),
        tcpPorts: ports,
        udpPorts: ports,
        slot: 9,
      })),
      udpEntrySeconds: 90,
    });
    const tools = systemTools({ namespace: lab.full('box') });
    reconciler = new Reconciler(
      { clock: new FakeClock(), tools, onChange: () => undefined },
      { instance: 'haports' },
    );
    await reconciler.want([{ setup: setup }]);
    server = lab.spawn('box', process.execPath, ['-e', SERVER], { stdio: ['ignore', 'pipe', 'inherit'] });
    assert.ok(server.stdout);
    await within(once(server.stdout, 'data'), 10_000, 'the server to listen');
  });
  after(() => lab.close());

  async function ask(
    from: 'box' | 'far',
    protocol: 'tcp' | 'udp',
    address: string,
    port: number,
  ): Promise<string> {
    const args = ['-e', CLIENT, protocol, address, String(port)];
    return (await lab.must(from, process.execPath, args, { timeoutMs: 10_000 })).trim();
  }

  for (const from of ['box', 'far'] as const) {
    test(`TCP from ${from === 'far' ? 'another' : 'this'} machine arrives at the address that stands for its port`, async () => {
      const answers = await Promise.all([
        ask(from, 'tcp', FRONTENDS[4], 443),
        ask(from, 'tcp', FRONTENDS[4], 61000),
        ask(from, 'tcp', FRONTENDS[6], 65535),
      ]);
      assert.deepEqual(answers, [
        '240.9.1.187 61000',
        '240.9.238.72 61000',
        'fd68:6170:6f72:7473:9::ffff 61000',
      ]);
    });

    test(`UDP from ${from === 'far' ? 'another' : 'this'} machine arrives at a socket of the frontend, answers come from its port`, async () => {
      const answer4 = await ask(from, 'udp', FRONTENDS[4], 53);
      assert.match(answer4, /^240\.9\.0\.0 6100[01] from 10\.77\.0\.9 53$/);
      assert.match(await ask(from, 'udp', FRONTENDS[6], 5060), /^fd68.*:9:: 6100[01] from fd77::9 5060$/);
      assert.equal((await ask(from, 'udp', FRONTENDS[4], 54)).split(' from')[0], answer4.split(' from')[0]);
    });
  }

  test("a port that is not captured is the machine's own", async () => {
    assert.equal(await ask('far', 'tcp', FRONTENDS[4], 22), '10.77.0.9 22');
    assert.equal(await ask('far', 'tcp', '10.77.0.1', 22), '10.77.0.1 22', 'and so are other addresses');
  });

  test('private ports and addresses are not reached directly', async () => {
    assert.equal(await ask('far', 'tcp', '10.77.0.1', 61000), 'ECONNREFUSED');
    assert.equal(await ask('far', 'tcp', 'fd77::1', 61000), 'ECONNREFUSED');
    assert.notEqual(
      await ask('far', 'tcp', 'fd68:6170:6f72:7473:9::1', 61000),
      'fd68:6170:6f72:7473:9::1 61000',
    );
    assert.equal(await ask('far', 'tcp', '240.9.0.80', 22), 'ECONNREFUSED');
    assert.equal(await ask('far', 'udp', '240.9.0.0', 61000), 'ECONNREFUSED');
    assert.equal(await ask('far', 'udp', 'fd68:6170:6f72:7473:9::', 61000), 'ECONNREFUSED');
  });

  test('conntrack keeps a captured UDP flow for the seconds told', async () => {
    await ask('far', 'udp', FRONTENDS[4], 7777);
    const [entry = ''] = (
      await lab.must('box', 'conntrack', ['-L', '-p', 'udp', '--orig-port-dst', '7777'])
    ).split('\n');
    const seconds = Number(/^udp\s+17 (\d+)/.exec(entry)?.[1]);
    assert.ok(seconds > 60 && seconds <= 90, entry);
  });

  test('a client that never stops sending is captured when the table comes back', async () => {
    const sender = `
      const socket = require('node:dgram').createSocket('udp4');
      socket.on('message', (text) => console.log(String(text)));
      socket.on('error', () => undefined);
      setInterval(() => socket.send('x', 9999, '${FRONTENDS[4]}'), 250);`;
    await reconciler.remove();
    // Without somebody who asks for it, conntrack knows no flows.
    const others =
      'table inet others { chain c { type filter hook input priority 0; ct state established accept; }; }';
    await lab.nft('box', others);
    const client = lab.spawn('far', process.execPath, ['-e', sender], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      let heard = '';
      client.stdout?.on('data', (chunk: Buffer) => (heard += chunk.toString()));
      const listed = ['-L', '-p', 'udp', '--orig-port-dst', '9999'];
      await eventually(
        async () => (await lab.must('box', 'conntrack', listed)).includes('src=10.77.0.9'),
        5000,
        'a flow that is not steered',
      );
      assert.equal(heard, '');
      await reconciler.want([{ setup: setup }]);
      await eventually(() => heard.startsWith('240.9.0.0 '), 5000, 'an answer of a captured flow');
    } finally {
      client.kill();
      await lab.must('box', 'nft', ['delete', 'table', 'inet', 'others']);
    }
  });

  test('nothing is captured once an instance is flushed, flows that began before included', async () => {
    const listed = ['-L', '-p', 'udp', '--reply-port-src', '61000'];
    const listed6 = ['-f', 'ipv6', ...listed];
    await ask('far', 'udp', FRONTENDS[6], 53);
    assert.match(await lab.must('box', 'conntrack', listed), /src=240\.9\.0\.0/);
    await reconciler.release();
    await flushInstance(systemTools({ namespace: lab.full('box') }), 'haports');
    assert.equal(await lab.must('box', 'conntrack', listed), '');
    assert.equal(await lab.must('box', 'conntrack', listed6), '');
    assert.equal(await ask('far', 'tcp', FRONTENDS[4], 443), 'ECONNREFUSED');
    assert.equal(await ask('far', 'udp', FRONTENDS[4], 53), 'ECONNREFUSED');
  });
});
