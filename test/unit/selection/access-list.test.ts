import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress, parseCidr, type Cidr } from '../../../src/model/address.js';
import { isAdmitted, judgeAccess } from '../../../src/selection/access.js';

function blocks(...texts: readonly string[]): Cidr[] {
  return texts.map((text) => parseCidr(text) ?? assert.fail(text));
}

const LISTS = { allow: blocks('10.0.0.0/8', 'fd00::/8'), deny: blocks('10.1.0.0/16', 'fd00:1::/32') };
const ALL4 = { allow: blocks('0.0.0.0/0'), deny: [] };
const NARROW = { allow: blocks('10.1.2.3'), deny: blocks('10.0.0.0/8') };
const DENY = { allow: [], deny: LISTS.deny };

for (const [what, lists, source, admitted, because] of [
  ['admits every source when there are no lists', { allow: [], deny: [] }, '203.0.113.9', true, 'no-lists'],
  ['admits what is allowed', LISTS, '10.2.0.1', true, 'allow 10.0.0.0/8'],
  ['admits what is allowed, IPv6', LISTS, 'fd00:2::1', true, 'allow fd00::/8'],
  ['lets deny win over allow', LISTS, '10.1.0.1', false, 'deny 10.1.0.0/16'],
  ['lets deny win over allow, IPv6', LISTS, 'fd00:1::1', false, 'deny fd00:1::/32'],
  ['lets deny win over what is more specific', NARROW, '10.1.2.3', false, 'deny 10.0.0.0/8'],
  ['refuses what is not on an allow list', LISTS, '192.0.2.1', false, 'not-allowed'],
  ['refuses the other family than is allowed', ALL4, '::1', false, 'not-allowed'],
  ['admits what is not denied where there is no allow list', DENY, '192.0.2.1', true, 'not-denied'],
  ['refuses what is denied where there is no allow list', DENY, '10.1.255.255', false, 'deny 10.1.0.0/16'],
  ['sees IPv4-mapped sources as IPv4', LISTS, '::ffff:10.1.0.1', false, 'deny 10.1.0.0/16'],
] as const) {
  test(`A frontend ${what}`, () => {
    assert.equal(isAdmitted(lists, ipAddress(source)), admitted);
    const verdict = judgeAccess(lists, ipAddress(source));
    assert.equal(verdict.admitted, admitted);
    const block = 'block' in verdict ? ` ${verdict.block.text}` : '';
    assert.equal(`${verdict.because}${block}`, because);
  });
}
