import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { useHub } from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import type { Conditions } from '../support/state-factory.js';
import { FAMILIES, FRONTEND, FRONTENDS, HUB, type Family } from '../support/topologies.js';
import { names, type Flow, type Traffic } from '../support/traffic.js';

const SPARE = { 4: FRONTENDS[4][1], 6: FRONTENDS[6][1] } as const;
const ALL_DOWN = { health: { b1: 'down', b2: 'down', b3: 'down' } } as const;
const ALL = { name: 'all', haPorts: true };
const PLAIN_WEB = { name: 'web', protocol: 'tcp', frontendPort: 443, backendPort: 443 };

describe('mode nat follows rules', { skip: whyNoNamespaces('ping') }, () => {
  const kernel = useHub('nat');
  const { client: clientHost, lb } = kernel.lab.hosts;
  let client: Traffic;
  let nextPort = 20_000;
  before(async () => {
    client = clientHost.traffic();
    // A server of the balancer's own, on all its addresses.
    await lb.serve({ name: 'own', ports: [22], protocols: ['tcp'] });
  });

  /** Rules of pool `v`, all three backends, and `web`, b3 alone. */
  async function load(
    rules: readonly object[],
    given: Conditions & { family?: Family; frontends?: object[] } = {},
  ) {
    const { family = 4, frontends, ...conditions } = given;
    const backends = Object.entries(HUB.backends).map(([name, of]) => ({ name, address: of[family] }));
    const top = {
      frontends: frontends ?? [{ name: 'hub', address: FRONTEND[family] }],
      backendPools: [
        { name: 'v', backends },
        { name: 'web', backends: backends.slice(2) },
      ],
      rules: rules.map((rule) => ({ frontend: 'hub', backendPool: 'v', probe: 'alive', ...rule })),
    };
    await kernel.load({ probe: { protocol: 'tcp', port: 80 }, top }, conditions);
    await kernel.forget();
  }

  /** A backend and the port it was asked on, or the error. */
  async function ask(
    protocol: Flow['protocol'],
    host: string,
    port: number,
    source?: string,
    timeoutMs = 5000,
  ) {
    const flow = {
      protocol,
      host,
      port,
      sourcePort: nextPort++,
      ...(source === undefined ? {} : { source }),
    };
    const [answer] = await client.ask([flow], { timeoutMs });
    return answer?.port === undefined ? answer?.by : `${answer.by} ${answer.port}`;
  }

  /** The one flow that the client has open then. */
  async function held(): Promise<{ readonly sourcePort: number }> {
    await client.close();
    const sourcePort = nextPort++;
    await client.open([{ protocol: 'tcp', host: FRONTEND[4], port: 443, sourcePort }]);
    return { sourcePort };
  }

  /** The kernel sends a client so many ICMP errors a second: a datagram may have to be sent again. */
  async function assertUnreachable(host: string, port: number): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const answer = await ask('udp', host, port, undefined, 500);
      if (answer === 'ECONNREFUSED') return;
      assert.ok(answer === 'timeout' && attempt < 5, answer);
    }
  }

  for (const family of FAMILIES) {
    const host = FRONTEND[family];

    test(`IPv${family}: ports are mapped, ranges by their offset, and a rule that names a port goes first`, async () => {
      const toWeb = { backendPool: 'web' };
      const range = { ...toWeb, name: 'range', protocol: 'all', frontendPort: '180-181', backendPort: 8080 };
      const web = { ...toWeb, name: 'web', protocol: 'tcp', frontendPort: 9000, backendPort: 8443 };
      await load([ALL, web, range], { family });
      assert.equal(await ask('tcp', host, 9000), 'b3 8443');
      assert.equal(await ask('tcp', host, 180), 'b3 8080');
      assert.equal(await ask('udp', host, 181), 'b3 8081');
      assert.match((await ask('tcp', host, 443))!, /^b[123] 443$/);
      assert.match((await ask('udp', host, 50_000))!, /^b[123] 50000$/);
      await assertUnreachable(host, 9000);
    });

    test(`IPv${family}: ports that no rule has are refused at once, and never routed in a loop`, async () => {
      const frontends = [host, SPARE[family]].map((address, index) => ({
        name: index ? 'spare' : 'hub',
        address,
      }));
      await load([PLAIN_WEB], { family, frontends });
      for (const address of [host, SPARE[family]]) {
        assert.equal(await ask('tcp', address, 80), 'ECONNREFUSED');
        await assertUnreachable(address, 443);
        const { stdout } = await clientHost.run(`ping -c 1 -W 1 ${address}`);
        assert.doesNotMatch(stdout, /exceeded/i);
      }
      assert.match((await ask('tcp', host, 443))!, /^b[123] 443$/);
      assert.equal(await ask('tcp', SPARE[family], 443), 'ECONNREFUSED');
    });

    test(`IPv${family}: with all down, reset refuses, drop is silent, fail-open goes on`, async () => {
      const both = async (timeoutMs?: number) => [
        await ask('tcp', host, 443, undefined, timeoutMs),
        await ask('udp', host, 443, undefined, timeoutMs),
      ];
      await load([{ ...ALL, allDown: 'reset' }], { family, ...ALL_DOWN });
      assert.equal(await ask('tcp', host, 443), 'ECONNREFUSED');
      await assertUnreachable(host, 443);
      await load([{ ...ALL, allDown: 'drop' }], { family, ...ALL_DOWN });
      assert.deepEqual(await both(700), ['timeout', 'timeout']);
      await load([{ ...ALL, allDown: 'fail-open' }], { family, ...ALL_DOWN });
      for (const answer of await both()) assert.match(answer!, /^b[123] 443$/);
    });
  }

  test("an address that is the balancer's own keeps the ports that no rule has", async () => {
    await lb.address('lo', `${FRONTEND[4]}/32`);
    try {
      await load([{ ...ALL, listenPorts: '23-65535' }]);
      assert.equal(await ask('tcp', FRONTEND[4], 22), 'own 22');
      assert.equal(await ask('tcp', FRONTEND[4], 21), 'ECONNREFUSED');
      assert.match((await ask('tcp', FRONTEND[4], 443))!, /^b[123] 443$/);
      await load([ALL], ALL_DOWN);
      assert.equal(
        await ask('tcp', FRONTEND[4], 22),
        'ECONNREFUSED',
        'the own server does not take its place',
      );
    } finally {
      await lb.ip(`address del ${FRONTEND[4]}/32 dev lo`);
    }
  });

  test('sources that are denied, or not allowed, are refused; deny goes first', async () => {
    const asked = (source: string, protocol: Flow['protocol'] = 'tcp', timeoutMs?: number) =>
      ask(protocol, FRONTEND[4], 443, source, timeoutMs);
    const frontend = { name: 'hub', address: FRONTEND[4], deny: ['10.1.0.3', '10.1.0.0/31', '10.1.0.0/32'] };
    await load([ALL], { frontends: [frontend] });
    assert.equal(await asked('10.1.0.3'), 'ECONNREFUSED');
    assert.equal(await asked('10.1.0.3', 'udp', 700), 'timeout');
    assert.match((await asked('10.1.0.2'))!, /^b/);
    await load([ALL], { frontends: [{ ...frontend, allow: ['10.1.0.2', '10.1.0.3', 'fd01::/64'] }] });
    assert.match((await asked('10.1.0.2'))!, /^b/);
    assert.equal(await asked('10.1.0.3'), 'ECONNREFUSED');
    assert.equal(await asked('10.1.0.4'), 'ECONNREFUSED');
  });

  for (const [idle, expected] of [
    ['reset', 'ECONNRESET'],
    ['drop', 'timeout'],
  ] as const) {
    test(`idle with ${idle}: what becomes of a connection that conntrack does not know any more`, async () => {
      await load([{ ...ALL, flowPolicy: { idle: { tcp: idle } } }]);
      await held();
      await kernel.forget();
      assert.deepEqual(names(await client.again({ timeoutMs: 700 })), [expected]);
    });
  }

  test('a packet out of the window ends no flow', async () => {
    await load([ALL]);
    const { sourcePort } = await held();
    const before = await client.again();
    const spoiled = `tcp sport ${sourcePort} tcp flags & psh == psh limit rate 1/day burst 1 packets`;
    await clientHost.nft(
      `table ip spoil {
        chain out {
          type filter hook output priority 0; policy accept;
          ${spoiled} counter tcp sequence set 1
        }
      }`,
    );
    try {
      assert.deepEqual(await client.again(), before);
      assert.match(await clientHost.must('nft list table ip spoil'), /packets 1 /);
    } finally {
      await clientHost.nft('delete table ip spoil');
    }
  });

  test('conntrack keeps flows as long as the rule says', async () => {
    await load([{ ...ALL, idleTimeout: { tcp: '5m', udp: '77s' } }]);
    await held();
    await client.ask([{ protocol: 'udp', host: FRONTEND[4], port: 443, sourcePort: nextPort++ }]);
    const listing = await lb.must(`conntrack -L -d ${FRONTEND[4]}`);
    const seconds = (protocol: string): number =>
      Number(new RegExp(`^${protocol}\\s+\\d+ (\\d+)`, 'm').exec(listing)?.[1]);
    assert.ok(seconds('tcp') > 290 && seconds('tcp') <= 300, listing);
    assert.ok(seconds('udp') > 70 && seconds('udp') <= 77, listing);
  });

  test('packets and bytes are counted by backend and direction', async () => {
    await load([{ ...PLAIN_WEB, backendPool: 'web' }]);
    await lb.must('nft flush set inet haports traffic');
    await ask('tcp', FRONTEND[4], 443);
    const listing = await lb.must('nft list set inet haports traffic');
    const counted = [
      ...listing.matchAll(/0x([0-9a-f]{8}) \. (original|reply) counter packets (\d+) bytes (\d+)/g),
    ];
    assert.deepEqual(counted.map(([, , direction]) => direction).sort(), ['original', 'reply'], listing);
    for (const [, , , packets, bytes] of counted)
      assert.ok(Number(packets) >= 2 && Number(bytes) > 100, listing);
  });
});
