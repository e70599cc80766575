import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress, parseCidr } from '../../../src/model/address.js';
import { explain } from '../../../src/selection/explain.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker } from '../../../src/selection/picker.js';
import { aBackend, aBackendState, aConfiguration, aFrontend, aRule, aState, aTuple } from './fixtures.js';

const picker = new Picker(await createHasher());
/** Hash 0x14bb092e, slot 0 of 7 (docs/hash.md). */
const tuple = aTuple('203.0.113.9:40000', '198.51.100.1:443');
const web = [{ first: 443, last: 443 }];

test('explain() tells the rule, hash input, slot, owner, endpoint and timeouts of a picked backend', () => {
  const explanation = explain(picker, aState(), tuple);
  assert.equal(explanation.revision, 5);
  assert.equal(explanation.tuple, 'tcp 203.0.113.9:40000 -> 198.51.100.1:443');
  assert.deepEqual(explanation.rule, {
    name: 'ha-ports',
    haPorts: true,
    ports: '1-65535',
    frontend: 'hub',
    frontendAddress: '198.51.100.1',
    backendPool: 'nvas',
  });
  assert.deepEqual(explanation.access, { admitted: true, because: 'no-lists' });
  assert.deepEqual(explanation.key, {
    distribution: 'five-tuple',
    symmetric: false,
    destinationFirst: false,
    algorithm: 'xxh32',
    fields: [
      { name: 'family', hex: '04', value: 'IPv4' },
      { name: 'protocol', hex: '06', value: 'tcp (6)' },
      { name: 'source address', hex: 'cb007109', value: '203.0.113.9' },
      { name: 'destination address', hex: 'c6336401', value: '198.51.100.1' },
      { name: 'source port', hex: '9c40', value: '40000' },
      { name: 'destination port', hex: '01bb', value: '443' },
    ],
    hex: '0406cb007109c63364019c4001bb',
    seed: 0,
    hash: 0x14bb092e,
  });
  assert.deepEqual(explanation.table, {
    size: 7,
    failOpen: false,
    slot: 0,
    owner: 'nvas/10.0.0.1',
    servingPriority: 0,
    perPacket: false,
  });
  assert.deepEqual(explanation.endpoint, {
    address: '10.0.0.1',
    port: 443,
    text: '10.0.0.1:443',
    floatingIp: false,
    portOffset: 0,
  });
  assert.deepEqual(explanation.timeouts, [
    { name: 'idle', valueMs: 240_000, origin: 'default' },
    { name: 'connect attempt', valueMs: 5000, origin: 'pool' },
    { name: 'embryonic', valueMs: 10_000, origin: 'limits' },
  ]);
  assert.equal(explanation.behaviour?.allDown, 'reset');
});

test('explain() names the fields in the order hashed when symmetric', () => {
  const state = aState({ configuration: { rules: [aRule({ symmetric: true })] } });
  const { key } = explain(picker, state, tuple);
  assert.equal(key?.destinationFirst, true);
  assert.deepEqual(
    key.fields.map(({ name, value }) => `${name} ${value}`),
    [
      'family IPv4',
      'protocol tcp (6)',
      'destination address 198.51.100.1',
      'source address 203.0.113.9',
      'destination port 443',
      'source port 40000',
    ],
  );
  assert.equal(key.hash, 0x5ec5cad5);
});

test('explain() shows only the fields that are hashed', () => {
  const names = (distribution: 'source-ip-protocol' | 'source-ip') =>
    explain(picker, aState({ configuration: { rules: [aRule({ distribution })] } }), tuple).key?.fields.map(
      ({ name }) => name,
    );
  assert.deepEqual(names('source-ip'), ['family', 'source address', 'destination address']);
  assert.deepEqual(names('source-ip-protocol'), [
    'family',
    'protocol',
    'source address',
    'destination address',
  ]);
});

test('explain() lists every candidate with its share and why it was skipped', () => {
  const backends = [
    aBackendState(aBackend('nva-1', '10.0.0.1')),
    aBackendState(aBackend('nva-2', '10.0.0.2', { weight: 2 }), { effectiveWeight: 3 }),
    aBackendState(aBackend('nva-3', '10.0.0.3'), {
      health: 'down',
      eligible: false,
      valid: false,
      invalidBecause: 'probe-down',
      serving: false,
      exclusion: 'probe-down',
    }),
    aBackendState(aBackend('nva-4', '10.0.0.4', { priority: 1 }), { serving: false, exclusion: 'standby' }),
  ];
  const state = aState({ view: { backends, table: Uint16Array.of(0, 1, 1, 0, 1, 1, 1) } });
  const explanation = explain(picker, state, tuple, new Set(['nvas/10.0.0.1']));
  assert.equal(explanation.table?.owner, 'nvas/10.0.0.1');
  assert.ok(explanation.result.kind === 'picked');
  assert.equal(explanation.result.backendId, 'nvas/10.0.0.2');
  assert.deepEqual(explanation.excluded, ['nvas/10.0.0.1']);
  assert.deepEqual(
    explanation.candidates.map((each) => [
      each.name,
      each.slots,
      each.share,
      each.chosen,
      each.skipped,
      each.valid,
      each.effectiveWeight,
    ]),
    [
      ['nva-1', 2, 2 / 7, false, 'excluded', true, 1],
      ['nva-2', 5, 5 / 7, true, undefined, true, 3],
      ['nva-3', 0, 0, false, 'probe-down', false, 1],
      ['nva-4', 0, 0, false, 'standby', true, 1],
    ],
  );
});

