import assert from 'node:assert/strict';
import { test } from 'node:test';
import { instanceTag, tableOf } from '../../../src/nft/routing-entry.js';

test('tableOf() never has the name of a foreign table, nor of a word of nft', () => {
  assert.equal(tableOf('haports'), 'haports');
  assert.equal(tableOf('haports-b'), 'haports-b');
  for (const instance of ['filter', 'nat', 'policy', '2nd']) assert.match(tableOf(instance), /^haports-/);
});

test('instanceTag() is a valid metric and routing table, its own for each instance', () => {
  const tags = Array.from({ length: 2000 }, (_, index) => instanceTag(`instance-${index}`));
  assert.ok(tags.every((tag) => Number.isInteger(tag) && tag > 65_535 && tag < 2 ** 31));
  assert.equal(new Set(tags).size, tags.length);
  // Routes of a process that has crashed are found by it: it must not change between versions.
  assert.equal(instanceTag('haports'), 1_094_860_858);
});
