import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import { parsePortSet } from '../../src/model/ports.js';
import { captureSetup } from '../../src/planes/capture/table.js';
import type { KernelSetup } from '../../src/planes/netfilter/setup.js';
import { Reconciler } from '../../src/planes/netfilter/reconciler.js';
import { flushInstance } from '../../src/planes/netfilter/nft.js';
import { eventually } from '../support/deadline.js';
import { FakeClock } from '../support/fake-clock.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import type { Flow, Traffic } from '../support/traffic.js';

const FRONTENDS = { 4: '10.77.0.9', 6: 'fd77::9' };

describe('captureSetup(), in the kernel', { skip: whyNoNamespaces() }, () => {
  const { box, far } = useLab({
    box: { links: { far: ['10.77.0.1/24', '10.77.0.9/24', 'fd77::1/64', 'fd77::9/64'] } },
    far: {
      links: { box: ['10.77.0.2/24', 'fd77::2/64'] },
      // The far side tries to get at the private addresses past the frontend.
      ip: ['-4 route add 240.0.0.0/4 via 10.77.0.1', '-6 route add fd68:6170:6f72:7473::/64 via fd77::1'],
    },
  }).hosts;
  const { tools } = box;
  const clients = new Map<string, Traffic>();
  let reconciler: Reconciler;
  let setup: KernelSetup;

  before(async () => {
    const block = parseCidr('240.0.0.0/4');
    const ports = parsePortSet('1-21,23-9999,61000,65535') ?? [];
    assert.ok(block);
    setup = captureSetup({
      instance: 'haports',
      plan: { udp: 'redirect', port: 61000, block },
      workers: 2,
      frontends: ([4, 6] as const).map((family) => ({
        name: 'hub',
        address: ipAddress(FRONTENDS[family]),
        ports: { tcp: ports, udp: ports },
        slot: 9,
      })),
      udpEntrySeconds: 90,
    });
    const deps = { clock: new FakeClock(), tools, onChange: () => undefined };
    reconciler = new Reconciler(deps, { instance: 'haports' });
    await reconciler.want([{ setup: setup }]);
    const addresses = ['240.9.0.0', 'fd68:6170:6f72:7473:9::'];
    const server = await box.serve({ ports: [22, 61000], protocols: ['tcp'] });
    await server.serve({ addresses, ports: [61000, 61001], protocols: ['udp'] });
    clients.set('box', box.traffic()).set('far', far.traffic());
  });

  /** The address and port that it was accepted at, or the error. */
  async function ask(
    from: 'box' | 'far',
    protocol: Flow['protocol'],
    host: string,
    port: number,
  ): Promise<string> {
    const [answer] = await clients.get(from)!.ask([{ protocol, host, port }]);
    return answer?.address === undefined ? answer!.by : `${answer.address} ${answer.port}`;
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

    test(`UDP from ${from === 'far' ? 'another' : 'this'} machine arrives at a socket of the frontend, answers come from its port: the client takes no others`, async () => {
      const answer4 = await ask(from, 'udp', FRONTENDS[4], 53);
      assert.match(answer4, /^240\.9\.0\.0 6100[01]$/);
      assert.match(await ask(from, 'udp', FRONTENDS[6], 5060), /^fd68.*:9:: 6100[01]$/);
      assert.equal(await ask(from, 'udp', FRONTENDS[4], 54), answer4);
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
    const [entry = ''] = (await box.must('conntrack -L -p udp --orig-port-dst 7777')).split('\n');
    const seconds = Number(/^udp\s+17 (\d+)/.exec(entry)?.[1]);
    assert.ok(seconds > 60 && seconds <= 90, entry);
  });

  test('a client that never stops sending is captured when the table comes back', async () => {
    await reconciler.remove();
    // Without somebody who asks for it, conntrack knows no flows.
    await box.nft(
      'table inet others { chain c { type filter hook input priority 0; ct state established accept; }; }',
    );
    const flow = { protocol: 'udp', host: FRONTENDS[4], port: 9999 } as const;
    const client = far.traffic();
    const again = async (): Promise<string> => (await client.again({ timeoutMs: 250 }))[0]!.by;
    const [first] = await client.open([flow], { timeoutMs: 250 });
    assert.notEqual(first?.port, 61000);
    try {
      await eventually(
        async () => {
          assert.notEqual(await again(), '240.9.0.0');
          return (await box.must('conntrack -L -p udp --orig-port-dst 9999')).includes('src=10.77.0.9');
        },
        5000,
        'a flow that is not steered',
      );
      await reconciler.want([{ setup: setup }]);
      await eventually(async () => (await again()) === '240.9.0.0', 5000, 'an answer of a captured flow');
    } finally {
      client.kill();
      await box.nft('delete table inet others');
    }
  });

  test('nothing is captured once an instance is flushed, flows that began before included', async () => {
    const listed = (family: 4 | 6) => box.must(`conntrack -L -f ipv${family} -p udp --reply-port-src 61000`);
    await ask('far', 'udp', FRONTENDS[6], 53);
    assert.match(await listed(4), /src=240\.9\.0\.0/);
    await reconciler.release();
    await flushInstance(tools, 'haports');
    assert.equal(await listed(4), '');
    assert.equal(await listed(6), '');
    assert.equal(await ask('far', 'tcp', FRONTENDS[4], 443), 'ECONNREFUSED');
    assert.equal(await ask('far', 'udp', FRONTENDS[4], 53), 'ECONNREFUSED');
  });
});
