import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress, parseCidr } from '../../../src/model/address.js';
import type { Explanation } from '../../../src/api/views.js';
import { portSetOf } from '../../../src/model/ports.js';
import { explain } from '../../../src/selection/explain.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import type { RuleParts } from '../../support/forwarding-state.js';
import { aBackend, aBackendState, aFrontend, aRule, aState, aTuple } from './fixtures.js';

const picker = new Picker(await createHasher());
/** Hash 0x14bb092e, slot 0 of 7 (docs/hash.md). */
const tuple = aTuple('203.0.113.9:40000', '198.51.100.1:443');

function explained(parts: Parameters<typeof aState>[0] = {}, ...excluded: readonly string[]): Explanation {
  return explain(picker, aState(parts), tuple, new Set(excluded));
}

/** With one rule, which is unusual in this. */
const withRule = (rule: RuleParts): Explanation => explained({ configuration: { rules: [aRule(rule)] } });

test('explain() tells the rule, hash input, slot, owner, endpoint and timeouts of a picked backend', () => {
  // As JSON, which is how it is asked for.
  const { revision, tuple, rule, access, key, table, endpoint, timeouts, behaviour } = JSON.parse(
    JSON.stringify(explained()),
  ) as Explanation;
  assert.deepEqual(
    [revision, tuple, behaviour?.allDown],
    [5, 'tcp 203.0.113.9:40000 -> 198.51.100.1:443', 'reset'],
  );
  assert.deepEqual(rule, {
    ...{ name: 'ha-ports', haPorts: true, ports: '1-65535', backendPool: 'nvas' },
    ...{ frontend: 'hub', frontendAddress: '198.51.100.1' },
  });
  assert.deepEqual(access, { admitted: true, because: 'no-lists' });
  assert.deepEqual(key, {
    ...{ distribution: 'five-tuple', symmetric: false, destinationFirst: false, algorithm: 'xxh32' },
    fields: [
      { name: 'family', hex: '04', value: 'IPv4' },
      { name: 'protocol', hex: '06', value: 'tcp (6)' },
      { name: 'source address', hex: 'cb007109', value: '203.0.113.9' },
      { name: 'destination address', hex: 'c6336401', value: '198.51.100.1' },
      { name: 'source port', hex: '9c40', value: '40000' },
      { name: 'destination port', hex: '01bb', value: '443' },
    ],
    ...{ hex: '0406cb007109c63364019c4001bb', seed: 0, hash: 0x14bb092e },
  });
  assert.deepEqual(table, {
    ...{ size: 7, failOpen: false, slot: 0, owner: 'nvas/10.0.0.1', servingPriority: 0, perPacket: false },
  });
  assert.deepEqual(endpoint, {
    ...{ address: '10.0.0.1', port: 443, text: '10.0.0.1:443', floatingIp: false, portOffset: 0 },
  });
  assert.deepEqual(timeouts, [
    { name: 'idle', valueMs: 240_000, origin: 'default' },
    { name: 'connect attempt', valueMs: 5000, origin: 'pool' },
    { name: 'embryonic', valueMs: 10_000, origin: 'limits' },
  ]);
});

for (const [layout, hash, names] of [
  [
    { distribution: 'five-tuple', symmetric: true },
    0x5ec5cad5,
    'family, protocol, destination address, source address, destination port, source port',
  ],
  [{ distribution: 'source-ip' }, 0x12c24181, 'family, source address, destination address'],
  [
    { distribution: 'source-ip-protocol' },
    0xabfd7671,
    'family, protocol, source address, destination address',
  ],
] as const) {
  test(`explain() names the fields that are hashed, in that order: ${Object.values(layout).join(' ')}`, () => {
    const { key } = withRule(layout);
    assert.equal(key?.fields.map(({ name }) => name).join(', '), names);
    assert.deepEqual([key.hash, key.destinationFirst], [hash, 'symmetric' in layout]);
  });
}

test('explain() lists every candidate with its share and why it was skipped', () => {
  const down = { health: 'down', eligible: false, valid: false, serving: false } as const;
  const backends = [
    aBackendState(aBackend('nva-1', '10.0.0.1')),
    aBackendState(aBackend('nva-2', '10.0.0.2', { weight: 2 }), { effectiveWeight: 3 }),
    aBackendState(aBackend('nva-3', '10.0.0.3'), { ...down, exclusion: 'probe-down' }),
    aBackendState(aBackend('nva-4', '10.0.0.4', { priority: 1 }), { serving: false, exclusion: 'standby' }),
  ];
  const view = { backends, table: Uint16Array.of(0, 1, 1, 0, 1, 1, 1) };
  const { table, result, excluded, candidates } = explained({ view }, 'nvas/10.0.0.1');
  assert.equal(table?.owner, 'nvas/10.0.0.1');
  assert.equal(result.kind === 'picked' && result.backendId, 'nvas/10.0.0.2');
  assert.deepEqual(excluded, ['nvas/10.0.0.1']);
  assert.deepEqual(
    candidates.map((one) => [
      one.name,
      one.slots,
      one.share,
      one.chosen,
      one.skipped,
      one.valid,
      one.effectiveWeight,
    ]),
    [
      ['nva-1', 2, 2 / 7, false, 'excluded', true, 1],
      ['nva-2', 5, 5 / 7, true, undefined, true, 3],
      ['nva-3', 0, 0, false, 'probe-down', false, 1],
      ['nva-4', 0, 0, false, 'standby', true, 1],
    ],
  );
});

