import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as format from '../../../src/cli/format.js';

interface Row {
  readonly name: string;
  readonly count?: string;
  readonly words?: string;
  readonly place?: string;
}

const COLUMNS: readonly format.TableColumn<Row>[] = [
  format.left('NAME', ({ name }) => name),
  format.right('COUNT', ({ count = '' }) => count, 3),
  format.left('WORDS', ({ words = '' }) => words, { importance: 1, minimum: 6 }),
  format.left('PLACE', ({ place = '' }) => place, { importance: 2, minimum: 5 }),
];

const ROWS: readonly Row[] = [
  { name: 'one', count: '1', words: 'short', place: 'here' },
  { name: 'eleven', count: '11000', words: 'rather long words', place: 'over there' },
];

describe('table()', () => {
  const CASES: readonly (readonly [what: string, width: number, lines: readonly string[]])[] = [
    [
      'sets numbers right and text left, as wide as they are',
      80,
      [
        'NAME    COUNT  WORDS              PLACE',
        'one         1  short              here',
        'eleven  11000  rather long words  over there',
      ],
    ],
    [
      'shortens the least important text first',
      38,
      [
        'NAME    COUNT  WORDS        PLACE',
        'one         1  short        here',
        'eleven  11000  rather lon…  over there',
      ],
    ],
    [
      'shortens text to its minimum, then the next, and no number',
      31,
      ['NAME    COUNT  WORDS   PLACE', 'one         1  short   here', 'eleven  11000  rathe…  over th…'],
    ],
    [
      'leaves the least important column out where short text is too wide, and gives others room again',
      25,
      ['NAME    COUNT  PLACE', 'one         1  here', 'eleven  11000  over there'],
    ],
    ['leaves out the next one', 14, ['NAME    COUNT', 'one         1', 'eleven  11000']],
    ['leaves out all that may go', 7, ['NAME', 'one', 'eleven']],
    ['cuts what is left', 4, ['NAME', 'one', 'ele…']],
  ];

  for (const [what, width, lines] of CASES) {
    test(what, () => assert.deepEqual(format.table(COLUMNS, ROWS, { width }), lines));
  }

  test('takes a narrow column back where a wide one that went after it left room', () => {
    const columns: readonly format.TableColumn<string>[] = [
      format.left('NAME', (text) => text),
      format.right('N', () => '7', 1),
      format.right('LONG', () => '123456789012', 2),
    ];
    assert.deepEqual(format.table(columns, ['one'], { width: 16 }), ['NAME  N', 'one   7']);
  });

  test('is never wider than the width', () => {
    for (let width = 1; width < 60; width++) {
      for (const line of format.table(COLUMNS, ROWS, { width })) {
        assert.ok(line.length <= width, `${width}: ${line}`);
      }
    }
  });

  test('shows nothing that could drive the terminal, and ends no line with blanks', () => {
    const [, ...lines] = format.table(COLUMNS, [{ name: '\u001b[31mred\nnext\u009b2J\u202e' }]);
    assert.deepEqual(lines, ['?[31mred?next?2J?']);
  });
});

test('shorten() and printable() leave what is fine as it is', () => {
  assert.equal(format.shorten('abc', 3), 'abc');
  assert.equal(format.shorten('abcd', 3), 'ab…');
  assert.equal(format.shorten('abcd', 0), '');
  assert.equal(format.printable('größer → 5 %'), 'größer → 5 %');
});

test('wrapWords() breaks at blanks, indents what follows, keeps blanks at the start and words that are too long', () => {
  const cases: readonly (readonly [text: string, width: number, indent: number, lines: readonly string[]])[] =
    [
      ['one two three four', 9, 2, ['one two', '  three', '  four']],
      ['fits', 4, 2, ['fits']],
      ['exactly ten', 11, 2, ['exactly ten']],
      ['', 10, 2, ['']],
      ['    aaa bbb', 8, 4, ['    aaa', '    bbb']],
      ['aaaaaaaaaaaa bb', 8, 2, ['aaaaaaaaaaaa', '  bb']],
      ['  aaaaaaaaaaaa', 8, 2, ['  aaaaaaaaaaaa']],
      ['a bbbbbbbbbbbbbb c', 8, 2, ['a', '  bbbbbbbbbbbbbb', '  c']],
    ];
  for (const [text, width, indent, lines] of cases) {
    assert.deepEqual(format.wrapWords(text, indent, width), lines, text);
  }
});

test('labelled() sets texts beside their labels, wrapped, and leaves out what is not there', () => {
  const rows = {
    One: ['aaa bbb ccc', false, 'ddd'],
    Two: undefined,
    '': ['e\u001b', 'aaaaaaaaaaaaaa'],
  } as const;
  assert.deepEqual(format.labelled(rows, 5, 12), [
    'One  aaa bbb',
    '     ccc',
    '     ddd',
    '     e?',
    '     aaaaaaaaaaaaaa',
  ]);
});
