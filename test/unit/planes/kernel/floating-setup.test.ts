import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { kernelInput } from '../../../../src/planes/kernel/program.js';
import { floatingSetup } from '../../../../src/planes/kernel/ebpf/floating.js';
import type { KernelOptions } from '../../../../src/model/configuration.js';
import { deltaText, routingText, type KernelSetup } from '../../../../src/planes/netfilter/setup.js';
import { KernelStates } from '../../../support/kernel-states.js';

const RAW = {
  frontends: [{ name: 'hub', address: '10.9.0.10' }],
  backendPools: [
    {
      name: 'nvas',
      backends: [
        { name: 'b1', address: '10.2.0.11' },
        { name: 'b2', address: '10.2.0.12' },
      ],
    },
  ],
  rules: [
    {
      name: 'web',
      frontend: 'hub',
      backendPool: 'nvas',
      protocol: 'tcp',
      frontendPort: 443,
      backendPort: 443,
    },
    { name: 'all', frontend: 'hub', backendPool: 'nvas', haPorts: true },
  ],
};

describe('floatingSetup()', () => {
  let states: KernelStates;

  before(async () => {
    states = await KernelStates.create();
  });

  function setup(
    options: Partial<KernelOptions>,
    conditions: Parameters<KernelStates['state']>[2] = {},
  ): KernelSetup {
    return floatingSetup(kernelInput(states.state(RAW, options, conditions)));
  }

  const L2 = { mode: 'floating-l2', interface: 'eth0' } as const;
  const ROUTED = { mode: 'floating-routed' } as const;

  test('has one table at the ingress of the interface, and nothing of the routing, with floating-l2', () => {
    const { family, structure, routing } = setup(L2);
    assert.equal(family, 'netdev');
    assert.match(structure, /^table netdev haports \{/);
    assert.match(structure, /type filter hook ingress device "eth0" priority 0; policy accept;/);
    assert.deepEqual(routing, []);
  });

  test('has a routing table and a rule for each backend with floating-routed', () => {
    const lines = routingText(setup(ROUTED)).trim().split('\n');
    assert.equal(lines.length, 4);
    const [, table] = /via 10\.2\.0\.11 table (\d+)/.exec(lines.join('\n')) ?? [];
    assert.match(lines.join('\n'), new RegExp(`rule add pref \\d+ fwmark 0x[0-9a-f]+ lookup ${table} `));
  });

  test('sends each port to the rule that names it first', () => {
    const { structure } = setup(L2);
    assert.match(
      structure,
      /tcp dport vmap \{ 443 : goto t-web, 1-442 : goto t-all, 444-65535 : goto t-all \}/,
    );
    assert.match(structure, /udp dport vmap \{ 1-65535 : goto u-all \}/);
    assert.match(structure, /meta l4proto != \{ tcp, udp \} goto o-all/);
  });

  for (const options of [L2, ROUTED]) {
    test(`differs in elements only when backends go down, ${options.mode}`, () => {
      const up = setup(options);
      const down = setup(options, { admin: { b2: 'down' } });
      const delta = deltaText(up, down) ?? '';
      assert.notEqual(delta, '');
      assert.equal(up.structure, down.structure);
      assert.match(delta, new RegExp(`add element ${up.family ?? 'inet'} haports out-nvas `));
    });
  }

  test('keeps no flows where the hash alone decides', () => {
    const { structure } = setup({ ...L2, flowState: 'stateless' });
    assert.doesNotMatch(structure, /pins-|ends-|flows-|settling/);
    assert.match(structure, /map parts /);
  });

  test('says that an interface is needed', () => {
    assert.throws(() => setup({ mode: 'floating-l2' }), TypeError);
  });
});
