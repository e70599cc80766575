import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress, parseCidr, type Cidr } from '../../../src/model/address.js';
import { isAdmitted, judgeAccess } from '../../../src/selection/access.js';

function blocks(...texts: readonly string[]): Cidr[] {
  return texts.map((text) => {
    const block = parseCidr(text);
    assert.ok(block, text);
    return block;
  });
}

const lists = { allow: blocks('10.0.0.0/8', 'fd00::/8'), deny: blocks('10.1.0.0/16', 'fd00:1::/32') };

test('isAdmitted() admits every source when there are no lists', () => {
  assert.equal(isAdmitted({ allow: [], deny: [] }, ipAddress('203.0.113.9')), true);
});

test('isAdmitted() lets deny win over allow, whatever is more specific', () => {
  assert.equal(isAdmitted(lists, ipAddress('10.2.0.1')), true);
  assert.equal(isAdmitted(lists, ipAddress('10.1.0.1')), false);
  assert.equal(isAdmitted(lists, ipAddress('fd00:2::1')), true);
  assert.equal(isAdmitted(lists, ipAddress('fd00:1::1')), false);
  const narrow = { allow: blocks('10.1.2.3'), deny: blocks('10.0.0.0/8') };
  assert.equal(isAdmitted(narrow, ipAddress('10.1.2.3')), false);
});

test('isAdmitted() keeps out who is not on an allow list, the other family included', () => {
  assert.equal(isAdmitted(lists, ipAddress('192.0.2.1')), false);
  assert.equal(isAdmitted({ allow: blocks('0.0.0.0/0'), deny: [] }, ipAddress('::1')), false);
});

test('isAdmitted() lets in who is not on a deny list when there is no allow list', () => {
  assert.equal(isAdmitted({ allow: [], deny: lists.deny }, ipAddress('192.0.2.1')), true);
  assert.equal(isAdmitted({ allow: [], deny: lists.deny }, ipAddress('10.1.255.255')), false);
});

test('isAdmitted() sees IPv4-mapped sources as IPv4', () => {
  assert.equal(isAdmitted(lists, ipAddress('::ffff:10.1.0.1')), false);
});

test('judgeAccess() names the entry that decided', () => {
  const because = (source: string): string => {
    const verdict = judgeAccess(lists, ipAddress(source));
    return 'block' in verdict ? `${verdict.because} ${verdict.block.text}` : verdict.because;
  };
  assert.equal(because('10.1.0.1'), 'deny 10.1.0.0/16');
  assert.equal(because('10.2.0.1'), 'allow 10.0.0.0/8');
  assert.equal(because('192.0.2.1'), 'not-allowed');
});
