import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Traffic, estimateSources } from '../../../src/flows/traffic.js';
import { ipAddress } from '../../../src/model/address.js';
import { aFlow } from './flow-fixtures.js';

describe('Traffic', () => {
  test('settle() counts every byte once, for the backend that carried it', () => {
    const traffic = new Traffic();
    const flow = aFlow(1, 'udp');
    flow.bytesToBackend = 7;
    traffic.settle(flow);
    assert.deepEqual(traffic.rows(), []);
    traffic.enter(flow, 'ha-ports', 'a');
    flow.packetsToBackend = 2;
    flow.bytesToClient = 100;
    flow.packetsToClient = 1;
    traffic.settle(flow);
    traffic.settle(flow);
    traffic.enter(flow, 'ha-ports', 'b');
    flow.bytesToBackend += 5;
    flow.packetsToBackend++;
    traffic.settle(flow);
    const carried = ['a', 'b'].map((id) => {
      const totals = traffic.of('ha-ports', id, 'udp');
      return [totals.bytesToBackend, totals.packetsToBackend, totals.bytesToClient, totals.packetsToClient];
    });
    assert.deepEqual(carried, [
      [7, 2, 100, 1],
      [5, 1, 0, 0],
    ]);
  });

  test('countDrop() counts by rule, protocol and reason', () => {
    const traffic = new Traffic();
    traffic.countDrop('r', 'udp', 'denied');
    traffic.countDrop('r', 'udp', 'denied');
    traffic.countDrop('r', 'tcp', 'no-backend');
    assert.deepEqual(traffic.arrivals('r', 'udp').drops, { denied: 2 });
    assert.deepEqual(traffic.arrivals('r', 'tcp').drops, { 'no-backend': 1 });
    assert.equal(traffic.arrivalRows().length, 2);
  });

  test('countSource() knows clients by their address alone, by rule and protocol', () => {
    const traffic = new Traffic();
    assert.equal(traffic.arrivals('r', 'tcp').sourceSketch, undefined);
    for (let i = 0; i < 50; i++) {
      traffic.countSource('r', 'tcp', ipAddress(`192.0.2.${i % 5}`));
      traffic.countSource('r', 'udp', ipAddress('2001:db8::1'));
    }
    const sources = (protocol: 'tcp' | 'udp'): number =>
      Math.round(estimateSources(traffic.arrivals('r', protocol).sourceSketch ?? new Uint8Array()));
    assert.deepEqual([sources('tcp'), sources('udp')], [5, 1]);
    assert.equal(traffic.arrivalRows().length, 2);
  });
});
