import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { editDistance, nearestWord } from '../../../src/config/text.js';

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
