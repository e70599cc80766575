import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { deltaText, removeTableText, type KernelSetup } from '../../../../src/planes/netfilter/setup.js';

function setup(
  sets: Readonly<Record<string, Readonly<Record<string, string>>>>,
  structure = 'table inet t {\n}',
): KernelSetup {
  const maps = Object.entries(sets).map(
    ([name, elements]) => [name, new Map(Object.entries(elements))] as const,
  );
  return { table: 't', tag: 70_000, structure, sets: new Map(maps), routing: [] };
}

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