const FRONTENDS = [
  aFrontend(),
  aFrontend({ name: 'any', address: ipAddress('0.0.0.0') }),
  aFrontend({ name: 'other', address: ipAddress('198.51.100.2') }),
];
const WEB = { haPorts: false, ports: portSetOf(443) };

for (const [what, rules, winner, others] of [
  [
    'which rules cover the tuple too and why they yield',
    [
      {},
      { name: 'web', ...WEB },
      { name: 'web-again', ...WEB },
      { name: 'any-web', frontend: 'any', ...WEB },
      { name: 'udp-only', protocols: ['udp'] },
    ],
    'web',
    'ha-ports named-port-wins, web-again earlier-rule-wins, any-web exact-address-wins',
  ],
  [
    'that the earlier of two HA-ports rules wins',
    [{}, { name: 'second' }],
    'ha-ports',
    'second earlier-rule-wins',
  ],
  [
    'why each rule does not fit when none does',
    [
      { name: 'a', protocols: ['udp'] },
      { name: 'b', frontend: 'other' },
      { name: 'c', haPorts: false, ports: portSetOf(80) },
    ],
    undefined,
    'a other-protocol, b other-address, c other-port',
  ],
] as const satisfies readonly (readonly [string, readonly RuleParts[], string | undefined, string])[]) {
  test(`explain() says ${what}`, () => {
    const { rule, result, otherRules } = explained({
      configuration: { frontends: FRONTENDS, rules: rules.map(aRule) },
    });
    assert.equal(rule?.name, winner);
    assert.equal(result.kind === 'no-rule', winner === undefined);
    assert.equal(otherRules.map(({ name, why }) => `${name} ${why}`).join(', '), others);
  });
}

test('explain() names the entry that denies and goes no further', () => {
  const deny = [parseCidr('203.0.113.0/24') ?? assert.fail()];
  const { access, result, key, candidates } = explained({
    configuration: { frontends: [aFrontend({ deny })] },
  });
  assert.deepEqual(access, { admitted: false, because: 'deny', block: '203.0.113.0/24' });
  assert.deepEqual([result.kind, key, candidates], ['denied', undefined, []]);
});

test('explain() shows the hash but no table when no backend is eligible', () => {
  const { result, key, table, endpoint } = explained({ view: { table: new Uint16Array(0) } });
  assert.deepEqual([result.kind, key?.hash, table, endpoint], ['none', 0x14bb092e, undefined, undefined]);
});

test('explain() shows the fail-open table with its shares', () => {
  const down = { health: 'down', eligible: false, serving: false, exclusion: 'probe-down' } as const;
  const { table, candidates } = explained({
    configuration: { rules: [aRule({ allDown: 'fail-open' })] },
    view: {
      backends: [1, 2].map((n) => aBackendState(aBackend(`nva-${n}`, `10.0.0.${n}`), down)),
      ...{ table: new Uint16Array(0), failOpenTable: Uint16Array.of(1, 0, 0, 0, 0) },
    },
  });
  assert.equal(table?.failOpen, true);
  assert.deepEqual(
    candidates.map(({ share, skipped }) => [share, skipped]),
    [
      [0.8, undefined],
      [0.2, undefined],
    ],
  );
});

test('explain() shows the alias with floating IP and the moved port without', () => {
  const floatingAddresses = { hub: ipAddress('127.1.0.1') };
  const backends = [1, 2, 3].map((n) =>
    aBackendState(aBackend(`nva-${n}`, `10.0.0.${n}`, { floatingAddresses })),
  );
  const floating = explained({ configuration: { rules: [aRule({ floatingIp: true })] }, view: { backends } });
  assert.equal(floating.endpoint?.text, '127.1.0.1:443');
  assert.equal(withRule({ ...WEB, portOffset: 6000 }).endpoint?.text, '10.0.0.1:6443');
});

test('explain() of UDP has the UDP idle time alone and says when datagrams go one by one', () => {
  const state = aState({ configuration: { rules: [aRule({ udp: { perPacket: true } })] } });
  const { timeouts, table } = explain(picker, state, { ...tuple, protocol: 'udp' });
  assert.deepEqual(timeouts, [{ name: 'idle', valueMs: 30_000, origin: 'rule' }]);
  assert.equal(table?.perPacket, true);
  assert.equal(explain(picker, state, tuple).table?.perPacket, false);
});
