import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Overrides } from '../../../src/control/overrides.js';

const [ONE, TWO] = ['nvas/10.0.0.1', 'nvas/10.0.0.2'] as const;

describe('Overrides', () => {
  test('of() is empty for a backend that nothing was set on', () => {
    const overrides = new Overrides();
    assert.deepEqual(overrides.of(ONE), {});
    assert.equal(overrides.record().size, 0);
  });

  test('set() sets and takes back each field by itself', () => {
    const overrides = new Overrides();
    overrides.set(ONE, { adminState: 'up' });
    overrides.set(ONE, { weight: 7 });
    assert.deepEqual(overrides.of(ONE), { adminState: 'up', weight: 7 });
    overrides.set(ONE, { adminState: undefined });
    assert.deepEqual(overrides.of(ONE), { weight: 7 });
    overrides.set(ONE, { weight: undefined });
    assert.equal(overrides.record().size, 0);
  });

  test('retain() forgets backends that are gone, and returns whose settings were lost', () => {
    const overrides = new Overrides();
    overrides.set(ONE, { adminState: 'none' });
    overrides.set(TWO, { drain: { ending: false } });
    assert.deepEqual(overrides.retain(new Set([ONE])), [TWO]);
    assert.deepEqual([...overrides.record().keys()], [ONE]);
    assert.deepEqual(overrides.of(TWO), {});
  });
});
