import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatFindings, formatPath, summariseFindings, type Finding } from '../../../src/config/findings.js';

const broken: Finding = {
  severity: 'error',
  code: 'LB_VALUE',
  path: 'rules[0].frontendPort',
  line: 12,
  column: 20,
  message: 'Expected a port, found 70000',
  found: '70000',
  expected: 'a port',
};

describe('findings', () => {
  it('formatPath() writes keys, indices, and keys that are no identifiers', () => {
    assert.equal(formatPath([]), '');
    assert.equal(formatPath(['rules', 0, 'frontendPort']), 'rules[0].frontendPort');
    assert.equal(
      formatPath(['floatingAddresses', 'hub-6', 'a b', '"']),
      'floatingAddresses["hub-6"]["a b"]["\\""]',
    );
  });

  it('formatFindings() writes one line each, and nothing twice', () => {
    const why: Finding = {
      severity: 'note',
      code: 'V2',
      path: '',
      message: 'HA-ports rule on the public address 8.8.8.8',
      found: '"8.8.8.8"',
      expected: 'a private address',
      reason: 'Azure says so',
    };
    assert.deepEqual(formatFindings('config.json', [broken, why]), [
      'config.json:12:20: error LB_VALUE rules[0].frontendPort: Expected a port, found 70000',
      'config.json: note V2: HA-ports rule on the public address 8.8.8.8, expected a private address (Azure says so)',
    ]);
  });

  it('summariseFindings() counts by severity', () => {
    const note: Finding = { severity: 'note', code: 'V1', path: '', message: 'x' };
    assert.equal(summariseFindings([note, broken, broken]), '2 errors, 1 note');
    assert.equal(summariseFindings([]), 'no findings');
  });
});
