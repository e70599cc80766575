import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

interface Row {
  readonly id: string;
  readonly promise: string;
  readonly status: readonly string[];
}

const PLANNED = /^planned \((?:first release|workers|live operation|capture|kernel plane): .+\)$/;

/** The rows of the tables: | id | subject | promise | status |, where `<br>` parts the answers of one row. */
function parseRows(markdown: string): readonly Row[] {
  return markdown
    .split('\n')
    .filter((line) => /^\| [A-Z]\d+ /.test(line))
    .map((line) => {
      const cells = line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim());
      assert.equal(cells.length, 4, `four cells in: ${line}`);
      return {
        id: cells[0]!,
        promise: cells[2]!,
        status: cells[3]!.split('<br>').map((part) => part.trim()),
      };
    });
}

/** What is wrong with one part of a status, or undefined. */
function faultOf(part: string, read: (path: string) => string | undefined): string | undefined {
  const [, kind, rest = ''] = /^(test|docs): (.+)$/.exec(part) ?? [];
  if (kind === 'test') {
    const missing = rest
      .split(', ')
      .filter((path) => !/^test\/.+\.test\.ts$/.test(path) || read(path) === undefined);
    return missing.length === 0 ? undefined : `no such test: ${missing.join(', ')}`;
  }
  if (kind === 'docs') {
    const [, path = '', sentence = ''] = /^(\S+) "(.+)"$/.exec(rest) ?? [];
    const text = read(path);
    if (text === undefined) return `no such page: ${path || rest}`;
    return text.replace(/\s+/g, ' ').includes(sentence) ? undefined : `${path} does not say "${sentence}"`;
  }
  if (PLANNED.test(part) || /^refused, because \S.+/.test(part)) return undefined;
  return `neither test, docs, planned nor refused: "${part}"`;
}

function numbered(letter: string, last: number): readonly string[] {
  return Array.from({ length: last }, (_, index) => `${letter}${index + 1}`);
}

function readRepositoryFile(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

describe('docs/promises.md', () => {
  const rows = parseRows(readFileSync('docs/promises.md', 'utf8'));

  test('has every complaint C1-C63 and every system S1-S17 exactly once, in order', () => {
    assert.deepEqual(
      rows.map((row) => row.id),
      [...numbered('C', 63), ...numbered('S', 17)],
    );
  });

  test('promises something in every row', () => {
    assert.deepEqual(
      rows.filter((row) => !/\S.+\.$/.test(row.promise)).map((row) => row.id),
      [],
    );
  });

  test('names only tests, pages and sentences that exist', () => {
    const faults = rows.flatMap((row) =>
      row.status
        .map((part) => faultOf(part, readRepositoryFile))
        .filter((fault) => fault !== undefined && fault !== '')
        .map((fault) => `${row.id}: ${fault}`),
    );
    assert.deepEqual(faults, []);
  });
});

describe('faultOf()', () => {
  const read = (path: string): string | undefined =>
    ({ 'test/unit/a.test.ts': '', 'README.md': 'Flows\nstay put.' })[path];
  const cases: readonly (readonly [string, string | undefined])[] = [
    ['test: test/unit/a.test.ts', undefined],
    ['test: test/unit/a.test.ts, test/unit/b.test.ts', 'no such test: test/unit/b.test.ts'],
    ['test: README.md', 'no such test: README.md'],
    ['docs: README.md "Flows stay put."', undefined],
    ['docs: README.md "Flows move."', 'README.md does not say "Flows move."'],
    ['docs: OTHER.md "Flows stay put."', 'no such page: OTHER.md'],
    ['docs: README.md', 'no such page: README.md'],
    ['planned (live operation: drain)', undefined],
    ['planned', 'neither test, docs, planned nor refused: "planned"'],
    ['planned (some day: drain)', 'neither test, docs, planned nor refused: "planned (some day: drain)"'],
    ['refused, because of layer 7', undefined],
    ['refused', 'neither test, docs, planned nor refused: "refused"'],
    ['', 'neither test, docs, planned nor refused: ""'],
  ];
  for (const [part, fault] of cases) {
    test(`judges "${part}"`, () => assert.equal(faultOf(part, read), fault));
  }
});
