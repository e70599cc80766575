import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress, type FiveTuple } from '../../../src/model/address.js';
import { plainJson, type AsJson } from '../../../src/api/configuration-json.js';

describe('plainJson()', () => {
  const tuple: FiveTuple = {
    protocol: 'udp',
    source: ipAddress('fe80::1%eth0'),
    sourcePort: 40_000,
    destination: ipAddress('::ffff:192.0.2.1'),
    destinationPort: 53,
  };

  test('writes addresses as their canonical text, however deep they are', () => {
    const parsed = JSON.parse(plainJson({ flows: [{ tuple }] })) as AsJson<{ flows: { tuple: FiveTuple }[] }>;
    assert.deepEqual(parsed, {
      flows: [
        {
          tuple: {
            protocol: 'udp',
            source: 'fe80::1%eth0',
            sourcePort: 40_000,
            destination: '192.0.2.1',
            destinationPort: 53,
          },
        },
      ],
    });
  });

  test('leaves everything else as JSON.stringify() has it', () => {
    const value = { text: 'x', bytes: [1], none: undefined, null: null, list: [{ family: 4, text: 'y' }] };
    assert.equal(plainJson(value), JSON.stringify(value));
  });
});
