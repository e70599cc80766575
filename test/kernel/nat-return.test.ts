import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { natSetup } from '../../src/planes/kernel/nat/rules.js';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import type { KernelOptions } from '../../src/model/configuration.js';
import { jhash, reciprocalScale } from '../../src/selection/flow-hash.js';
import { within } from '../support/deadline.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import {
  BACKENDS,
  CLIENTS,
  FRONTEND,
  NatLab,
  whoAnswered,
  type ClientFlow,
  type LabClient,
} from '../support/nat-lab.js';

const skip = whyNoNamespaces();
// Not compiled: it stands beside the source of this file's folder.
const RAW_ECHO = join(process.cwd(), 'test', 'support', 'raw-echo.pl');
const GRE = 47;
const ESP = 50;
const EXPERIMENT = 253;

function configuration(family: 4 | 6): object {
  const prefix = family === 4 ? '10.2.0.1' : 'fd02::1';
  return {
    frontends: [{ name: 'hub', address: FRONTEND[family] }],
    backendPools: [
      { name: 'nvas', backends: BACKENDS.map((name) => ({ name, address: `${prefix}${name.slice(1)}` })) },
    ],
    rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true }],
  };
}

describe('natSetup() and the way there and back', { skip }, () => {
  let lab: NatLab;
  let client: LabClient;
  let states: KernelStates;

  before(async () => {
    states = await KernelStates.create();
    lab = await NatLab.create();
    client = lab.client();
  });
  after(() => lab.close());

  async function load(
    family: 4 | 6,
    options: Partial<KernelOptions> = {},
    networks: readonly string[] = [],
  ): Promise<void> {
    const state = states.state(configuration(family), options);
    await lab.load(
      natSetup(compileProgram(state), { networks: networks.flatMap((text) => parseCidr(text) ?? []) }),
    );
    await lab.forget();
  }

  function flows(family: 4 | 6, count = 30): ClientFlow[] {
    const protocols = ['tcp', 'udp'] as const;
    return Array.from({ length: count }, (_, index) => ({
      protocol: protocols[index % 2] ?? 'tcp',
      host: FRONTEND[family],
      port: 443,
      source: CLIENTS[family][index % 4] ?? '',
      sourcePort: 30_000 + index,
    }));
  }

  for (const family of [4, 6] as const) {
    test(`IPv${family}: by route, backends see the client`, async () => {
      await load(family);
      const asked = flows(family);
      const answers = await client.once(...asked);
      for (const [index, answer] of answers.entries()) {
        assert.equal(answer.slice(3), `${asked[index]?.source} ${asked[index]?.sourcePort} 443`);
      }
    });

    test(`IPv${family}: by masquerade, backends see the balancer, and need no route through it`, async () => {
      await load(family, { returnPath: 'masquerade' });
      const gateway = family === 4 ? '10.2.0.1' : 'fd02::1';
      for (const name of BACKENDS)
        await lab.namespaces.ip(name, `-${family} route del default via ${gateway}`);
      try {
        const answers = await client.once(...flows(family));
        for (const answer of answers) assert.equal(answer.split(' ')[1], gateway);
        assert.deepEqual([...new Set(answers.map(whoAnswered))].sort(), [...BACKENDS]);
        await load(family);
        const lost = await client.do({ kind: 'once', flows: flows(family, 4), timeoutMs: 500 });
        assert.deepEqual([...new Set(lost)], ['timeout'], 'without masquerade the route is needed');
      } finally {
        for (const name of BACKENDS)
          await lab.namespaces.ip(name, `-${family} route add default via ${gateway}`);
      }
    });

    test(`IPv${family}: a backend that calls the frontend gets its answer, from itself too`, async () => {
      await load(family);
      const caller = lab.client('b1');
      const calls = Array.from({ length: 40 }, (_, index) => ({
        protocol: (['tcp', 'udp'] as const)[index % 2] ?? 'tcp',
        host: FRONTEND[family],
        port: 443,
        sourcePort: 31_000 + index,
      }));
      const answers = await caller.once(...calls);
      assert.deepEqual([...new Set(answers.map(whoAnswered))].sort(), [...BACKENDS]);
      const balancer = family === 4 ? '10.2.0.1' : 'fd02::1';
      for (const answer of answers) assert.equal(answer.split(' ')[1], balancer);
    });

    test(`IPv${family}: echo requests are answered from the frontend's address`, async () => {
      await load(family);
      for (const source of CLIENTS[family]) {
        const ping = ['-c', '1', '-W', '2', '-I', source, FRONTEND[family]];
        assert.match(await lab.namespaces.must('client', 'ping', ping), / 0% packet loss/);
      }
      const protocol = family === 4 ? 'icmp' : 'icmpv6';
      const entries = await lab.namespaces.must('lb', 'conntrack', [
        '-L',
        '-f',
        `ipv${family}`,
        '-p',
        protocol,
      ]);
      assert.match(entries, family === 4 ? /src=10\.2\.0\.1[123] / : /src=fd02::1[123] /);
    });
  }

  test('a client on the network of the backends gets its answers, once that network is known', async () => {
    const router = lab.client('router');
    const nearby = (fromPort: number): ClientFlow[] =>
      flows(4, 6).map((flow, index) => ({ ...flow, source: '10.2.0.254', sourcePort: fromPort + index }));
    await load(4);
    const lost = await router.do({ kind: 'once', flows: nearby(32_000), timeoutMs: 500 });
    assert.deepEqual([...new Set(lost)], ['timeout'], 'answers go past the balancer');
    await load(4, {}, ['10.1.0.0/24', '10.2.0.0/24', 'fd02::/64']);
    for (const answer of await router.once(...nearby(32_100))) assert.equal(answer.split(' ')[1], '10.2.0.1');
    const [far] = await client.once(...flows(4, 1));
    assert.equal(far?.split(' ')[1], '10.1.0.2', 'others are seen as they are');
  });

  test("clients on the balancer itself are served, also with the frontend's address as their own", async () => {
    await load(4);
    const local = lab.client('lb');
    const calls = Array.from({ length: 30 }, (_, index) => ({
      protocol: (['tcp', 'udp'] as const)[index % 2] ?? 'tcp',
      host: FRONTEND[4],
      port: 443,
      sourcePort: 33_000 + index,
    }));
    assert.deepEqual([...new Set((await local.once(...calls)).map(whoAnswered))].sort(), [...BACKENDS]);
    await lab.namespaces.address('lb', 'lo', `${FRONTEND[4]}/32`);
    try {
      await lab.forget();
      const answers = await local.once(...calls);
      assert.deepEqual([...new Set(answers.map(whoAnswered))].sort(), [...BACKENDS]);
    } finally {
      await lab.namespaces.ip('lb', `address del ${FRONTEND[4]}/32 dev lo`);
    }
  });

  test('GRE, ESP and others without ports are placed by addresses and protocol', async () => {
    await load(4);
    for (const protocol of [GRE, ESP, EXPERIMENT]) {
      for (const name of BACKENDS) {
        const child = lab.namespaces.spawn(name, 'perl', [RAW_ECHO, 'answer', String(protocol), name]);
        assert.ok(child.stdout);
        await within(once(child.stdout, 'data'), 10_000, 'raw-echo.pl');
      }
      for (const source of CLIENTS[4]) {
        const ask = ['ask', String(protocol), source, FRONTEND[4]];
        const answer = (await lab.namespaces.must('client', 'perl', [RAW_ECHO, ...ask])).trim();
        const key = [...ipAddress(source).bytes, ...ipAddress(FRONTEND[4]).bytes, protocol, 0, 0, 0];
        const slot = reciprocalScale(jhash(Uint8Array.from(key), 0), 4093);
        const view = states.state(configuration(4)).views[0];
        assert.equal(answer, view?.backends[view.table[slot] ?? -1]?.backend.name);
      }
    }
  });

  for (const family of [4, 6] as const) {
    test(`IPv${family}: a narrow link behind the router is told to the backend`, async () => {
      await load(family);
      const [network, device] = family === 4 ? ['10.1.0.0/24', 'client'] : ['fd01::/64', 'client'];
      await lab.namespaces.ip('router', `-${family} route replace ${network} dev ${device} mtu lock 1300`);
      try {
        const script = `
          const socket = require('node:net').connect(443, '${FRONTEND[family]}', () => socket.write('bulk'));
          let bytes = 0;
          socket.on('data', (chunk) => { bytes += chunk.length; if (bytes >= 200000) { console.log('all'); process.exit(); } });
          setTimeout(() => { console.log(bytes); process.exit(); }, 5000);`;
        const got = await lab.namespaces.must('client', process.execPath, ['-e', script]);
        assert.equal(got.trim(), 'all');
      } finally {
        await lab.namespaces.ip('router', `-${family} route replace ${network} dev ${device}`);
      }
    });
  }

  test('a narrow route to the backend is told to the client, and in the segment size', async () => {
    await load(4);
    for (const host of [11, 12, 13]) {
      await lab.namespaces.ip('lb', `-4 route replace 10.2.0.${host}/32 dev router mtu lock 1300`);
    }
    try {
      const kept = lab.client();
      await kept.do({ kind: 'open', flows: flows(4, 1) });
      const sockets = await Promise.all(
        BACKENDS.map((name) =>
          lab.namespaces.must(name, 'ss', ['-Htin', 'state', 'established', 'sport', '=', ':443']),
        ),
      );
      // 1300, less headers and timestamps.
      assert.match(sockets.join(''), / mss:1248 /);
      await lab.namespaces.run('client', 'ping', [
        '-c',
        '1',
        '-W',
        '1',
        '-M',
        'do',
        '-s',
        '1400',
        FRONTEND[4],
      ]);
      assert.match(await lab.namespaces.ip('client', `-4 route get ${FRONTEND[4]}`), / mtu 1300/);
    } finally {
      for (const host of [11, 12, 13]) await lab.namespaces.ip('lb', `-4 route del 10.2.0.${host}/32`);
    }
  });
});
