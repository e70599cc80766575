import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatTable, printable, shorten, type TableColumn } from '../../../src/cli/output.js';

const COLUMNS: readonly TableColumn[] = [
  { title: 'NAME' },
  { title: 'COUNT', align: 'right', importance: 3 },
  { title: 'WORDS', importance: 1, minimum: 6 },
  { title: 'PLACE', importance: 2, minimum: 5 },
];

const ROWS = [
  ['one', '1', 'short', 'here'],
  ['eleven', '11000', 'rather long words', 'over there'],
];

describe('formatTable()', () => {
  test('sets numbers right and text left, as wide as they are', () => {
    assert.deepEqual(formatTable(COLUMNS, ROWS, { width: 80 }), [
      'NAME    COUNT  WORDS              PLACE',
      'one         1  short              here',
      'eleven  11000  rather long words  over there',
    ]);
  });

  test('shortens the least important text first, to its minimum, and no number', () => {
    assert.deepEqual(formatTable(COLUMNS, ROWS, { width: 38 }), [
      'NAME    COUNT  WORDS        PLACE',
      'one         1  short        here',
      'eleven  11000  rather lon…  over there',
    ]);
    assert.deepEqual(formatTable(COLUMNS, ROWS, { width: 31 }), [
      'NAME    COUNT  WORDS   PLACE',
      'one         1  short   here',
      'eleven  11000  rathe…  over th…',
    ]);
  });

  test('leaves out the least important columns where short text is still too wide, and gives others room again', () => {
    assert.deepEqual(formatTable(COLUMNS, ROWS, { width: 25 }), [
      'NAME    COUNT  PLACE',
      'one         1  here',
      'eleven  11000  over there',
    ]);
    assert.deepEqual(formatTable(COLUMNS, ROWS, { width: 14 }), [
      'NAME    COUNT',
      'one         1',
      'eleven  11000',
    ]);
    assert.deepEqual(formatTable(COLUMNS, ROWS, { width: 7 }), ['NAME', 'one', 'eleven']);
    assert.deepEqual(formatTable(COLUMNS, ROWS, { width: 4 }), ['NAME', 'one', 'ele…']);
  });

  test('takes a narrow column back where a wide one that went after it left room', () => {
    const columns: readonly TableColumn[] = [
      { title: 'NAME' },
      { title: 'N', align: 'right', importance: 1 },
      { title: 'LONG', align: 'right', importance: 2 },
    ];
    assert.deepEqual(formatTable(columns, [['one', '7', '123456789012']], { width: 16 }), [
      'NAME  N',
      'one   7',
    ]);
  });

  test('never is wider than told, whatever the width', () => {
    for (let width = 1; width < 60; width++) {
      for (const line of formatTable(COLUMNS, ROWS, { width })) {
        assert.ok(line.length <= width, `${width}: ${line}`);
      }
    }
  });

  test('shows nothing that could drive the terminal', () => {
    const [, row] = formatTable([{ title: 'A' }], [['\u001b[31mred\nnext\u009b2J\u202e']], { width: 80 });
    assert.equal(row, '?[31mred?next?2J?');
  });

  test('takes rows that are too short', () => {
    assert.deepEqual(formatTable(COLUMNS, [['only']], { width: 80 }), ['NAME  COUNT  WORDS  PLACE', 'only']);
  });
});

test('shorten() and printable() leave what is fine as it is', () => {
  assert.equal(shorten('abc', 3), 'abc');
  assert.equal(shorten('abcd', 3), 'ab…');
  assert.equal(shorten('abcd', 0), '');
  assert.equal(printable('größer → 5 %'), 'größer → 5 %');
});
