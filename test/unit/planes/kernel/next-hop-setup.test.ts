import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { backendMarks, kernelInput } from '../../../../src/planes/kernel/program.js';
import { nextHopSetup } from '../../../../src/planes/kernel/ebpf/next-hop.js';
import { parseCidr } from '../../../../src/model/address.js';
import type { KernelOptions } from '../../../../src/model/configuration.js';
import { deltaText, type KernelSetup } from '../../../../src/planes/netfilter/setup.js';
import { ipCommandLine } from '../../../../src/planes/netfilter/routing.js';
import { KernelStates } from '../../../support/kernel-states.js';
import type { Conditions } from '../../../support/state-factory.js';

const states = await KernelStates.create();
const SPOKES = ['10.10.0.0/16', '10.20.0.0/16', 'fd10::/64', '10.30.0.0/16', 'fd20::/64'].flatMap(
  (text) => parseCidr(text) ?? [],
);

interface Wishes {
  readonly options?: Partial<KernelOptions>;
  readonly rules?: readonly object[];
  readonly conditions?: Conditions;
}

const HA_PORTS = { name: 'all', haPorts: true };

function setup({ options = {}, rules = [HA_PORTS], conditions = {} }: Wishes = {}): KernelSetup {
  const raw = {
    frontends: [{ name: 'beyond', address: '0.0.0.0', deny: ['10.10.9.0/24'] }],
    probes: [{ name: 'alive', protocol: 'tcp', port: 9000 }],
    backendPools: [
      {
        name: 'nvas',
        backends: [
          { name: 'n1', address: '10.0.0.11' },
          { name: 'n2', address: '10.0.0.12' },
        ],
      },
    ],
    rules: rules.map((rule) => ({ frontend: 'beyond', backendPool: 'nvas', probe: 'alive', ...rule })),
  };
  return nextHopSetup(
    kernelInput(states.state(raw, { mode: 'next-hop', spokes: SPOKES, ...options }, conditions)),
  );
}

/** The rules of a chain, as they are written. */
function chain({ structure }: KernelSetup, name: string): readonly string[] {
  const [, body] = new RegExp(`^  chain ${name} \\{\\n([^]*?)^  \\}`, 'm').exec(structure) ?? [];
  assert.ok(body !== undefined, `chain ${name}`);
  return body
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('type '));
}

