import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { floatingSetup } from '../../src/planes/kernel/ebpf/floating.js';
import { ipAddress } from '../../src/model/address.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { KernelMode } from '../../src/model/configuration.js';
import { replaceTableText } from '../../src/planes/netfilter/setup.js';
import { NONE_EXCLUDED } from '../../src/selection/picker.js';
import { BACKENDS, DEVICE, FloatingLab, PORT } from '../support/floating-lab.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { CLIENTS, FRONTEND, whoAnswered, type ClientFlow, type LabClient } from '../support/nat-lab.js';

const skip = whyNoNamespaces();
const HOSTS = { 4: '10.2.0.', 6: 'fd02::' } as const;

function configuration(options: {
  readonly backends?: readonly string[];
  readonly rule?: object;
  readonly weights?: Readonly<Record<string, number>>;
}): object {
  const names = options.backends ?? BACKENDS;
  const pool = (family: 4 | 6): object => ({
    name: `v${family}`,
    backends: names.map((name) => ({
      name,
      address: `${HOSTS[family]}1${name.slice(1)}`,
      weight: options.weights?.[name] ?? 1,
    })),
  });
  const rule = (family: 4 | 6): object => ({
    ...{ name: `all${family}`, frontend: `hub${family}`, backendPool: `v${family}`, haPorts: true },
    ...options.rule,
  });
  return {
    seed: 0x12345678,
    frontends: [4, 6].map((family) => ({ name: `hub${family}`, address: FRONTEND[family as 4 | 6] })),
    backendPools: [pool(4), pool(6)],
    rules: [rule(4), rule(6)],
  };
}

function flow(protocol: 'tcp' | 'udp', family: 4 | 6, index: number): ClientFlow {
  const source = CLIENTS[family][index % 4] ?? '';
  return { protocol, host: FRONTEND[family], port: PORT, source, sourcePort: 20_000 + index };
}

function flows(protocol: 'tcp' | 'udp', family: 4 | 6, count: number, first = 0): ClientFlow[] {
  return Array.from({ length: count }, (_, index) => flow(protocol, family, first + index));
}

const MODES: readonly KernelMode[] = ['floating-l2', 'floating-routed'];

