import assert from 'node:assert/strict';
import test from 'node:test';
import { parseCidr } from '../../../src/model/address.js';
import type { ForwardingState } from '../../../src/model/forwarding.js';
import { createHasher } from '../../../src/selection/flow-hash.js';
import { Picker, NONE_EXCLUDED } from '../../../src/selection/picker.js';
import { aFrontend, aRule, aState, aTuple, aView } from './fixtures.js';

const hash = await createHasher();
const picker = new Picker(hash);
/** xxh32 0x14bb092e = 347801902 (docs/hash.md); mod 7 it is 0, whose owner in the fixture's table is backend 0. */
const tuple = aTuple('203.0.113.9:40000', '198.51.100.1:443');
const HASH = 0x14bb092e;

test('pick() takes the backend that owns slot hash mod size', () => {
  assert.equal(HASH % 7, 0);
  assert.deepEqual(picker.pick(aState(), tuple, NONE_EXCLUDED), {
    kind: 'picked',
    ruleIndex: 0,
    viewIndex: 0,
    backendIndex: 0,
    backendId: 'nvas/10.0.0.1',
    hash: HASH,
    slot: 0,
    reason: 'hash',
    skipped: 0,
  });
});

test('pickForRule() hashes as the rule says', () => {
  const expected = [
    ['five-tuple', false, 0x14bb092e],
    ['five-tuple', true, 0x5ec5cad5],
    ['source-ip-protocol', false, 0xabfd7671],
    ['source-ip', true, 0xd36fa9db],
  ] as const;
  for (const [distribution, symmetric, sum] of expected) {
    const state = aState({ configuration: { rules: [aRule({ distribution, symmetric })] } });
    const result = picker.pickForRule(state, 0, tuple, NONE_EXCLUDED);
    assert.ok(result.kind === 'picked');
    assert.equal(result.hash, sum);
    assert.equal(result.slot, sum % 7);
    assert.equal(result.backendIndex, [0, 1, 2, 0, 1, 2, 0][sum % 7]);
  }
});

test("pickForRule() hashes with the configuration's seed", () => {
  const seeded = picker.pickForRule(aState({ configuration: { seed: 77 } }), 0, tuple, NONE_EXCLUDED);
  assert.ok(seeded.kind === 'picked');
  assert.equal(seeded.hash, hash(Buffer.from('0406cb007109c63364019c4001bb', 'hex'), 77));
  assert.notEqual(seeded.hash, HASH);
});

test('pickForRule() uses the view of its rule', () => {
  const state: ForwardingState = {
    ...aState({ configuration: { rules: [aRule(), aRule({ name: 'second' })] } }),
    views: [aView(), aView({ key: 'nvas|alive', table: new Uint16Array(7).fill(2) })],
    viewOfRule: [0, 1],
  };
  const result = picker.pickForRule(state, 1, tuple, NONE_EXCLUDED);
  assert.ok(result.kind === 'picked');
  assert.deepEqual([result.ruleIndex, result.viewIndex, result.backendId], [1, 1, 'nvas/10.0.0.3']);
});

test('pick() says so when no rule covers the tuple', () => {
  const elsewhere = aTuple('203.0.113.9:40000', '198.51.100.9:443');
  assert.deepEqual(picker.pick(aState(), elsewhere, NONE_EXCLUDED), { kind: 'no-rule' });
});

test("pick() asks the frontend's lists before anything else", () => {
  const deny = parseCidr('203.0.113.0/24');
  assert.ok(deny);
  const frontends = [aFrontend({ deny: [deny] })];
  const state = aState({ configuration: { frontends }, view: { table: new Uint16Array(0) } });
  assert.deepEqual(picker.pick(state, tuple, NONE_EXCLUDED), { kind: 'denied', ruleIndex: 0 });
  const neighbour = aTuple('203.0.114.9:40000', '198.51.100.1:443');
  assert.equal(picker.pick(state, neighbour, NONE_EXCLUDED).kind, 'none');
});

test('pick() follows a new configuration', () => {
  assert.equal(picker.pick(aState(), tuple, NONE_EXCLUDED).kind, 'picked');
  const state = aState({ configuration: { rules: [] } });
  assert.equal(picker.pick(state, tuple, NONE_EXCLUDED).kind, 'no-rule');
});

