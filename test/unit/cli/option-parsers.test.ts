import assert from 'node:assert/strict';
import test from 'node:test';
import { durationText, parseBackendRef, share, wholeNumber } from '../../../src/cli/command.js';

const usage = { code: 'LB_USAGE', source: 'usage' };

test('parseBackendRef() takes names and addresses, and nothing else', () => {
  assert.deepEqual(parseBackendRef('nvas/nva-1'), { pool: 'nvas', backend: 'nva-1' });
  assert.equal(parseBackendRef('nvas/2001:db8::1').backend, '2001:db8::1');
  for (const text of ['', 'nva-1', 'nvas/', '/nva-1', 'a/b/c']) {
    assert.throws(() => parseBackendRef(text), usage, text);
  }
});

test('share() takes percent and shares up to the whole, and no bare number that could be either', () => {
  assert.equal(share('2%'), 0.02);
  assert.equal(share('2.5 %'), 0.025);
  assert.equal(share('100%'), 1);
  assert.equal(share('0.02'), 0.02);
  assert.equal(share('0'), 0);
  for (const text of ['2', '101%', '1.5', '-1%', 'x', '', '%'])
    assert.throws(() => share(text), /at most 100%/, text);
});

test('durationText() keeps the text of a duration', () => {
  assert.equal(durationText('10m'), '10m');
  for (const text of ['10', '1.5h', 'm', '']) assert.throws(() => durationText(text), /with a unit/, text);
});

test('wholeNumber() holds its bounds', () => {
  const parse = wholeNumber(1, 1000);
  assert.equal(parse('1'), 1);
  assert.equal(parse('1000'), 1000);
  for (const text of ['0', '1001', '1.5', '-1', '1e2', ''])
    assert.throws(() => parse(text), /1 to 1000/, text);
});
