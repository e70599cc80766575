import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { ipAddress } from '../../src/model/address.js';
import { jhash, reciprocalScale } from '../../src/selection/flow-hash.js';
import { useHub, type Wishes } from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import { RAW_PACKETS } from '../support/raw-packets.js';
import { BACKENDS, BALANCER, CLIENTS, FAMILIES, FRONTEND, type Family } from '../support/topologies.js';
import { makeFlows, names, type Flow, type Traffic } from '../support/traffic.js';

const BOTH = ['tcp', 'udp'] as const;
/** GRE, ESP and one for experiments. */
const WITHOUT_PORTS = [47, 50, 253];
const BULK_BYTES = 200_000;

describe('mode nat and the way there and back', { skip: whyNoNamespaces('perl', 'ping', 'ss') }, () => {
  const kernel = useHub('nat');
  const { hosts } = kernel.lab;
  const { lb, router } = hosts;
  let client: Traffic;
  let nextPort = 34_000;
  before(() => {
    client = hosts.client.traffic();
  });

  async function load(family: Family, wishes: Wishes = {}): Promise<void> {
    await kernel.load({ families: [family] }, {}, wishes);
    await kernel.forget();
  }

  /** Each with a port that no flow had before. */
  function flows(family: Family, count = 30): readonly Flow[] {
    nextPort += count;
    const to = { protocol: BOTH, host: FRONTEND[family], port: 443 };
    return makeFlows(count, { ...to, source: CLIENTS[family], sourcePort: nextPort - count });
  }
  const call = (family: Family, sourcePort: number): readonly Flow[] =>
    makeFlows(40, { protocol: BOTH, host: FRONTEND[family], port: 443, sourcePort });

  for (const family of FAMILIES) {
    test(`IPv${family}: by route, backends see the client`, async () => {
      await load(family);
      const asked = flows(family);
      assert.deepEqual(
        (await client.ask(asked)).map(({ client: source, clientPort, port }) => [source, clientPort, port]),
        asked.map(({ source, sourcePort }) => [source, sourcePort, 443]),
      );
    });

    test(`IPv${family}: by masquerade, backends see the balancer, and need no route through it`, async () => {
      await load(family, { options: { returnPath: 'masquerade' } });
      const onAll = (verb: string) =>
        Promise.all(
          BACKENDS.map((name) => hosts[name].ip(`-${family} route ${verb} default via ${BALANCER[family]}`)),
        );
      await onAll('del');
      try {
        const answers = await client.ask(flows(family));
        assert.deepEqual(new Set(answers.map((answer) => answer.client)), new Set([BALANCER[family]]));
        assert.deepEqual(new Set(names(answers)), new Set(BACKENDS));
        await load(family);
        const lost = await client.ask(flows(family, 4), { timeoutMs: 500 });
        assert.deepEqual(
          new Set(names(lost)),
          new Set(['timeout']),
          'without masquerade the route is needed',
        );
      } finally {
        await onAll('add');
      }
    });

    test(`IPv${family}: a backend that calls the frontend gets its answer, from itself too`, async () => {
      await load(family);
      const answers = await hosts.b1.traffic().ask(call(family, 31_000));
      assert.deepEqual(new Set(names(answers)), new Set(BACKENDS));
      assert.deepEqual(new Set(answers.map((answer) => answer.client)), new Set([BALANCER[family]]));
    });

    test(`IPv${family}: echo requests are answered from the frontend's address`, async () => {
      await load(family);
      for (const source of CLIENTS[family]) {
        const ping = `ping -c 1 -W 2 -I ${source} ${FRONTEND[family]}`;
        assert.match(await hosts.client.must(ping), / 0% packet loss/);
      }
      const entries = await lb.must(`conntrack -L -f ipv${family} -p ${family === 4 ? 'icmp' : 'icmpv6'}`);
      assert.match(entries, family === 4 ? /src=10\.2\.0\.1[123] / : /src=fd02::1[123] /);
    });

    test(`IPv${family}: a narrow link behind the router is told to the backend`, async () => {
      await load(family);
      const route = `-${family} route replace ${family === 4 ? '10.1.0.0/24' : 'fd01::/64'} dev client`;
      await router.ip(`${route} mtu lock 1300`);
      try {
        const bulk = flows(family, 1).map((flow) => ({ ...flow, replyBytes: BULK_BYTES }));
        const [answer] = await client.ask(bulk, { timeoutMs: 5000 });
        assert.match(answer!.by, /^b[123]$/);
      } finally {
        await router.ip(route);
      }
    });
  }

  test('a client on the network of the backends gets its answers, once that network is known', async () => {
    const nearby = (sourcePort: number): readonly Flow[] =>
      makeFlows(6, { protocol: BOTH, host: FRONTEND[4], port: 443, source: '10.2.0.254', sourcePort });
    const near = router.traffic();
    await load(4);
    const lost = await near.ask(nearby(32_000), { timeoutMs: 500 });
    assert.deepEqual(new Set(names(lost)), new Set(['timeout']), 'answers go past the balancer');
    await load(4, { networks: ['10.1.0.0/24', '10.2.0.0/24', 'fd02::/64'] });
    for (const answer of await near.ask(nearby(32_100))) assert.equal(answer.client, BALANCER[4]);
    const [far] = await client.ask(flows(4, 1));
    assert.equal(far?.client, '10.1.0.2', 'others are seen as they are');
  });

  test("clients on the balancer itself are served, also with the frontend's address as their own", async () => {
    await load(4);
    const local = lb.traffic();
    assert.deepEqual(new Set(names(await local.ask(call(4, 33_000)))), new Set(BACKENDS));
    await lb.address('lo', `${FRONTEND[4]}/32`);
    try {
      await kernel.forget();
      assert.deepEqual(new Set(names(await local.ask(call(4, 33_000)))), new Set(BACKENDS));
    } finally {
      await lb.ip(`address del ${FRONTEND[4]}/32 dev lo`);
    }
  });

  test('GRE, ESP and others without ports are placed by addresses and protocol', async () => {
    await load(4);
    const [view] = kernel.state({}).views;
    for (const protocol of WITHOUT_PORTS) {
      for (const name of BACKENDS) await hosts[name].start(`perl ${RAW_PACKETS} answer ${protocol} ${name}`);
      for (const source of CLIENTS[4]) {
        const answer = await hosts.client.must(
          `perl ${RAW_PACKETS} ask ${protocol} ${source} ${FRONTEND[4]}`,
        );
        const key = [...ipAddress(source).bytes, ...ipAddress(FRONTEND[4]).bytes, protocol, 0, 0, 0];
        const slot = reciprocalScale(jhash(Uint8Array.from(key), 0), 4093);
        assert.equal(answer.trim(), view?.backends[view.table[slot] ?? -1]?.backend.name);
      }
    }
  });

  test('a narrow route to the backend is told to the client, and in the segment size', async () => {
    await load(4);
    const onAll = (verb: string, after = '') =>
      Promise.all([11, 12, 13].map((host) => lb.ip(`-4 route ${verb} 10.2.0.${host}/32${after}`)));
    await onAll('replace', ' dev router mtu lock 1300');
    try {
      await client.open(flows(4, 1));
      const sockets = await Promise.all(
        BACKENDS.map((name) => hosts[name].must('ss -Htin state established sport = :443')),
      );
      // 1300, less headers and timestamps.
      assert.match(sockets.join(''), / mss:1248 /);
      await hosts.client.run(`ping -c 1 -W 1 -M do -s 1400 ${FRONTEND[4]}`);
      assert.match(await hosts.client.ip(`-4 route get ${FRONTEND[4]}`), / mtu 1300/);
    } finally {
      await onAll('del');
    }
  });
});
