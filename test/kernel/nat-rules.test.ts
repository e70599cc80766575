import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { natSetup } from '../../src/planes/kernel/nat/rules.js';
import { within } from '../support/deadline.js';
import { KernelStates } from '../support/kernel-states.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { BACKENDS, FRONTEND, NatLab, type ClientFlow, type LabClient } from '../support/nat-lab.js';
import type { Conditions } from '../support/state-factory.js';

const skip = whyNoNamespaces();
const SECOND = { 4: '10.9.0.11', 6: 'fd09::11' } as const;
const EVERYBODY_DOWN = { b1: 'down', b2: 'down', b3: 'down' } as const;

/** A server of the balancer's own, on all its addresses. */
const OWN_SERVER = `
  require('node:net').createServer((socket) => socket.on('error', () => 0).end('own')).listen(22, '::', () => console.log('ready'));`;

describe('natSetup() follows rules', { skip }, () => {
  let lab: NatLab;
  let client: LabClient;
  let states: KernelStates;
  let own: ChildProcess;
  let nextPort = 20_000;

  before(async () => {
    states = await KernelStates.create();
    lab = await NatLab.create();
    client = lab.client();
    await lab.namespaces.ip('router', `-4 route add ${SECOND[4]} via 10.2.0.1`);
    await lab.namespaces.ip('router', `-6 route add ${SECOND[6]} via fd02::1`);
    own = lab.namespaces.spawn('lb', process.execPath, ['-e', OWN_SERVER], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    assert.ok(own.stdout);
    await within(once(own.stdout, 'data'), 10_000, 'the own server to listen');
  });
  after(() => lab.close());

  interface Given extends Conditions {
    readonly family?: 4 | 6;
    readonly frontends?: readonly object[];
    readonly rules: readonly object[];
  }

  async function load({ family = 4, frontends, rules, ...conditions }: Given): Promise<void> {
    const prefix = family === 4 ? '10.2.0.1' : 'fd02::1';
    const raw = {
      frontends: frontends ?? [{ name: 'hub', address: FRONTEND[family] }],
      probes: [{ name: 'alive', protocol: 'tcp', port: 80 }],
      backendPools: ['nvas', 'web'].map((pool) => ({
        name: pool,
        backends: BACKENDS.filter((name) => pool === 'nvas' || name === 'b3').map((name) => ({
          name,
          address: `${prefix}${name.slice(1)}`,
        })),
      })),
      rules: rules.map((rule) => ({ frontend: 'hub', backendPool: 'nvas', probe: 'alive', ...rule })),
    };
    await lab.load(natSetup(compileProgram(states.state(raw, {}, conditions))));
    await lab.forget();
  }

  /** What a client gets: a backend and the port it was asked on, or the error. */
  async function ask(
    protocol: 'tcp' | 'udp',
    host: string,
    port: number,
    source?: string,
    timeoutMs = 5000,
  ): Promise<string> {
    const flow: ClientFlow = {
      protocol,
      host,
      port,
      sourcePort: nextPort++,
      ...(source === undefined ? {} : { source }),
    };
    const [answer = ''] = await client.do({ kind: 'once', flows: [flow], timeoutMs });
    const [name, , , served] = answer.split(' ');
    return served === undefined ? answer : `${name} ${served}`;
  }

  /** The kernel sends a client so many ICMP errors a second: a datagram may have to be sent again. */
  async function assertUnreachable(host: string, port: number): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const answer = await ask('udp', host, port, undefined, 500);
      if (answer === 'ECONNREFUSED') return;
      assert.ok(answer === 'timeout' && attempt < 5, answer);
    }
  }

  for (const family of [4, 6] as const) {
    test(`IPv${family}: ports are mapped, ranges by their offset, and a rule that names a port goes first`, async () => {
      await load({
        family,
        rules: [
          { name: 'all', haPorts: true },
          { name: 'web', backendPool: 'web', protocol: 'tcp', frontendPort: 9000, backendPort: 8443 },
          { name: 'range', backendPool: 'web', protocol: 'all', frontendPort: '180-181', backendPort: 8080 },
        ],
      });
      const host = FRONTEND[family];
      assert.equal(await ask('tcp', host, 9000), 'b3 8443');
      assert.equal(await ask('tcp', host, 180), 'b3 8080');
      assert.equal(await ask('udp', host, 181), 'b3 8081');
      assert.match(await ask('tcp', host, 443), /^b[123] 443$/);
      assert.match(await ask('udp', host, 50_000), /^b[123] 50000$/);
      await assertUnreachable(host, 9000);
    });

    test(`IPv${family}: ports that no rule has are refused at once, and never routed in a loop`, async () => {
      await load({
        family,
        frontends: [
          { name: 'hub', address: FRONTEND[family] },
          { name: 'spare', address: SECOND[family] },
        ],
        rules: [{ name: 'web', protocol: 'tcp', frontendPort: 443, backendPort: 443 }],
      });
      for (const host of [FRONTEND[family], SECOND[family]]) {
        assert.equal(await ask('tcp', host, 80), 'ECONNREFUSED');
        await assertUnreachable(host, 443);
        const once = await lab.namespaces.run('client', 'ping', ['-c', '1', '-W', '1', host]);
        assert.doesNotMatch(once.stdout, /exceeded/i);
      }
      assert.match(await ask('tcp', FRONTEND[family], 443), /^b[123] 443$/);
      assert.equal(await ask('tcp', SECOND[family], 443), 'ECONNREFUSED');
    });
  }

  test("an address that is the balancer's own keeps the ports that no rule has", async () => {
    await lab.namespaces.address('lb', 'lo', `${FRONTEND[4]}/32`);
    try {
      await load({ rules: [{ name: 'all', haPorts: true, listenPorts: '23-65535' }] });
      assert.equal(await ask('tcp', FRONTEND[4], 22), 'own');
      assert.equal(await ask('tcp', FRONTEND[4], 21), 'ECONNREFUSED');
      assert.match(await ask('tcp', FRONTEND[4], 443), /^b[123] 443$/);
      await load({ rules: [{ name: 'all', haPorts: true }], health: EVERYBODY_DOWN });
      assert.equal(await ask('tcp', FRONTEND[4], 22), 'ECONNREFUSED', 'nobody takes its place');
    } finally {
      await lab.namespaces.ip('lb', `address del ${FRONTEND[4]}/32 dev lo`);
    }
  });

  test('sources that are denied, or not allowed, are refused; deny goes first', async () => {
    const frontend = { name: 'hub', address: FRONTEND[4], deny: ['10.1.0.3', '10.1.0.0/31', '10.1.0.0/32'] };
    await load({ frontends: [frontend], rules: [{ name: 'all', haPorts: true }] });
    assert.equal(await ask('tcp', FRONTEND[4], 443, '10.1.0.3'), 'ECONNREFUSED');
    assert.equal(await ask('udp', FRONTEND[4], 443, '10.1.0.3', 700), 'timeout');
    assert.match(await ask('tcp', FRONTEND[4], 443, '10.1.0.2'), /^b/);
    const allow = ['10.1.0.2', '10.1.0.3', 'fd01::/64'];
    await load({ frontends: [{ ...frontend, allow }], rules: [{ name: 'all', haPorts: true }] });
    assert.match(await ask('tcp', FRONTEND[4], 443, '10.1.0.2'), /^b/);
    assert.equal(await ask('tcp', FRONTEND[4], 443, '10.1.0.3'), 'ECONNREFUSED');
    assert.equal(await ask('tcp', FRONTEND[4], 443, '10.1.0.4'), 'ECONNREFUSED');
  });

  for (const family of [4, 6] as const) {
    test(`IPv${family}: with everybody down, reset refuses, drop says nothing, fail-open goes on`, async () => {
      const host = FRONTEND[family];
      const rule = { name: 'all', haPorts: true };
      await load({ family, rules: [{ ...rule, allDown: 'reset' }], health: EVERYBODY_DOWN });
      assert.equal(await ask('tcp', host, 443), 'ECONNREFUSED');
      await assertUnreachable(host, 443);
      await load({ family, rules: [{ ...rule, allDown: 'drop' }], health: EVERYBODY_DOWN });
      assert.equal(await ask('tcp', host, 443, undefined, 700), 'timeout');
      assert.equal(await ask('udp', host, 443, undefined, 700), 'timeout');
      await load({ family, rules: [{ ...rule, allDown: 'fail-open' }], health: EVERYBODY_DOWN });
      assert.match(await ask('tcp', host, 443), /^b[123] 443$/);
      assert.match(await ask('udp', host, 443), /^b[123] 443$/);
    });
  }

  test('a connection that conntrack does not know any more is reset, or gets no answer', async () => {
    const rule = { name: 'all', haPorts: true };
    for (const [idle, expected] of [
      ['reset', ['ECONNRESET']],
      ['drop', ['timeout']],
    ] as const) {
      await load({ rules: [{ ...rule, flowPolicy: { idle: { tcp: idle } } }] });
      const held = lab.client();
      await held.do({
        kind: 'open',
        flows: [{ protocol: 'tcp', host: FRONTEND[4], port: 443, sourcePort: nextPort++ }],
      });
      await lab.forget();
      assert.deepEqual(await held.do({ kind: 'ask', timeoutMs: 700 }), expected);
    }
  });

  test('a packet out of the window ends no flow', async () => {
    await load({ rules: [{ name: 'all', haPorts: true }] });
    const held = lab.client();
    const flow = { protocol: 'tcp', host: FRONTEND[4], port: 443, sourcePort: nextPort++ } as const;
    const before = await held.do({ kind: 'open', flows: [flow] });
    const spoiled = `tcp sport ${flow.sourcePort} tcp flags & psh == psh limit rate 1/day burst 1 packets`;
    await lab.namespaces.nft(
      'client',
      `table ip spoil {
        chain out {
          type filter hook output priority 0; policy accept;
          ${spoiled} counter tcp sequence set 1
        }
      }`,
    );
    try {
      assert.deepEqual(await held.do({ kind: 'ask' }), before);
      assert.match(
        await lab.namespaces.must('client', 'nft', ['list', 'table', 'ip', 'spoil']),
        /packets 1 /,
      );
    } finally {
      await lab.namespaces.nft('client', 'delete table ip spoil');
    }
  });

  test('conntrack keeps flows as long as the rule says', async () => {
    await load({ rules: [{ name: 'all', haPorts: true, idleTimeout: { tcp: '5m', udp: '77s' } }] });
    const held = lab.client();
    const flow = { host: FRONTEND[4], port: 443 };
    await held.do({ kind: 'open', flows: [{ protocol: 'tcp', ...flow, sourcePort: nextPort++ }] });
    await held.once({ protocol: 'udp', ...flow, sourcePort: nextPort++ });
    const listing = await lab.namespaces.must('lb', 'conntrack', ['-L', '-d', FRONTEND[4]]);
    const seconds = (protocol: string): number =>
      Number(new RegExp(`^${protocol}\\s+\\d+ (\\d+)`, 'm').exec(listing)?.[1]);
    assert.ok(seconds('tcp') > 290 && seconds('tcp') <= 300, listing);
    assert.ok(seconds('udp') > 70 && seconds('udp') <= 77, listing);
  });

  test('packets and bytes are counted by backend and direction', async () => {
    await load({
      rules: [{ name: 'web', backendPool: 'web', protocol: 'tcp', frontendPort: 443, backendPort: 443 }],
    });
    await lab.namespaces.run('lb', 'nft', ['flush', 'set', 'inet', 'haports', 'traffic']);
    await ask('tcp', FRONTEND[4], 443);
    const listing = await lab.namespaces.must('lb', 'nft', ['list', 'set', 'inet', 'haports', 'traffic']);
    const counted = [
      ...listing.matchAll(/0x([0-9a-f]{8}) \. (original|reply) counter packets (\d+) bytes (\d+)/g),
    ];
    assert.deepEqual(counted.map(([, , direction]) => direction).sort(), ['original', 'reply'], listing);
    for (const [, , , packets, bytes] of counted)
      assert.ok(Number(packets) >= 2 && Number(bytes) > 100, listing);
  });
});
