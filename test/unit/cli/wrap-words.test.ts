import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { wrapWords } from '../../../src/cli/output.js';

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
