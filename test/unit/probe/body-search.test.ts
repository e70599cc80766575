import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BODY_LIMIT_BYTES, BodySearch } from '../../../src/health/probes.js';

test('BodySearch finds a text cut at any place', () => {
  const body = Buffer.from('xxüber-allxx');
  for (let cut = 0; cut <= body.length; cut++) {
    const search = new BodySearch('über-all');
    search.add(body.subarray(0, cut));
    assert.equal(search.add(body.subarray(cut)), 'found', `cut at ${cut}`);
  }
});

test('BodySearch finds a text that comes byte by byte', () => {
  const search = new BodySearch('aab');
  assert.deepEqual(
    Array.from(Buffer.from('aaab'), (byte) => search.add(Uint8Array.of(byte))),
    ['more', 'more', 'more', 'found'],
  );
});

test('BodySearch says absent at its limit, in one piece or many, and keeps to it', () => {
  assert.equal(new BodySearch('b').add(Buffer.alloc(BODY_LIMIT_BYTES + 1, 'a')), 'absent');
  const search = new BodySearch('b');
  assert.equal(search.add(Buffer.alloc(BODY_LIMIT_BYTES - 1, 'a')), 'more');
  assert.equal(search.add(Buffer.from('ab')), 'absent');
});

test('BodySearch stays quick on a full body of single bytes', () => {
  const search = new BodySearch('b'.repeat(100));
  const byte = Buffer.from('a');
  const startedMs = performance.now();
  for (let count = 1; count < BODY_LIMIT_BYTES; count++) assert.equal(search.add(byte), 'more');
  assert.ok(performance.now() - startedMs < 2000);
});

test('BodySearch finds the empty text at once', () => {
  assert.equal(new BodySearch('').found, true);
});
