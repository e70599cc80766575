import assert from 'node:assert/strict';
import { afterEach, before, beforeEach, describe, test } from 'node:test';
import { eventually } from '../support/deadline.js';
import { FLOATING_MODES, useHub } from '../support/kernel-lab.js';
import { whyNoNamespaces } from '../support/lab.js';
import { RAW_PACKETS } from '../support/raw-packets.js';
import type { Conditions } from '../support/state-factory.js';
import {
  BACKENDS,
  CLIENTS,
  FAMILIES,
  FRONTEND,
  type ConfigurationPlan,
  type Family,
} from '../support/topologies.js';
import { makeFlows, names, type Flow, type FlowPlan, type Traffic } from '../support/traffic.js';

const GRE = 47;
const BOTH_FAMILIES: ConfigurationPlan = { families: FAMILIES };
const B2_DOWN: Conditions = { admin: { b2: 'down' } };

for (const mode of FLOATING_MODES) {
  describe(`flows with floating IP, ${mode}`, { skip: whyNoNamespaces('perl', 'ping') }, () => {
    const kernel = useHub(mode);
    const { hosts } = kernel.lab;
    let client: Traffic;
    let nextPort = 20_000;
    before(() => {
      client = hosts.client.traffic();
    });
    beforeEach(() => kernel.clear());
    afterEach(() => client.close());

    function flows(count: number, family: Family = 4, of: Partial<FlowPlan> = {}): readonly Flow[] {
      nextPort += count;
      const to = { host: FRONTEND[family], port: 443 };
      return makeFlows(count, { ...to, source: CLIENTS[family], sourcePort: nextPort - count, ...of });
    }
    const datagrams = (count: number, family: Family = 4) => flows(count, family, { protocol: 'udp' });
    /** Those of this test: clients of others may hold theirs yet. */
    const pinned = async (of: readonly Flow[]) => {
      const ports = new Set(of.map(({ sourcePort }) => sourcePort));
      return (await kernel.pinned()).filter(({ clientPort }) => ports.has(clientPort));
    };

    test('flows without packets are forgotten after the idle time, and those that are closed soon', async () => {
      await kernel.load({ ...BOTH_FAMILIES, rule: { idleTimeout: { tcp: '4m', udp: '1s' } } });
      const [kept, silent, closed] = [flows(10), datagrams(10), flows(10)];
      const before = await client.open(kept);
      await client.ask([...silent, ...closed]);
      assert.equal((await pinned(kept)).length, 10);
      assert.equal((await pinned(closed)).length, 0, 'closed ones are not listed');
      const listed = await pinned(silent);
      assert.equal(listed.length, 10);
      assert.ok(listed.every(({ packets, expiresMs }) => packets > 0 && expiresMs > 0));
      await eventually(async () => (await pinned(silent)).length === 0, 5000, 'silent flows to be forgotten');
      assert.equal((await pinned(kept)).length, 10);
      assert.deepEqual(await client.again(), before);
    });

    test('a packet without a flow is reset once the table has settled, and placed before', async () => {
      await kernel.load({});
      const before = await client.open(flows(30));
      await kernel.forgetPins();
      assert.deepEqual(await client.again(), before, 'by their hashes');
      await kernel.settle();
      await kernel.forgetPins();
      const answers = await client.again({ timeoutMs: 1500 });
      assert.deepEqual(new Set(names(answers)), new Set(['ECONNRESET']));
    });

    test('weights are kept, none gets a backend of weight 0, all down is refused', async () => {
      const weights = { b1: { weight: 3 }, b2: { weight: 1 }, b3: { weight: 0 } };
      await kernel.load({ ...BOTH_FAMILIES, backend: weights });
      const served = names(await client.ask(datagrams(300)));
      assert.equal(served.includes('b3'), false);
      const share = served.filter((name) => name === 'b1').length / served.length;
      assert.ok(share > 0.65 && share < 0.85, `${share}`);
      const health = { b1: 'down', b2: 'down', b3: 'down' } as const;
      await kernel.load({ ...BOTH_FAMILIES, probe: { protocol: 'tcp', port: 443 } }, { health });
      const refused = names(await client.ask([...flows(1), ...datagrams(1), ...flows(1, 6)]));
      assert.deepEqual(refused, ['ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED']);
    });

    test('echo requests are balanced by address, and their answers come from the frontend', async () => {
      await kernel.load(BOTH_FAMILIES);
      for (const family of FAMILIES) {
        for (const source of CLIENTS[family]) {
          await hosts.client.must(`ping -c 2 -i 0.1 -W 2 -I ${source} ${FRONTEND[family]}`);
        }
      }
    });

    test('flows go on by their hashes when no more of them can be pinned', async () => {
      await kernel.shrink(await kernel.load({}), 4);
      await kernel.settle();
      const before = await client.open(flows(60));
      assert.deepEqual(new Set(names(before)), new Set(BACKENDS));
      assert.deepEqual(await client.again(), before);
      assert.ok((await kernel.pinned()).length <= 4);
    });

    test('who is denied is refused', async () => {
      const deny = [CLIENTS[4][1], CLIENTS[6][1]];
      await kernel.load({ ...BOTH_FAMILIES, backends: ['b1'], frontend: { deny } });
      const answers = names(await client.open(flows(4)));
      assert.deepEqual(answers, ['b1', 'ECONNREFUSED', 'b1', 'b1']);
    });

    for (const family of FAMILIES) {
      test(`30 of 30 fragmented datagrams arrive, IPv${family}`, async () => {
        await kernel.load(BOTH_FAMILIES);
        const answers = await client.ask(flows(30, family, { protocol: 'udp', bytes: 4000 }));
        assert.deepEqual(new Set(answers.map(({ bytes }) => bytes)), new Set([4000]));
      });
    }

    /** With these policies while b2 is down. */
    const load = (tcp: 'persist' | 'rebalance', conditions: Conditions = {}) =>
      kernel.load({ rule: { flowPolicy: { adminDown: { tcp, udp: 'persist' } } } }, conditions);

    /** Backends note the client's port of each packet, and do not answer those of flows that they have not opened. */
    async function takeNotes(strange: readonly number[]): Promise<void> {
      for (const name of BACKENDS) {
        await hosts[name].nft(
          `table ip notes
           delete table ip notes
           table ip notes {
             set seen { type inet_service; size 65535; flags dynamic; }
             chain arrive { type filter hook prerouting priority 0; policy accept;
               ip daddr ${FRONTEND[4]} tcp dport 443 update @seen { tcp sport }
               ${name === 'b2' ? '' : `tcp sport { ${strange.join(', ')} } drop`}
             }
           }`,
        );
      }
    }

    /** By port of the client: who got packets. */
    async function noted(ports: readonly number[]): Promise<string[]> {
      const seen = await Promise.all(
        BACKENDS.map(async (name) => {
          const elements = /elements = \{([^}]*)\}/.exec(
            await hosts[name].must('nft list set ip notes seen'),
          );
          return { name, ports: new Set(elements?.[1]?.split(',').map(Number)) };
        }),
      );
      return ports.map((port) => seen.flatMap(({ name, ports: of }) => (of.has(port) ? [name] : [])).join());
    }

    test('rebalance moves pins of TCP flows, and they stay where they were moved', async () => {
      await load('rebalance');
      const all = flows(30);
      const before = await client.open(all);
      const onB2 = all.filter((_, index) => before[index]!.by === 'b2');
      const ports = onB2.map(({ sourcePort }) => sourcePort!);
      assert.ok(ports.length > 3 && ports.length < 27, `${ports.length}`);
      await takeNotes(ports);
      await load('rebalance', B2_DOWN);
      assert.deepEqual(
        names(await client.again({ timeoutMs: 600 })),
        names(before).map((name) => (name === 'b2' ? 'timeout' : name)),
        'others stay',
      );
      const moved = await noted(ports);
      assert.deepEqual(new Set(moved), new Set(['b1', 'b3']), 'each is with one other');
      assert.equal((await pinned(onB2)).length, ports.length);
      await load('rebalance');
      await takeNotes(ports);
      await client.again({ timeoutMs: 100 });
      // What was lost before is sent again later and later.
      const seen = await eventually(
        async () => {
          const now = await noted(ports);
          return now.every((name) => name !== '') && now;
        },
        20_000,
        'a packet of each flow',
      );
      assert.deepEqual(seen, moved, 'although b2 is there again');
      for (const name of BACKENDS) await hosts[name].nft('delete table ip notes');
    });

    test('a new connection with the ports of one that is pinned to a backend that is out goes elsewhere', async () => {
      await load('persist');
      const all = flows(30);
      // The backends and the pins do not learn that the client has given up.
      await hosts.client.nft(
        'table ip mute { chain leave { type filter hook output priority 0; tcp flags rst drop; }; }',
      );
      const before = names(await client.ask(all));
      await hosts.client.nft('delete table ip mute');
      const onB2 = all.filter((_, index) => before[index] === 'b2');
      assert.ok(onB2.length > 3);
      assert.equal((await pinned(all)).length, all.length, 'all are pinned yet');
      await load('persist', B2_DOWN);
      // Else its answers to what it takes for the old connection would end the pin.
      await hosts.b2.nft(
        'table ip deaf { chain arrive { type filter hook prerouting priority 0; tcp dport 443 drop; }; }',
      );
      const again = names(await client.ask(onB2));
      await hosts.b2.nft('delete table ip deaf');
      assert.deepEqual(new Set(again), new Set(['b1', 'b3']), again.join());
      await load('persist');
      assert.deepEqual(await pinned(onB2), [], 'they have ended properly, the old ones too');
    });

    describe('GRE', () => {
      const more = Array.from({ length: 6 }, (_, index) => `10.1.0.${20 + index}`);
      before(async () => {
        await hosts.client.address('router', ...more.map((address) => `${address}/24`));
        for (const name of BACKENDS) {
          await hosts[name].start(`perl ${RAW_PACKETS} answer ${GRE} ${name} ${FRONTEND[4]}`);
        }
      });

      /** One by one: a raw socket takes what comes for others until it is bound. */
      async function askAll(): Promise<readonly string[]> {
        const answers: string[] = [];
        for (const source of [...CLIENTS[4], ...more]) {
          const ask = `perl ${RAW_PACKETS} ask ${GRE} ${source} ${FRONTEND[4]}`;
          answers.push((await hosts.client.must(ask)).trim());
        }
        return answers;
      }

      test('is balanced by address, and stays while its backend takes no new flows', async () => {
        await load('persist');
        const before = await askAll();
        assert.deepEqual(new Set(before), new Set(BACKENDS));
        await load('persist', B2_DOWN);
        assert.deepEqual(await askAll(), before, 'pinned');
        await kernel.forgetPins();
        assert.deepEqual(new Set(await askAll()), new Set(['b1', 'b3']), 'as new ones');
      });
    });

    describe('ICMP errors', () => {
      const COUNT = 60;
      const ports = Array.from({ length: COUNT }, (_, index) => 30_000 + index);
      const asMark = `map { ${ports.map((port) => `${port} : ${port}`).join(', ')} }`;
      /** Notes the port of the client in each error that arrives. */
      const notes = `table inet errors {
        set seen4 { type mark; size 65536; flags dynamic; }
        set seen6 { type mark; size 65536; flags dynamic; }
        chain arrive { type filter hook prerouting priority 0; policy accept;
          icmp type destination-unreachable meta mark set @th,240,16 ${asMark} update @seen4 { meta mark }
          icmpv6 type destination-unreachable meta mark set @th,400,16 ${asMark} update @seen6 { meta mark }
        }
      }`;
      before(() => Promise.all(BACKENDS.map((name) => hosts[name].nft(notes))));

      /** By port of the client: who got an error about it. */
      async function told(family: Family): Promise<ReadonlyMap<number, string>> {
        const by = new Map<number, string>();
        for (const name of BACKENDS) {
          const text = await hosts[name].must(`nft list set inet errors seen${family}`);
          await hosts[name].nft(`flush set inet errors seen${family}`);
          for (const port of [...text.matchAll(/0x[0-9a-f]+/g)].map(Number)) {
            by.set(port, by.has(port) ? 'two' : name);
          }
        }
        return by;
      }

      for (const flowState of ['pinned', 'stateless'] as const) {
        for (const family of FAMILIES) {
          test(`${COUNT} of ${COUNT} reach the backend of the flow, IPv${family}, ${flowState}`, async () => {
            const all = { families: [family] };
            const [source] = CLIENTS[family];
            // Flows that are pinned stay where their hashes would not take them any more.
            const first = flowState === 'pinned' ? { ...all, backends: ['b1', 'b3'] } : all;
            await kernel.load(first, {}, { options: { flowState } });
            const served = names(
              await client.ask(
                flows(COUNT, family, { protocol: 'udp', source: source!, sourcePort: ports[0]! }),
              ),
            );
            await kernel.load(all, {}, { options: { flowState } });
            const refuse = `perl ${RAW_PACKETS} refuse ${FRONTEND[family]} 443 ${source} ${ports.join(' ')}`;
            await hosts.client.must(refuse);
            const by = await told(family);
            assert.deepEqual(
              ports.map((port) => by.get(port)),
              served,
            );
            assert.equal(new Set(served).size, flowState === 'pinned' ? 2 : 3);
          });
        }
      }
    });
  });
}
