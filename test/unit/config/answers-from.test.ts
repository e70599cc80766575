import assert from 'node:assert/strict';
import { test } from 'node:test';
import { validate } from '../../../src/config/load.js';
import type { AnswersFrom } from '../../../src/model/configuration.js';

/** What a rule comes to; absent: `endpoint`. */
function answersFrom(rule: Record<string, unknown>): AnswersFrom | undefined {
  const { configuration, issues } = validate(
    {
      frontends: [{ name: 'hub', address: '10.0.0.1' }],
      backendPools: [{ name: 'nvas', backends: [{ address: '10.0.1.1' }] }],
      rules: [{ name: 'rule', frontend: 'hub', backendPool: 'nvas', ...rule }],
    },
    {},
  );
  assert.ok(configuration, JSON.stringify(issues));
  return configuration.rules[0]?.udp.answersFrom;
}

const ONE_PORT = { protocol: 'udp', frontendPort: 69 };

const CASES: readonly (readonly [string, Record<string, unknown>, AnswersFrom | undefined])[] = [
  ['HA ports by source', { haPorts: true, distribution: 'source-ip' }, 'address'],
  ['HA ports by five-tuple', { haPorts: true }, undefined],
  ['HA ports by source and protocol', { haPorts: true, distribution: 'source-ip-protocol' }, undefined],
  ['one port by source', { ...ONE_PORT, distribution: 'source-ip' }, undefined],
  ['one port that says so', { ...ONE_PORT, udp: { answersFrom: 'address' } }, 'address'],
  [
    'HA ports by source that do not want it',
    { haPorts: true, distribution: 'source-ip', udp: { answersFrom: 'endpoint' } },
    undefined,
  ],
  [
    'HA ports by source with counted responses',
    { haPorts: true, distribution: 'source-ip', udp: { expectedResponses: 1 } },
    undefined,
  ],
  [
    'HA ports by source, one way',
    { haPorts: true, distribution: 'source-ip', udp: { perPacket: true } },
    undefined,
  ],
];

for (const [what, rule, expected] of CASES) {
  void test(`answersFromOf() gives ${expected ?? 'endpoint'} for ${what}`, () => {
    assert.equal(answersFrom(rule), expected);
  });
}
