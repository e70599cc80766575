import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { capturedPortOfText } from '../../../../../src/planes/userspace/tcp/listener.js';
import { ipAddress, parseCidr } from '../../../../../src/model/address.js';
import { captureAddress, capturedPort } from '../../../../../src/model/capture.js';

const block = (text: string) => parseCidr(text) ?? assert.fail(text);
const PORTS = [1, 9, 255, 256, 443, 4096, 61000, 65535];

void describe('capturedPortOfText()', () => {
  for (const [text, slots] of [
    ['240.0.0.0/4', [0, 1, 13, 4095]],
    ['10.64.0.0/10', [0, 1, 63]],
    ['198.18.0.0/16', [0]],
  ] as const) {
    test(`finds slot and port of each address of ${text}, and of IPv6`, () => {
      for (const slot of slots) {
        for (const port of PORTS) {
          for (const family of [4, 6] as const) {
            const address = captureAddress(family, slot, port, block(text)).text;
            assert.equal(capturedPortOfText(address, block(text)), slot * 65536 + port, address);
          }
        }
      }
    });
  }

  test('takes the same as capturedPort() for a private address, and nothing else', () => {
    const strangers = [
      ...['127.0.0.1', '0.0.0.0', '10.63.255.255', '10.128.0.0', '255.255.255.255'],
      ...['::', '::1', 'fd68:6170:6f72:7474::1', 'fd68:6170:6f72:74::1', '::ffff:10.64.0.1', 'fe80::1'],
    ];
    for (const text of strangers) {
      assert.equal(capturedPortOfText(text, block('10.64.0.0/10')), -1, text);
      if (!text.includes('.') || !text.includes(':')) {
        assert.equal(capturedPort(ipAddress(text), block('10.64.0.0/10')), undefined, text);
      }
    }
  });

  test('does not take private IPv6 addresses that have more than a slot and a port', () => {
    for (const tail of ['1:2:3:4', '1:2::3', '::1:2', '1::2:3', ':', '12345::1', '1::']) {
      assert.equal(capturedPortOfText(`fd68:6170:6f72:7473:${tail}`, block('240.0.0.0/4')), -1, tail);
    }
  });
});
