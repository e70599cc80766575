import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ipAddress, parseCidr } from '../../../../src/model/address.js';
import { captureAddress, type CapturePlan } from '../../../../src/model/capture.js';
import { parsePortSet } from '../../../../src/model/ports.js';
import {
  captureSetup,
  type CaptureInput,
  type CapturedFrontend,
} from '../../../../src/planes/capture/table.js';

const block = parseCidr('240.0.0.0/4') ?? assert.fail();
const PORTS = parsePortSet('80,1000-1002') ?? assert.fail();

function frontend(change: Partial<CapturedFrontend> = {}): CapturedFrontend {
  return {
    name: 'hub',
    address: ipAddress('10.0.0.9'),
    ports: { tcp: PORTS, udp: PORTS },
    slot: 3,
    ...change,
  };
}

function setup(plan: Partial<CapturePlan> = {}, change: Partial<CaptureInput> = {}) {
  return captureSetup({
    instance: 'haports',
    plan: { udp: 'redirect', port: 61000, block, ...plan },
    workers: 1,
    frontends: [frontend(), frontend({ address: ipAddress('2001:db8::9'), slot: 4 })],
    udpEntrySeconds: 90,
    ...change,
  });
}

describe('captureSetup()', () => {
  test('writes IPv6 addresses as nft lists them, for every kind of port and slot', () => {
    for (const slot of [0, 1, 0xfff]) {
      const all = frontend({
        address: ipAddress('2001:db8::9'),
        slot,
        ports: { tcp: [{ first: 1, last: 65535 }], udp: [] },
      });
      const elements = setup({}, { frontends: [all] }).sets.get('tcp6-hub') ?? new Map<string, string>();
      assert.equal(elements.size, 65535);
      for (const port of [1, 15, 16, 255, 256, 4096, 65535]) {
        assert.equal(elements.get(String(port)), captureAddress(6, slot, port, block).text);
      }
    }
  });

  test('has nothing for a protocol without ports', () => {
    const { structure, sets } = setup({}, { frontends: [frontend({ ports: { tcp: PORTS, udp: [] } })] });
    assert.deepEqual([...sets.keys()], ['tcp4-hub']);
    assert.doesNotMatch(structure, /udp/);
    const nothing = setup({}, { frontends: [frontend({ ports: { tcp: [], udp: [] } })] });
    assert.deepEqual([nothing.sets.size, nothing.routing.length], [0, 0]);
    assert.doesNotMatch(nothing.structure, /10\.0\.0\.9|61000/);
  });

  test('has the same structure whatever the ports, so that they can change alone', () => {
    const ports = { tcp: [{ first: 1, last: 1 }], udp: [{ first: 9, last: 9 }] };
    const few = [frontend({ ports })];
    assert.equal(setup({}, { frontends: few }).structure, setup({}, { frontends: [frontend()] }).structure);
  });
});
