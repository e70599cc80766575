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

function frontend(change: Partial<CapturedFrontend> = {}): CapturedFrontend {
  const ports = parsePortSet('80,1000-1002') ?? [];
  return {
    name: 'hub',
    address: ipAddress('10.0.0.9'),
    tcpPorts: ports,
    udpPorts: ports,
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
  test('gives each TCP port the address that the worker reads it from', () => {
    for (const [slot, family, name] of [
      [3, 4, 'tcp4-hub'],
      [4, 6, 'tcp6-hub'],
    ] as const) {
      const elements = setup().sets.get(name) ?? new Map<string, string>();
      assert.deepEqual([...elements.keys()], ['80', '1000', '1001', '1002']);
      for (const [port, address] of elements) {
        assert.equal(address, captureAddress(family, slot, Number(port), block).text);
      }
    }
    assert.deepEqual(
      [...(setup().sets.get('udp4-hub') ?? [])],
      [
        ['80', ''],
        ['1000-1002', ''],
      ],
    );
  });

  test('writes IPv6 addresses as nft lists them, for every kind of port and slot', () => {
    for (const slot of [0, 1, 0xfff]) {
      const all = frontend({
        address: ipAddress('2001:db8::9'),
        slot,
        tcpPorts: [{ first: 1, last: 65535 }],
      });
      const elements = setup({}, { frontends: [all] }).sets.get('tcp6-hub') ?? new Map<string, string>();
      assert.equal(elements.size, 65535);
      for (const port of [1, 15, 16, 255, 256, 4096, 65535]) {
        assert.equal(elements.get(String(port)), captureAddress(6, slot, port, block).text);
      }
    }
  });

  test('has nothing for a protocol without ports', () => {
    const { structure, sets } = setup({}, { frontends: [frontend({ udpPorts: [] })] });
    assert.deepEqual([...sets.keys()], ['tcp4-hub']);
    assert.doesNotMatch(structure, /udp/);
    const nothing = setup({}, { frontends: [frontend({ udpPorts: [], tcpPorts: [] })] });
    assert.deepEqual([nothing.sets.size, nothing.routing.length], [0, 0]);
    assert.doesNotMatch(nothing.structure, /10\.0\.0\.9|61000/);
  });

  test('has the same structure whatever the ports, so that they can change alone', () => {
    const few = [frontend({ tcpPorts: [{ first: 1, last: 1 }], udpPorts: [{ first: 9, last: 9 }] })];
    assert.equal(setup({}, { frontends: few }).structure, setup({}, { frontends: [frontend()] }).structure);
  });
});
