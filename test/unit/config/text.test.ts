import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseConfiguration } from '../../../src/config/load.js';
import { editDistance, nearestWord, readJsonText } from '../../../src/config/text.js';

describe('JSON text', () => {
  const broken: readonly (readonly [string, string, number, number])[] = [
    ['nothing', '', 1, 1],
    ['only space', ' \n ', 2, 2],
    ['an end too early', '{\n  "rules": [', 2, 13],
    ['a comment', '{\n  // no\n}', 2, 3],
    ['a trailing comma in an object', '{\n  "a": 1,\n}', 3, 1],
    ['a trailing comma in a list', '[1, ]', 1, 5],
    ['a missing comma', '{\n  "a": 1\n  "b": 2 }', 3, 3],
    ['a single quote', "{ 'a': 1 }", 1, 3],
    ['a control character in text', '{ "a": "\u0001" }', 1, 8],
    ['a leading zero', '{ "a": 01 }', 1, 9],
    ['text after the end', '{} x', 1, 4],
    ['an endless nesting', '['.repeat(200_000), 1, 65],
    ['an endless nesting of objects', '{"a":'.repeat(200_000), 1, 64 * 5 + 1],
  ];
  for (const [what, text, line, column] of broken) {
    it(`readJsonText() names line ${line} and column ${column} for ${what}`, () => {
      const json = readJsonText(text);
      assert.ok(!json.ok);
      assert.deepEqual(json.position, { line, column });
      assert.match(json.issue.message, /^Broken JSON: \S/);
      const result = parseConfiguration(text);
      assert.ok(!result.ok);
      assert.deepEqual(
        result.findings.map((finding) => [finding.severity, finding.code, finding.line, finding.column]),
        [['error', 'LB_CONFIG_SYNTAX', line, column]],
      );
    });
  }

  it('readJsonText() agrees with JSON.parse on what is JSON', () => {
    const texts = [
      ...['1', '"a"', 'null', '{}', '[1,2]', '01', '.5', '5.', 'NaN', '+1'],
      ...['"\\x"', '"\\u12"', '{"a"}', "'a'"],
    ];
    for (const text of texts) {
      let isJson = true;
      try {
        JSON.parse(text);
      } catch {
        isJson = false;
      }
      assert.equal(readJsonText(text).ok, isJson, text);
    }
  });

  it('readJsonText() takes brackets in text for text, and leaves 64 levels alone', () => {
    assert.ok(readJsonText(JSON.stringify({ a: '[{'.repeat(500) + '\\"[' })).ok);
    assert.ok(readJsonText('['.repeat(64) + ']'.repeat(64)).ok);
    assert.ok(!readJsonText('['.repeat(65) + ']'.repeat(65)).ok);
  });

  it('readJsonText() ignores a byte order mark', () => {
    const json = readJsonText('\uFEFF{"a":1}');
    assert.ok(json.ok);
    assert.deepEqual(json.value, { a: 1 });
  });

  it('readJsonText() finds keys given twice, at any depth, where they stand the second time', () => {
    const json = readJsonText('{"a": 1,\n "b": [{"c": 1, "c": 2}],\n "a": 3}');
    assert.ok(json.ok);
    assert.deepEqual(
      json.issues.map(({ code, path }) => [code, path]),
      [
        ['LB_DUPLICATE_KEY', ['b', 0, 'c']],
        ['LB_DUPLICATE_KEY', ['a']],
      ],
    );
  });

  it('locate() points at values, keys, and the nearest thing around what is missing', () => {
    const json = readJsonText('{\n  "rules": [\n    { "name": "a" },\n    { "name": "b" }\n  ]\n}\n');
    assert.ok(json.ok);
    assert.deepEqual(json.locate(['rules', 1, 'name'], false), { line: 4, column: 15 });
    assert.deepEqual(json.locate(['rules', 1, 'name'], true), { line: 4, column: 7 });
    assert.deepEqual(json.locate(['rules', 1, 'probe'], false), { line: 4, column: 5 });
    assert.deepEqual(json.locate(['rules', 7, 'probe'], true), { line: 2, column: 12 });
    assert.deepEqual(json.locate(['probes'], false), { line: 1, column: 1 });
    assert.deepEqual(json.locate([], false), { line: 1, column: 1 });
  });

  it('parseConfiguration() refuses the key __proto__ everywhere', () => {
    const result = parseConfiguration(
      '{"frontends":[],"rules":[],"backendPools":[{"name":"p","backends":[{"address":"10.0.0.1",' +
        '"floatingAddresses":{"__proto__":"10.0.0.2"}}]}]}',
    );
    const found = result.findings.find(({ code }) => code === 'LB_UNKNOWN_KEY');
    assert.ok(!result.ok);
    assert.equal(found?.path, 'backendPools[0].backends[0].floatingAddresses.__proto__');
  });
});

describe('nearest word', () => {
  const distances: readonly (readonly [string, string, number])[] = [
    ['', '', 0],
    ['', 'abc', 3],
    ['abc', '', 3],
    ['kitten', 'sitting', 3],
    ['flaw', 'lawn', 2],
    ['prot', 'port', 1],
    ['ab', 'ba', 1],
  ];
  for (const [a, b, distance] of distances) {
    it(`editDistance() of "${a}" and "${b}" is ${distance}`, () =>
      assert.equal(editDistance(a, b), distance));
  }

  it('nearestWord() finds slips of the finger, whatever the case', () => {
    const keys = ['frontend', 'frontendPort', 'backendPort', 'probe'];
    assert.equal(nearestWord('fronted', keys), 'frontend');
    assert.equal(nearestWord('frontendport', keys), 'frontendPort');
    assert.equal(nearestWord('porbe', keys), 'probe');
  });

  it('nearestWord() finds nothing where nothing is near', () => {
    assert.equal(nearestWord('weight', ['frontend', 'probe']), undefined);
    assert.equal(nearestWord('frontend', []), undefined);
    assert.equal(nearestWord('x'.repeat(10_000), ['frontend']), undefined);
  });
});