for (const mode of MODES) {
  describe(`floatingSetup(), ${mode}`, { skip }, () => {
    let lab: FloatingLab;
    let client: LabClient;
    let states: KernelStates;
    let opened = 0;

    before(async () => {
      states = await KernelStates.create();
      lab = await FloatingLab.create();
      client = lab.client();
    });
    after(() => lab.close());

    function state(
      raw: object,
      conditions: Parameters<KernelStates['state']>[2] = {},
      flowState: 'pinned' | 'stateless' = 'pinned',
    ): ForwardingState {
      const device = mode === 'floating-l2' ? { interface: DEVICE } : {};
      return states.state(raw, { mode, flowState, ...device }, conditions);
    }

    function predicted(of: ForwardingState, one: ClientFlow): string {
      const tuple = {
        protocol: one.protocol,
        source: ipAddress(one.source ?? ''),
        sourcePort: one.sourcePort ?? 0,
        destination: ipAddress(one.host),
        destinationPort: one.port,
      };
      const result = states.picker.pick(of, tuple, NONE_EXCLUDED);
      if (result.kind !== 'picked') return result.kind;
      return of.views[result.viewIndex]?.backends[result.backendIndex]?.backend.name ?? '';
    }

    for (const flowState of ['pinned', 'stateless'] as const) {
      test(`300 TCP and UDP flows each, IPv4 and IPv6, go where explain says, ${flowState}`, async () => {
        await lab.clear();
        const one = state(configuration({}), {}, flowState);
        await lab.load(one);
        for (const family of [4, 6] as const) {
          for (const protocol of ['tcp', 'udp'] as const) {
            const sent = flows(protocol, family, 300);
            const answers = await client.once(...sent);
            const wrong = sent.flatMap((each, index) => {
              const expected = `${predicted(one, each)} ${each.source} ${each.sourcePort} ${PORT}`;
              return answers[index]?.startsWith(expected) === true ? [] : [{ expected, got: answers[index] }];
            });
            assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of 300 ${protocol}${family}`);
            assert.equal(new Set(answers.map(whoAnswered)).size, 3);
          }
        }
      });
    }

    async function stick(family: 4 | 6): Promise<void> {
      await lab.clear();
      const all = state(configuration({}));
      const two = state(configuration({ backends: ['b1', 'b3'] }));
      const gone = all.views.flatMap(({ pool, backends }) =>
        backends
          .filter(({ backend }) => backend.name === 'b2')
          .map(({ backend }) => ({ ...backend, pool: pool.name })),
      );
      await lab.load(all);
      const open = await another(family, 300);
      const before = open.answers.map(whoAnswered);
      assert.equal(new Set(before).size, 3);
      await lab.load(two, gone);
      assert.deepEqual((await open.client.do({ kind: 'ask' })).map(whoAnswered), before, 'b2 removed');
      const newer = await client.once(...flows('tcp', family, 60, 1000));
      assert.deepEqual(new Set(newer.map(whoAnswered)), new Set(['b1', 'b3']));
      await lab.load(all);
      assert.deepEqual((await open.client.do({ kind: 'ask' })).map(whoAnswered), before, 'b2 there again');
    }

    /** A client with flows that stay open. */
    async function another(
      family: 4 | 6,
      count: number,
    ): Promise<{ readonly client: LabClient; readonly answers: readonly string[] }> {
      const one = lab.client();
      // Clients of other tests may hold theirs yet.
      const first = 2000 + opened;
      opened += count;
      const answers = await one.do({ kind: 'open', flows: flows('tcp', family, count, first) });
      return { client: one, answers };
    }

    for (const family of [4, 6] as const) {
      test(`300 of 300 flows stay while a backend goes and comes back, IPv${family}`, () => stick(family));
    }

    test('tcp reset comes from the frontend, rebalance moves datagrams', async () => {
      await lab.clear();
      await lab.load(state(configuration({})));
      const open = await another(4, 30);
      const onB2 = open.answers.filter((answer) => whoAnswered(answer) === 'b2').length;
      assert.ok(onB2 > 3);
      const datagrams = flows('udp', 4, 60);
      const before = (await client.once(...datagrams)).map(whoAnswered);
      assert.ok(before.includes('b2'));
      const policy = { adminDown: { tcp: 'reset', udp: 'rebalance' } };
      // The same structure: what differs is who is down, and what is done then.
      const down = state(configuration({ rule: { flowPolicy: policy } }), { admin: { b2: 'down' } });
      await lab.load(down);
      const answers = (await open.client.do({ kind: 'ask', timeoutMs: 1500 })).map(
        (answer) => answer.split(' ')[0],
      );
      assert.equal(answers.filter((answer) => answer === 'ECONNRESET').length, onB2);
      const moved = (await client.once(...datagrams)).map(whoAnswered);
      assert.deepEqual(
        moved.filter((name, index) => before[index] !== 'b2' && name !== before[index]),
        [],
      );
      assert.deepEqual(new Set(moved), new Set(['b1', 'b3']));
      await lab.load(state(configuration({ rule: { flowPolicy: policy } })));
      assert.deepEqual((await client.once(...datagrams)).map(whoAnswered), moved, 'where they were moved to');
    });

    test('flows without packets are forgotten after the idle time, and those that are closed soon', async () => {
      await lab.clear();
      await lab.load(state(configuration({ rule: { idleTimeout: { tcp: '4m', udp: '1s' } } })));
      const open = await another(4, 10);
      await client.once(...flows('udp', 4, 10), ...flows('tcp', 4, 10));
      const listed = await lab.listed('flows-hub4');
      assert.equal(
        listed.filter(({ protocol }) => protocol === 'tcp').length,
        10,
        'closed ones are not listed',
      );
      assert.equal(listed.filter(({ protocol }) => protocol === 'udp').length, 10);
      assert.equal(
        listed.every(({ packets, expiresMs }) => packets > 0 && expiresMs > 0),
        true,
      );
      await new Promise((resolve) => setTimeout(resolve, 1500));
      const left = await lab.listed('flows-hub4');
      assert.deepEqual(new Set(left.map(({ protocol }) => protocol)), new Set(['tcp']));
      assert.deepEqual(
        (await open.client.do({ kind: 'ask' })).map(whoAnswered),
        open.answers.map(whoAnswered),
      );
    });

    test('a packet without a flow is reset once the table has settled, and placed before', async () => {
      await lab.clear();
      const one = state(configuration({}));
      await lab.load(one);
      const open = await another(4, 30);
      await lab.flush('pins-hub4');
      assert.deepEqual(
        (await open.client.do({ kind: 'ask' })).map(whoAnswered),
        open.answers.map(whoAnswered),
        'by their hashes',
      );
      await lab.flush('settling', 'pins-hub4');
      const answers = await open.client.do({ kind: 'ask', timeoutMs: 1500 });
      assert.deepEqual(new Set(answers), new Set(['ECONNRESET']));
    });

    test('weights are kept, nobody gets a backend of weight 0, all down is refused', async () => {
      await lab.clear();
      await lab.load(state(configuration({ weights: { b1: 3, b2: 1, b3: 0 } })));
      const names = (await client.once(...flows('udp', 4, 300))).map(whoAnswered);
      assert.equal(names.includes('b3'), false);
      const share = names.filter((name) => name === 'b1').length / names.length;
      assert.ok(share > 0.65 && share < 0.85, `${share}`);
      const health = { b1: 'down', b2: 'down', b3: 'down' } as const;
      const rule = { probe: 'alive' };
      const raw = { ...configuration({ rule }), probes: [{ name: 'alive', protocol: 'tcp', port: PORT }] };
      await lab.load(state(raw, { health }));
      const refused = await client.once(flow('tcp', 4, 900), flow('udp', 4, 900), flow('tcp', 6, 900));
      assert.deepEqual(refused, ['ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED']);
    });

    test('echo requests are balanced by address, and their answers come from the frontend', async () => {
      await lab.clear();
      await lab.load(state(configuration({})));
      for (const family of [4, 6] as const) {
        for (const source of CLIENTS[family]) {
          await lab.namespaces.must('client', 'ping', [
            '-c',
            '2',
            '-i',
            '0.1',
            '-W',
            '2',
            '-I',
            source,
            FRONTEND[family],
          ]);
        }
      }
    });

    test('flows stay where they are while the whole table is made anew', async () => {
      await lab.clear();
      const two = state(configuration({ backends: ['b1', 'b3'] }));
      await lab.load(two);
      const open = await another(4, 60);
      await lab.load(state(configuration({})));
      const more = configuration({});
      const web = { name: 'web', frontend: 'hub4', backendPool: 'v4', protocol: 'tcp', frontendPort: 443 };
      const rules = [...(more as { rules: object[] }).rules, { ...web, backendPort: 443 }];
      await lab.replace(state({ ...more, rules }));
      await lab.flush('settling');
      assert.deepEqual(
        (await open.client.do({ kind: 'ask' })).map(whoAnswered),
        open.answers.map(whoAnswered),
      );
      assert.equal((await lab.listed('flows-hub4')).length, 60);
    });

    test('flows go on by their hashes when no more of them can be pinned', async () => {
      await lab.clear();
      const one = state(configuration({}));
      await lab.load(one);
      const small = replaceTableText(floatingSetup(compileProgram(one))).replaceAll('size 262144', 'size 4');
      await lab.namespaces.nft('lb', small);
      await lab.flush('settling');
      const open = await another(4, 60);
      assert.deepEqual(new Set(open.answers.map(whoAnswered)), new Set(BACKENDS));
      assert.deepEqual(
        (await open.client.do({ kind: 'ask' })).map(whoAnswered),
        open.answers.map(whoAnswered),
      );
      assert.ok((await lab.listed('flows-hub4')).length <= 4);
    });

    test('drop is silence, and who is denied is refused', async () => {
      await lab.clear();
      const flowPolicy = { adminDown: { tcp: 'drop', udp: 'drop' } };
      const raw = configuration({ backends: ['b1'], rule: { flowPolicy } }) as { frontends: object[] };
      const denying = {
        ...raw,
        frontends: raw.frontends.map((frontend) => ({ ...frontend, deny: [CLIENTS[4][1], CLIENTS[6][1]] })),
      };
      await lab.load(state(denying));
      const open = await another(4, 4);
      // Of four clients in turn the second one.
      assert.deepEqual(open.answers.map(whoAnswered).sort(), ['ECONNREFUSED', 'b1', 'b1', 'b1']);
      await lab.load(state(denying, { admin: { b1: 'down' } }));
      const answers = await open.client.do({ kind: 'ask', timeoutMs: 800 });
      assert.equal(answers.filter((answer) => answer === 'timeout').length, 3);
    });

    test('30 of 30 fragmented datagrams arrive, IPv4 and IPv6', async () => {
      await lab.clear();
      await lab.load(state(configuration({})));
      for (const family of [4, 6] as const) {
        const sent = flows('udp', family, 30).map((one) => ({ ...one, bytes: 4000 }));
        const answers = await client.once(...sent);
        assert.equal(answers.filter((answer) => answer.endsWith(' 4000')).length, 30, answers.join());
      }
    });
  });
}
