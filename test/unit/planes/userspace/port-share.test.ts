import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { portShares, sharePorts } from '../../../../src/planes/userspace/source-ports.js';
import {
  formatPortSet,
  parsePortSet,
  portSetOf,
  portsOf,
  type PortSet,
} from '../../../../src/model/ports.js';

const set = (text: string): PortSet => parsePortSet(text) ?? assert.fail(text);

void describe('sharePorts()', () => {
  test('sharePorts() cuts the default source ports in consecutive parts', () => {
    const parts = [0, 1].map((worker) => formatPortSet(sharePorts(set('32768-60999'), worker, 2)));
    assert.deepEqual(parts, ['32768-46883', '46884-60999']);
  });

  test('sharePorts() cuts through ranges', () => {
    const parts = [0, 1, 2].map((worker) => formatPortSet(sharePorts(set('10-12,20,30-34'), worker, 3)));
    assert.deepEqual(parts, ['10-12', '20,30-31', '32-34']);
  });

  test('sharePorts() gives each port to exactly one worker, and each as many to within one', () => {
    const ports = fc.uniqueArray(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 120 });
    fc.assert(
      fc.property(ports, fc.integer({ min: 1, max: 9 }), (list, workers) => {
        const shares = Array.from({ length: workers }, (_, worker) => [
          ...portsOf(sharePorts(portSetOf(...list), worker, workers)),
        ]);
        assert.deepEqual(
          shares.flat(),
          [...list].sort((a, b) => a - b),
        );
        const sizes = shares.map(({ length }) => length);
        assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
      }),
    );
  });
});

void describe('portShares()', () => {
  test('portShares() gives the same object for the same set, and one worker the set itself', () => {
    const ports = set('1-10');
    const share = portShares(1, 2);
    assert.equal(share(ports), share(ports));
    assert.equal(portShares(0, 1)(ports), ports);
  });
});
