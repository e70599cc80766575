import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NO_TRAFFIC, trafficBy, wholeTraffic } from '../../../src/status/counters.js';
import { aReading, aRow } from './counters-fixtures.js';

const before = aRow({
  flowsOpened: 10,
  flowsActive: 4,
  bytesToBackend: 1000,
  bytesToClient: 5000,
  resets: 1,
});
const after = aRow({
  flowsOpened: 16,
  flowsActive: 7,
  bytesToBackend: 3000,
  bytesToClient: 6000,
  connectFailures: 2,
  resets: 3,
});

const at = (atMs: number, ...traffic: ReturnType<typeof aRow>[]) => ({
  atMs,
  counters: aReading({ traffic }),
});

describe('trafficBy()', () => {
  test('measures rates between the two samples', () => {
    const traffic = trafficBy({ previous: at(5000, before), latest: at(7000, after) }, ({ rule }) => rule);
    assert.deepEqual(
      [...traffic],
      [
        [
          'ha-ports',
          {
            flowsActive: 7,
            flowsOpened: 16,
            newFlowsPerSecond: 3,
            bytesToBackend: 3000,
            bytesToClient: 6000,
            bitsToBackendPerSecond: 8000,
            bitsToClientPerSecond: 4000,
            connectFailures: 2,
            resets: 3,
          },
        ],
      ],
    );
  });

  test('sums rows of one key and leaves out those without', () => {
    const rows = [after, aRow({ protocol: 'udp', flowsOpened: 1 }), aRow({ rule: 'other', flowsOpened: 9 })];
    const traffic = trafficBy({ latest: at(0, ...rows) }, ({ rule }) =>
      rule === 'other' ? undefined : rule,
    );
    assert.deepEqual([...traffic.keys()], ['ha-ports']);
    assert.equal(traffic.get('ha-ports')?.flowsOpened, 17);
  });

  test('knows no rates without an earlier sample, without an earlier row, or without time between them', () => {
    const rates = (samples: Parameters<typeof trafficBy>[0]) => {
      const view = trafficBy(samples, ({ rule }) => rule).get('ha-ports');
      return [view?.newFlowsPerSecond, view?.bitsToBackendPerSecond, view?.bitsToClientPerSecond];
    };
    assert.deepEqual(rates({ latest: at(7000, after) }), [0, 0, 0]);
    assert.deepEqual(rates({ latest: at(7000, after), previous: at(6000) }), [0, 0, 0]);
    assert.deepEqual(rates({ latest: at(7000, after), previous: at(7000, before) }), [0, 0, 0]);
  });

  test('gives no negative rate when totals fall', () => {
    const view = wholeTraffic({ previous: at(0, after), latest: at(1000, before) });
    assert.equal(view.newFlowsPerSecond, 0);
    assert.equal(view.bitsToBackendPerSecond, 0);
    assert.equal(view.flowsOpened, 10);
  });
});

describe('wholeTraffic()', () => {
  test('is all of it, and nothing before the first sample', () => {
    const rows = [after, aRow({ rule: 'other', backendId: '', resets: 4 })];
    assert.equal(wholeTraffic({ latest: at(0, ...rows) }).resets, 7);
    assert.deepEqual(wholeTraffic({}), NO_TRAFFIC);
  });
});
