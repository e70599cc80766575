import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { isInShare } from '../support/campaign.js';
import {
  acceptedDifferences,
  differences,
  formatDifferences,
  leaves,
  unaccepted,
  type Accepted,
} from './compare.js';
import { measureOffline } from './measure.js';
import { normaliseRuleset, observe, type Observation } from './observe.js';
import { measurePicks } from './picks.js';
import { classOf, readFacts, readWording, wordingOf } from './recorded.js';

const MAIN = process.env['HAPORTS_MAIN'] ?? 'dist/main.js';
const PARTS = 16;
/** Each of a hundred flows, each a request of its own. */
const PICK_PARTS = 40;
const OFFLINE = ['check', 'explain', 'plan', 'replay', 'ruleset', 'schema', 'simulate', 'usage', 'words'];

/** Of these classes a share may be empty. */
const WHOLE = ['replay', 'ruleset', 'schema', 'usage'];
const isAsked = (id: string): boolean => WHOLE.includes(classOf(id)) || isInShare(id, PARTS);

describe('the build answers as recorded', () => {
  let observed: ReadonlyMap<string, Observation>;
  before(async () => {
    observed = await measureOffline({ main: MAIN }, isAsked);
  });

  for (const kind of OFFLINE) {
    test(kind, (context) => {
      // The class itself is asked for with a slash, to find its file.
      const wanted = (id: string) => classOf(id) === kind && (id === `${kind}/` || isAsked(id));
      const own = new Map([...observed].filter(([id]) => wanted(id)));
      const found = differences(readFacts(wanted), own);
      const left = unaccepted(found, acceptedDifferences());
      assert.equal(left.length, 0, formatDifferences(left));
      const [was, is] = [readWording(wanted), wordingOf(own)];
      const fresh = [...is].filter((line) => !was.has(line)).length;
      context.diagnostic(`${own.size} cases, ${found.length} accepted differences, ${fresh} sentences new`);
    });
  }
});

describe('a running process picks as recorded', () => {
  test('flows of each rule, before and after operators have changed something', async () => {
    const observed = await measurePicks(MAIN, (id) => isInShare(id, PICK_PARTS));
    const found = differences(
      readFacts((id) => observed.has(id) || id === 'picks/'),
      observed,
    );
    const left = unaccepted(found, acceptedDifferences());
    assert.equal(left.length, 0, formatDifferences(left));
  });
});

describe('the comparison', () => {
  const ID = 'check/a';
  const compared = (was: unknown, is: unknown, accepted: readonly Accepted[] = []) =>
    unaccepted(differences(new Map([[ID, was]]), new Map([[ID, { facts: is, wording: [] }]])), accepted);
  const finding = (code: string, message: string) => ({
    exitCode: 2,
    stdout: JSON.stringify({
      findings: [{ severity: 'error', code, path: 'seed', line: 1, column: 2, message }],
    }),
    stderr: '',
  });

  test('finds a value that is other, absent or new, and a case that is gone', () => {
    for (const [was, is, path] of [
      [{ exit: 0 }, { exit: 2 }, 'exit'],
      [{ a: { b: [1, 2] } }, { a: { b: [1, 3] } }, 'a.b.1'],
      [{ a: 1 }, {}, 'a'],
      [{ a: [] }, { a: {} }, 'a'],
      [{}, { a: 1 }, 'a'],
      [{ f: ['x', 'x'] }, { f: ['x'] }, 'f.x'],
    ] as const) {
      assert.ok(
        compared(was, is).some((difference) => difference.path === path),
        path,
      );
    }
    assert.equal(differences(new Map([[ID, {}]]), new Map()).length, 1);
    assert.equal(differences(new Map(), new Map([[ID, { facts: {}, wording: [] }]])).length, 1);
  });

  test('takes codes, paths and places for facts, sentences for wording', () => {
    const [one, two] = ['Expected', 'Must be'].map((text) => observe('json', finding('LB_TYPE', text)));
    assert.deepEqual(one?.facts, two?.facts);
    assert.notDeepEqual(one?.wording, two?.wording);
    const other = observe('json', finding('LB_VALUE', 'Expected'));
    assert.deepEqual(
      compared(one?.facts, other.facts).map(({ path }) => path),
      ['answer.findings.error LB_TYPE seed 1:2', 'answer.findings.error LB_VALUE seed 1:2'],
    );
  });

  test('a row accepts one value at one path of the cases that it names', () => {
    const rows = (text: string) => acceptedDifferences(text);
    const row = '| `check/*` | `exit` | `2` | refused now |';
    assert.equal(rows(row).length, 1);
    assert.equal(compared({ exit: 0 }, { exit: 2 }, rows(row)).length, 0);
    assert.equal(compared({ exit: 0 }, { exit: 1 }, rows(row)).length, 1);
    assert.equal(compared({ exit: 0, a: 1 }, { exit: 2, a: 2 }, rows(row)).length, 1);
    assert.equal(
      compared({ exit: 0, a: 1 }, { a: 1 }, rows('| `check/a` | `*` | `absent` | gone |')).length,
      0,
    );
    assert.equal(
      compared({ exit: 0 }, { exit: 9 }, rows('| `check/a` | `exit` | `any` | whatever |')).length,
      0,
    );
    assert.equal(rows('| `check/a` | `exit` | `any` |  |').length, 0, 'a row without a reason counts');
  });

  test('each accepted difference names a case that is recorded', () => {
    const ids = [...readFacts(() => true).keys()];
    for (const { id, row } of acceptedDifferences())
      assert.ok(
        ids.some((one) => id.test(one)),
        row,
      );
  });

  test('the order of chains and elements does not count, that of rules does', () => {
    const table = (...parts: readonly string[]) => leaves(normaliseRuleset(parts.join('\n')));
    const [a, b] = ['chain a {\nx\ny\n}', 'chain b {\nz\n}'];
    const [one, two] = ['add element inet t s { 1, 2 }', 'add element inet t s { 2, 1 }'];
    assert.deepEqual(table(a, b, one), table(b, two, a));
    assert.notDeepEqual(table(a), table('chain a {\ny\nx\n}'));
    const many = (last: number) =>
      `add element inet t s { ${Array.from({ length: 9 }, (_, i) => i).join(', ')}, ${last} }`;
    assert.notDeepEqual(table(many(20)), table(many(21)));
  });
});
