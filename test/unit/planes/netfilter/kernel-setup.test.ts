import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  deltaText,
  removeTableText,
  replaceTableText,
  routingText,
  type KernelSetup,
} from '../../../../src/planes/netfilter/setup.js';
import { anyIpRoute, backendRule } from '../../../../src/planes/netfilter/routing.js';

function setup(
  sets: Readonly<Record<string, Readonly<Record<string, string>>>>,
  structure = 'table inet t {\n}',
): KernelSetup {
  const maps = Object.entries(sets).map(
    ([name, elements]) => [name, new Map(Object.entries(elements))] as const,
  );
  return { table: 't', tag: 70_000, structure, sets: new Map(maps), routing: [] };
}

describe('replaceTableText()', () => {
  test('deletes what is there, and fills sets and maps in one statement each', () => {
    const text = replaceTableText(
      setup({ m: { 80: '240.0.0.80', 443: '240.0.1.187' }, s: { '1-21': '' }, none: {} }),
    );
    assert.equal(
      text,
      [
        'table inet t',
        'delete table inet t',
        'table inet t {',
        '}',
        'add element inet t m { 80 : 240.0.0.80, 443 : 240.0.1.187 }',
        'add element inet t s { 1-21 }',
        '',
      ].join('\n'),
    );
  });
});

test('removeTableText() works where there is no table', () => {
  assert.equal(removeTableText('t'), 'table inet t\ndelete table inet t\n');
});

describe('deltaText()', () => {
  test('is empty when nothing differs', () => {
    assert.equal(deltaText(setup({ m: { 80: 'a' } }), setup({ m: { 80: 'a' } })), '');
  });

  test('deletes what is gone or has another value before it adds', () => {
    const text = deltaText(
      setup({ m: { 1: 'a', 2: 'b', 3: 'c' } }),
      setup({ m: { 2: 'x', 3: 'c', 4: 'd' } }),
    );
    assert.equal(text, 'delete element inet t m { 1, 2 }\nadd element inet t m { 2 : x, 4 : d }\n');
  });

  test('refills sets and maps of intervals', () => {
    assert.equal(
      deltaText(setup({ s: { '1-21': '' }, m: { 1: 'a' } }), setup({ s: { 5: '' }, m: { '1-2': 'a' } })),
      [
        'flush set inet t s',
        'add element inet t s { 5 }',
        'flush map inet t m',
        'add element inet t m { 1-2 : a }',
        '',
      ].join('\n'),
    );
  });

  test('only empties where nothing is to be left', () => {
    assert.equal(
      deltaText(setup({ s: { '1-2': '' }, m: { 1: 'a' } }), setup({ s: {}, m: {} })),
      'flush set inet t s\ndelete element inet t m { 1 }\n',
    );
  });

  test('is undefined where more than elements differs', () => {
    assert.equal(deltaText(setup({}), setup({}, 'table inet t { }')), undefined);
    assert.equal(deltaText(setup({}), { ...setup({}), table: 'u' }), undefined);
  });
});

test('routingText() is what would be typed', () => {
  const routing = [anyIpRoute(4, '240.7.0.0/16', 70_000), backendRule(6, 0x1, 70_000)];
  assert.equal(
    routingText({ ...setup({}), routing }),
    'ip -4 route add local 240.7.0.0/16 dev lo proto 104 metric 70000\n' +
      'ip -6 rule add pref 680 fwmark 0x1 lookup 70000 protocol 104\n',
  );
});

test('deltaText() and replaceTableText() write the table of its own family', () => {
  const of = (elements: readonly string[]): KernelSetup => ({
    ...{ table: 't', family: 'netdev', tag: 1, structure: 'table netdev t {\n}', routing: [] },
    sets: new Map([['s', new Map(elements.map((key) => [key, '']))]]),
  });
  assert.equal(
    replaceTableText(of(['1'])),
    'table netdev t\ndelete table netdev t\ntable netdev t {\n}\nadd element netdev t s { 1 }\n',
  );
  assert.equal(
    deltaText(of(['1']), of(['2'])),
    'delete element netdev t s { 1 }\nadd element netdev t s { 2 }\n',
  );
  assert.equal(deltaText(of([]), { ...of([]), family: 'inet' }), undefined);
});