for (const [table, excluded, expected] of [
  [[0, 1, 2, 0, 1, 2, 0], '1', [1, 1, 'retry', 1]],
  [[0, 1, 2, 0, 1, 2, 0], '1 2', [2, 2, 'retry', 2]],
  [[0, 0, 0, 0, 0, 0, 1], '1', [1, 6, 'retry', 6]],
  [[0, 1, 2, 0, 1, 2, 0], '2 3', [0, 0, 'hash', 0]],
  [[0, 1, 2, 0, 1, 2, 0], '9', [0, 0, 'hash', 0]],
] as const) {
  test(`pickForRule() walks ${table.join('')} to the first slot whose backend is not ${excluded}`, () => {
    const out = new Set(excluded.split(' ').map((last) => `nvas/10.0.0.${last}`));
    const pick = picker.pickForRule(aState({ view: { table: Uint16Array.from(table) } }), 0, tuple, out);
    assert.ok(pick.kind === 'picked');
    assert.deepEqual([pick.backendIndex, pick.slot, pick.reason, pick.skipped], expected);
  });
}

test('pickForRule() walks round the end of the table', () => {
  const state = aState({ view: { table: Uint16Array.of(1, 0, 0, 0, 0, 0, 0) } });
  const result = picker.pickForRule(state, 0, tuple, new Set(['nvas/10.0.0.1']), 5);
  assert.ok(result.kind === 'picked');
  assert.deepEqual([result.backendIndex, result.slot, result.skipped], [1, 0, 2]);
});

const EMPTY = { table: new Uint16Array(0) };
const FAIL_OPEN = { ...EMPTY, failOpenTable: Uint16Array.of(2, 1, 2, 1, 2, 1, 2) };
/** Without the third backend, which is free but does not serve. */
const TWO = { table: Uint16Array.of(0, 1, 0, 1, 0, 1, 0) };

for (const [what, allDown, view, excluded, expected] of [
  ['gives up when all in the table are excluded', 'reset', TWO, '1 2', 'all-excluded reset'],
  ['gives up and drops when all are excluded', 'drop', TWO, '1 2', 'all-excluded drop'],
  ['does not fail open when all are only excluded', 'fail-open', TWO, '1 2', 'all-excluded reset'],
  ['resets where no backend is eligible', 'reset', FAIL_OPEN, '', 'no-eligible reset'],
  ['drops where no backend is eligible', 'drop', FAIL_OPEN, '', 'no-eligible drop'],
  ['resets where there is nothing to fail open to', 'fail-open', EMPTY, '', 'no-eligible reset'],
  ['fails open', 'fail-open', FAIL_OPEN, '', '2 fail-open 0'],
  ['fails open, to a backend that is not excluded', 'fail-open', FAIL_OPEN, '3', '1 fail-open 1'],
  ['gives up when all are excluded under fail-open', 'fail-open', FAIL_OPEN, '3 2', 'all-excluded reset'],
] as const) {
  test(`pickForRule() ${what}`, () => {
    const state = aState({ configuration: { rules: [aRule({ allDown })] }, view });
    const out = new Set(excluded.split(' ').map((last) => `nvas/10.0.0.${last}`));
    const pick = picker.pickForRule(state, 0, tuple, out);
    const words =
      pick.kind === 'none' ? [pick.cause, pick.action] : [pick.backendIndex, pick.reason, pick.skipped];
    assert.equal(words.join(' '), expected);
  });
}

test('pickForRule() starts one slot later with each datagram', () => {
  const slots = Array.from({ length: 9 }, (_, sequence) => {
    const result = picker.pickForRule(aState(), 0, tuple, NONE_EXCLUDED, sequence);
    assert.ok(result.kind === 'picked');
    assert.equal(result.hash, HASH);
    return result.slot;
  });
  assert.deepEqual(slots, [0, 1, 2, 3, 4, 5, 6, 0, 1]);
});

test('pick() gives the same answer for a state that crossed a process boundary', () => {
  const state = aState();
  assert.deepEqual(
    picker.pick(structuredClone(state), structuredClone(tuple), NONE_EXCLUDED),
    picker.pick(state, tuple, NONE_EXCLUDED),
  );
});

test('pickForRule() throws on a rule that is not in the state', () => {
  assert.throws(() => picker.pickForRule(aState(), 1, tuple, NONE_EXCLUDED), RangeError);
});

test('pickForRule() throws on a table that names a backend that is not there', () => {
  const state = aState({ view: { table: new Uint16Array(7).fill(3) } });
  assert.throws(() => picker.pickForRule(state, 0, tuple, NONE_EXCLUDED), RangeError);
});
