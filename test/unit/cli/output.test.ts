import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  formatAgo,
  formatBitRate,
  formatBytes,
  formatCount,
  formatShare,
  formatSi,
  formatSpan,
  formatTable,
  labelled,
  plural,
  printable,
  shorten,
  wrapWords,
  type TableColumn,
} from '../../../src/cli/output.js';

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

test('formatSi() keeps three digits and never shows 1000 of a unit', () => {
  const cases: readonly (readonly [number, string])[] = [
    [0, '0'],
    [0.04, '0'],
    [7.25, '7.3'],
    [999, '999'],
    [999.5, '1.00k'],
    [1234, '1.23k'],
    [9994, '9.99k'],
    [9996, '10.0k'],
    [99_960, '100k'],
    [999_499, '999k'],
    [999_500, '1.00M'],
    [45_600_000, '45.6M'],
    [7.2e15, '7.20P'],
    [7.2e19, '72000P'],
  ];
  for (const [value, expected] of cases) assert.equal(formatSi(value), expected, String(value));
});

test('formatBytes(), formatBitRate(), formatCount(), formatShare() and plural() read well', () => {
  assert.equal(formatBytes(812), '812B');
  assert.equal(formatBytes(1230), '1.23kB');
  assert.equal(formatBitRate(12_300_000), '12.3 Mbit/s');
  assert.equal(formatBitRate(0), '0 bit/s');
  assert.equal(formatCount(65_536), '65,536');
  assert.equal(formatCount(999), '999');
  assert.equal(formatCount(1_234_567), '1,234,567');
  assert.equal(formatShare(0.33333), '33.3 %');
  assert.equal(plural(1, 'flow'), '1 flow');
  assert.equal(plural(2000, 'flow'), '2,000 flows');
});

test('formatSpan() shows the two largest units', () => {
  const cases: readonly (readonly [number, string])[] = [
    [-5, '0s'],
    [0, '0s'],
    [42, '42ms'],
    [999.9, '999ms'],
    [1000, '1s'],
    [59_999, '59s'],
    [192_000, '3m12s'],
    [7_500_000, '2h05m'],
    [356_400_000, '4d03h'],
  ];
  for (const [ms, expected] of cases) assert.equal(formatSpan(ms), expected, String(ms));
  assert.equal(formatAgo(1000, 193_000), '3m12s ago');
  assert.equal(formatAgo(undefined, 0), 'never');
});

describe('wrapWords()', () => {
  test('breaks at blanks and indents what follows', () => {
    assert.deepEqual(wrapWords('one two three four', 9, 2), ['one two', '  three', '  four']);
    assert.deepEqual(wrapWords('fits', 4, 2), ['fits']);
    assert.deepEqual(wrapWords('exactly ten', 11, 2), ['exactly ten']);
    assert.deepEqual(wrapWords('', 10, 2), ['']);
  });

  test('keeps blanks at the start, and leaves a word alone that is too long', () => {
    assert.deepEqual(wrapWords('    aaa bbb', 8, 4), ['    aaa', '    bbb']);
    assert.deepEqual(wrapWords('aaaaaaaaaaaa bb', 8, 2), ['aaaaaaaaaaaa', '  bb']);
    assert.deepEqual(wrapWords('  aaaaaaaaaaaa', 8, 2), ['  aaaaaaaaaaaa']);
    assert.deepEqual(wrapWords('a bbbbbbbbbbbbbb c', 8, 2), ['a', '  bbbbbbbbbbbbbb', '  c']);
  });
});

describe('labelled()', () => {
  test('sets texts beside their labels, wrapped, and leaves out what is not there', () => {
    assert.deepEqual(
      labelled(
        [
          ['One', 'aaa bbb ccc', false, 'ddd'],
          ['Two', undefined],
          ['', 'e\u001b', 'aaaaaaaaaaaaaa'],
        ],
        5,
        12,
      ),
      ['One  aaa bbb', '     ccc', '     ddd', '     e?', '     aaaaaaaaaaaaaa'],
    );
  });
});