test('explain() says which rules cover the tuple too and why they yield', () => {
  const configuration = aConfiguration({
    frontends: [aFrontend(), aFrontend({ name: 'any', address: ipAddress('0.0.0.0') })],
    rules: [
      aRule(),
      aRule({ name: 'web', haPorts: false, ports: web }),
      aRule({ name: 'web-again', haPorts: false, ports: web }),
      aRule({ name: 'any-web', frontend: 'any', haPorts: false, ports: web }),
      aRule({ name: 'udp-only', protocols: ['udp'] }),
    ],
  });
  const explanation = explain(picker, aState({ configuration }), tuple);
  assert.equal(explanation.rule?.name, 'web');
  assert.deepEqual(explanation.otherRules, [
    { name: 'ha-ports', why: 'named-port-wins' },
    { name: 'web-again', why: 'earlier-rule-wins' },
    { name: 'any-web', why: 'exact-address-wins' },
  ]);
});

test('explain() says of two HA-ports rules that the earlier one wins', () => {
  const configuration = aConfiguration({ rules: [aRule(), aRule({ name: 'second' })] });
  const explanation = explain(picker, aState({ configuration }), tuple);
  assert.deepEqual(explanation.otherRules, [{ name: 'second', why: 'earlier-rule-wins' }]);
});

test('explain() says of every rule why it does not fit when none does', () => {
  const configuration = aConfiguration({
    frontends: [aFrontend(), aFrontend({ name: 'other', address: ipAddress('198.51.100.2') })],
    rules: [
      aRule({ name: 'a', protocols: ['udp'] }),
      aRule({ name: 'b', frontend: 'other' }),
      aRule({ name: 'c', haPorts: false, ports: [{ first: 80, last: 80 }] }),
    ],
  });
  const explanation = explain(picker, aState({ configuration }), tuple);
  assert.deepEqual(explanation.result, { kind: 'no-rule' });
  assert.equal(explanation.rule, undefined);
  assert.deepEqual(explanation.otherRules, [
    { name: 'a', why: 'other-protocol' },
    { name: 'b', why: 'other-address' },
    { name: 'c', why: 'other-port' },
  ]);
});

test('explain() names the entry that denies and goes no further', () => {
  const block = parseCidr('203.0.113.0/24');
  assert.ok(block);
  const state = aState({ configuration: { frontends: [aFrontend({ deny: [block] })] } });
  const explanation = explain(picker, state, tuple);
  assert.deepEqual(explanation.access, { admitted: false, because: 'deny', block: '203.0.113.0/24' });
  assert.equal(explanation.result.kind, 'denied');
  assert.equal(explanation.key, undefined);
  assert.deepEqual(explanation.candidates, []);
});

test('explain() shows the hash but no table when no backend is eligible', () => {
  const explanation = explain(picker, aState({ view: { table: new Uint16Array(0) } }), tuple);
  assert.equal(explanation.result.kind, 'none');
  assert.equal(explanation.key?.hash, 0x14bb092e);
  assert.equal(explanation.table, undefined);
  assert.equal(explanation.endpoint, undefined);
});

test('explain() shows the fail-open table with its shares', () => {
  const backends = [1, 2].map((n) =>
    aBackendState(aBackend(`nva-${n}`, `10.0.0.${n}`), {
      health: 'down',
      eligible: false,
      serving: false,
      exclusion: 'probe-down',
    }),
  );
  const state = aState({
    configuration: { rules: [aRule({ allDown: 'fail-open' })] },
    view: { backends, table: new Uint16Array(0), failOpenTable: Uint16Array.of(1, 0, 0, 0, 0) },
  });
  const explanation = explain(picker, state, aTuple('203.0.113.9:40000', '198.51.100.1:443'));
  assert.equal(explanation.table?.failOpen, true);
  assert.deepEqual(
    explanation.candidates.map(({ share, skipped }) => [share, skipped]),
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
  const floating = aState({ configuration: { rules: [aRule({ floatingIp: true })] }, view: { backends } });
  assert.equal(explain(picker, floating, tuple).endpoint?.text, '127.1.0.1:443');
  const mapped = aRule({ haPorts: false, ports: web, portOffset: 6000 });
  const state = aState({ configuration: { rules: [mapped] } });
  assert.equal(explain(picker, state, tuple).endpoint?.text, '10.0.0.1:6443');
});

test('explain() of UDP has the UDP idle time alone and says when datagrams go one by one', () => {
  const state = aState({ configuration: { rules: [aRule({ udp: { perPacket: true } })] } });
  const explanation = explain(picker, state, { ...tuple, protocol: 'udp' });
  assert.deepEqual(explanation.timeouts, [{ name: 'idle', valueMs: 30_000, origin: 'rule' }]);
  assert.equal(explanation.table?.perPacket, true);
  assert.equal(explain(picker, state, tuple).table?.perPacket, false);
});

test('explain() survives JSON', () => {
  const explanation = explain(picker, aState(), tuple);
  assert.deepEqual(JSON.parse(JSON.stringify(explanation)), explanation);
});