describe('nextHopSetup()', () => {
  test("has a rule and a table of the machine's routing for each backend, and for a backend that was removed", () => {
    const marks = backendMarks('haports', ['nvas/10.0.0.11', 'nvas/10.0.0.12']);
    const lines = setup().routing.map((entry) => ipCommandLine('add', entry));
    assert.equal(lines.length, 4);
    for (const [id, gateway] of [
      ['nvas/10.0.0.11', '10.0.0.11'],
      ['nvas/10.0.0.12', '10.0.0.12'],
    ] as const) {
      const route = lines.find((line) => line.startsWith(`ip -4 route add default via ${gateway} table `));
      const table = route?.split(' ')[8];
      const mark = `0x${marks.get(id)?.toString(16)}`;
      assert.ok(
        lines.includes(`ip -4 rule add pref 680 fwmark ${mark} lookup ${table} protocol 104`),
        lines.join('\n'),
      );
    }
  });

  test('hashes from an earlier spoke to a later one as it is, and the other way round', () => {
    const one = setup();
    assert.deepEqual(chain(one, 'new4'), [
      'ip saddr vmap { 10.10.0.0/16 : goto from4-0, 10.20.0.0/16 : goto from4-1, 10.30.0.0/16 : goto from4-2 }',
    ]);
    assert.deepEqual(chain(one, 'from4-1'), [
      'ip daddr vmap { 10.10.0.0/16 : goto back4, 10.30.0.0/16 : goto there4 }',
    ]);
    const first = (name: string): string => chain(one, name).find((line) => line.includes('jhash')) ?? '';
    assert.match(
      first('r-all'),
      /jhash ip saddr \. ip daddr \. meta l4proto \. th sport \. th dport mod 4093 /,
    );
    assert.match(
      first('b-all'),
      /jhash ip daddr \. ip saddr \. meta l4proto \. th dport \. th sport mod 4093 /,
    );
  });

  test('goes by the direction of the flow without spokes', () => {
    const one = setup({ options: { spokes: [] } });
    assert.deepEqual(chain(one, 'new4'), ['ct direction reply goto back4', 'goto there4']);
  });

  test('balances nothing of a family that has fewer than two spokes', () => {
    const one = setup({ options: { spokes: SPOKES.slice(0, 1) } });
    assert.deepEqual(chain(one, 'new4'), []);
  });

  test("leaves alone what is its own, another interface's, a backend's or has crossed one, in that order", () => {
    assert.deepEqual(chain(setup({ options: { interface: 'eth1' } }), 'cross').slice(0, 6), [
      'iifname "lo" accept',
      'iifname != "eth1" accept',
      'fib daddr type != unicast accept',
      'ip daddr @nva4 accept',
      'ip6 daddr @nva6 accept',
      'ether saddr @near accept',
    ]);
  });

  test('finds the rule of a pinned flow by the port to which it was opened', () => {
    const rules = [{ name: 'web', protocol: 'tcp', frontendPort: 443, backendPort: 443 }, HA_PORTS];
    assert.match(
      chain(setup({ rules }), 'back4').join('\n'),
      /meta l4proto tcp ct original proto-dst vmap \{ 443 : goto b-web, 1-442 : goto b-all, 444-65535 : goto b-all \}/,
    );
  });

  test('finds the same rule for both directions without flow state: the first that has either port', () => {
    const rules = [{ name: 'web', protocol: 'tcp', frontendPort: 443, backendPort: 443 }, HA_PORTS];
    const texts = chain(setup({ rules, options: { flowState: 'stateless' } }), 'there4');
    assert.deepEqual(texts.slice(0, 3), [
      'tcp dport { 443 } goto r-web',
      'tcp sport { 443 } goto r-web',
      'tcp dport { 1-65535 } goto r-all',
    ]);
  });

  test('asks conntrack nothing where packets are balanced without flow state', () => {
    const { structure } = setup({ options: { flowState: 'stateless' } });
    const words = structure.split('\n').filter((line) => /\bct\b/.test(line));
    // Who is near is learned from connections of this machine itself.
    assert.ok(
      words.every((line) => line.includes('update @near')),
      words.join('\n'),
    );
    assert.equal(words.length, 2);
    assert.match(structure, /chain cross \{\n {4}type filter hook prerouting priority -300;/);
  });

  test('a change of health is a change of elements', () => {
    const up = setup();
    const down = setup({ conditions: { health: { n2: 'down' } } });
    assert.equal(up.structure, down.structure);
    assert.deepEqual(up.routing, down.routing);
    assert.match(deltaText(up, down) ?? '', /add element inet haports out-nvas\.alive \{ 0x[0-9a-f]{8} \}/);
  });

  test('rebalance moves TCP, by a set of its own', () => {
    const flowPolicy = { preset: 'azure', probeDown: { tcp: 'rebalance', udp: 'rebalance' } };
    const { sets } = setup({ rules: [{ ...HA_PORTS, flowPolicy }], conditions: { health: { n2: 'down' } } });
    assert.equal(sets.get('tcp-rebalance-all')?.size, 1);
    assert.equal(sets.get('tcp-reset-all')?.size, 0);
  });

  test('names of chains differ for all rules and spokes', () => {
    for (const flowState of ['pinned', 'stateless'] as const) {
      const { structure } = setup({ options: { flowState } });
      const names = Array.from(structure.matchAll(/^ {2}chain (\S+) /gm), ([, name]) => name);
      assert.equal(new Set(names).size, names.length);
    }
  });
});
