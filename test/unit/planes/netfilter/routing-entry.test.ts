import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  backendTable,
  instanceTag,
  isBackendTable,
  tableOf,
} from '../../../../src/planes/netfilter/routing.js';

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

test('backendTable() is another for each backend, and no table of another kind', () => {
  const tag = instanceTag('haports');
  const tables = [1, 2, 0xffff].map((number) => backendTable(tag, 0x12340000 + number));
  assert.equal(new Set(tables).size, 3);
  for (const table of tables) {
    assert.ok(table >= 2 ** 31 && table < 2 ** 32, 'routing tables have numbers of 32 bits');
    assert.equal(isBackendTable(tag, table), true);
    assert.equal(isBackendTable(instanceTag('other'), table), false);
  }
  for (const table of [tag, 253, 254, 255, Number.NaN]) assert.equal(isBackendTable(tag, table), false);
});
