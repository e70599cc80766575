import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { kernelInput, type KernelInput } from '../../../../src/planes/kernel/program.js';
import { natSetup } from '../../../../src/planes/kernel/nat/rules.js';
import { ipAddress } from '../../../../src/model/address.js';
import type { KernelOptions } from '../../../../src/model/configuration.js';
import { deltaText } from '../../../../src/planes/netfilter/setup.js';
import { KernelStates } from '../../../support/kernel-states.js';
import type { Conditions } from '../../../support/state-factory.js';

const BACKENDS = ['10.2.0.11', '10.2.0.12', '10.2.0.13'];

describe('natSetup()', () => {
  let states: KernelStates;
  before(async () => {
    states = await KernelStates.create();
  });

  function input(
    rule: object = {},
    conditions: Conditions = {},
    options: Partial<KernelOptions> = {},
  ): KernelInput {
    const raw = {
      frontends: [{ name: 'hub', address: '10.9.0.10' }],
      probes: [{ name: 'alive', protocol: 'tcp', port: 80 }],
      backendPools: [
        { name: 'nvas', backends: BACKENDS.map((address, index) => ({ name: `b${index + 1}`, address })) },
      ],
      rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true, ...rule }],
    };
    return kernelInput(states.state(raw, { tableSize: 251, ...options }, conditions));
  }

  function chain(text: string, name: string): string[] {
    const lines = text.split('\n');
    const start = lines.indexOf(`  chain ${name} {`);
    assert.ok(start > 0, `chain ${name}`);
    return lines.slice(start + 1, lines.indexOf('  }', start)).map((line) => line.trim());
  }

  function keys(setup: ReturnType<typeof natSetup>, name: string): string[] {
    return [...(setup.sets.get(name)?.keys() ?? ['not there'])];
  }

  const markOf = (from: KernelInput, address: string): string => {
    const mark = from.backends.find(({ id }) => id.endsWith(`/${address}`))?.mark ?? 0;
    return `0x${mark.toString(16).padStart(8, '0')}`;
  };

  test('natSetup() has the table by slot, as nft lists it', () => {
    const from = input();
    const setup = natSetup(from);
    const slots = setup.sets.get('to-nvas.alive');
    assert.deepEqual(
      [...(slots?.keys() ?? [])],
      Array.from({ length: 251 }, (_, slot) => String(slot)),
    );
    const marks = from.tables[0]?.marks ?? [];
    assert.equal(new Set(marks).size, 3);
    for (const [slot, mark] of marks.entries()) assert.equal(Number(slots?.get(String(slot))), mark);
    assert.equal(setup.sets.get('addr4')?.get(markOf(from, '10.2.0.12')), '10.2.0.12');
    assert.deepEqual(keys(setup, 'out-nvas.alive'), []);
    assert.equal(setup.table, 'haports');
    assert.deepEqual(setup.routing, []);
  });

  test('natSetup() is another text by its elements alone when a backend goes down', () => {
    const healthy = input();
    const failing = input({}, { health: { b2: 'down' } });
    const setup = natSetup(failing);
    assert.deepEqual(keys(setup, 'out-nvas.alive'), [markOf(failing, '10.2.0.12')]);
    const delta = deltaText(natSetup(healthy), setup) ?? '';
    assert.match(delta, /^delete element inet haports to-nvas\.alive /);
    assert.equal(delta.trim().split('\n').length, 3, delta);
    // A third of the slots, and Maglev moves a few more.
    assert.ok(delta.split(':').length - 1 < 251 / 2, delta);
  });

  test('natSetup() puts the marks of policies where packets meet them, and azure leaves TCP alone', () => {
    const azure = natSetup(input({}, { health: { b2: 'down' } }));
    assert.deepEqual(keys(azure, 'acted'), []);
    const policy = { probeDown: { tcp: 'rebalance', udp: 'drop' } };
    const from = input({ flowPolicy: policy }, { health: { b2: 'down' } });
    const setup = natSetup(from);
    const mark = [markOf(from, '10.2.0.12')];
    // TCP cannot be moved to another address.
    assert.deepEqual(keys(setup, 'tcp-reset-all'), mark);
    assert.deepEqual(keys(setup, 'udp-drop-all'), mark);
    assert.deepEqual(keys(setup, 'tcp-drop-all'), []);
    assert.deepEqual(keys(setup, 'acted'), mark);
  });

  test('natSetup() hashes what the distribution says, again with another seed where the backend is out', () => {
    const rules = (distribution: string): string[] =>
      chain(natSetup(input({ distribution })).structure, 'r-all').filter((line) => line.includes('jhash'));
    const five = rules('five-tuple');
    const ports = 'ip saddr . ip daddr . meta l4proto . th sport . th dport mod 251 seed';
    assert.equal(
      five[0],
      `meta l4proto { tcp, udp } ct mark set jhash ${ports} 0x00000000 map @to-nvas.alive`,
    );
    assert.equal(
      five[1],
      'meta l4proto != { tcp, udp } ct mark set jhash ip saddr . ip daddr . meta l4proto mod 251 seed 0x00000000 map @to-nvas.alive',
    );
    assert.equal(
      five[2],
      `meta l4proto { tcp, udp } ct mark @out-nvas.alive ct mark set jhash ${ports} 0x00000001 map @to-nvas.alive`,
    );
    assert.equal(five.length, 8);
    assert.match(
      rules('source-ip-protocol')[0] ?? '',
      /^ct mark set jhash ip saddr \. ip daddr \. meta l4proto mod 251 /,
    );
    assert.match(rules('source-ip')[0] ?? '', /^ct mark set jhash ip saddr \. ip daddr mod 251 /);
  });

  test('natSetup() takes other protocols only with all ports', () => {
    const steer = (rule: object): string => chain(natSetup(input(rule)).structure, 'f-hub').join('\n');
    assert.match(steer({}), /meta l4proto != \{ tcp, udp \} goto r-all/);
    assert.doesNotMatch(steer({ listenPorts: '8000-8099' }), /l4proto/);
  });

  test('natSetup() maps a port, and a range port by port', () => {
    const translate = (ports: object): string => {
      const rule = { haPorts: undefined, protocol: 'tcp', ...ports };
      return chain(natSetup(input(rule)).structure, 'r-all').at(-2) ?? '';
    };
    const target = 'meta l4proto { tcp, udp } dnat ip to ct mark map @addr4';
    assert.equal(translate({ frontendPort: 443, backendPort: 6443 }), `${target} : 6443`);
    assert.equal(
      translate({ frontendPort: '80-82', backendPort: 8080 }),
      `${target} : th dport map { 80 : 8080, 81 : 8081, 82 : 8082 }`,
    );
    assert.equal(translate({ frontendPort: 443, backendPort: 443 }), target);
  });

  test('natSetup() masquerades all, or only who would get answers past this machine', () => {
    const all = natSetup(input({}, {}, { returnPath: 'masquerade' }));
    assert.equal(chain(all.structure, 'leave').length, 2);
    assert.equal(all.sets.has('hairpin4'), false);
    const routed = natSetup(input());
    assert.deepEqual(keys(routed, 'hairpin4'), BACKENDS);
    assert.match(chain(routed.structure, 'leave')[1] ?? '', / ip saddr @hairpin4 masquerade$/);
  });

  test('natSetup() keeps flows as long as the rule says, by protocol and family', () => {
    const { structure } = natSetup(input({ idleTimeout: { tcp: '5m', udp: '2s' } }));
    assert.match(
      structure,
      /ct timeout tcp4-300 \{\n {4}protocol tcp\n {4}l3proto ip\n.* established : 300, close_wait : 300 \}/,
    );
    assert.match(structure, /policy = \{ unreplied : 2, replied : 2 \}/);
  });

  test('natSetup() is the same for the same input, whatever the order of backends', () => {
    const backwards = input();
    const setup = natSetup({ ...backwards, backends: [...backwards.backends].reverse() });
    assert.equal(deltaText(natSetup(input()), setup), '');
  });

  test('natSetup() has a family of its own for each frontend, and never a zone', () => {
    const from = input();
    const zoned = ipAddress('fe80::1%eth0');
    const { structure } = natSetup({
      ...from,
      frontends: [...from.frontends, { name: 'link', address: zoned, allow: [], deny: [] }],
    });
    assert.match(structure, /ip6 daddr vmap \{ fe80::1 : goto f-link \}/);
    assert.doesNotMatch(structure, /%/);
  });
});
