import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decideCapture, captureMode } from '../../../../src/planes/capture/plan.js';
import { ipAddress, parseCidr } from '../../../../src/model/address.js';
import type { CaptureOptions } from '../../../../src/model/capture.js';

const block = parseCidr('240.0.0.0/4')!;

function decide(mode: CaptureOptions['mode'], families: readonly (4 | 6)[], handed: readonly string[]) {
  return decideCapture({
    options: { mode, udp: 'redirect', excludedPorts: [], fallback: 'none', port: 61000, block },
    families: new Set(families),
    handed: handed.map((text, index) => {
      const [address = '', port = ''] = text.split(' ');
      return { descriptor: 3 + index, address: ipAddress(address), port: Number(port) };
    }),
  });
}

describe('decideCapture()', () => {
  test('auto takes dnat-map where nothing was handed in, and says so', () => {
    const { plan, why } = decide('auto', [4, 6], []);
    assert.deepEqual(plan, { tcp: 'dnat-map', udp: 'redirect', port: 61000, block });
    assert.equal(why, 'Chosen because no listening TCP socket was handed in for IPv4 and IPv6');
    assert.equal(captureMode(plan), 'capture dnat-map, udp redirect');
  });

  test('auto takes tproxy where every family has a socket, with the port of that', () => {
    const { plan, why } = decide('auto', [4, 6], [':: 7000', '0.0.0.0 7000']);
    assert.deepEqual(plan, {
      ...{ tcp: 'tproxy', udp: 'redirect', port: 7000, block },
      descriptors: { 4: 4, 6: 3 },
    });
    assert.match(why, /^Chosen because/);
  });

  test('auto takes dnat-map where a family or a common port is missing', () => {
    assert.match(decide('auto', [4, 6], ['0.0.0.0 7000']).why, /for IPv6$/);
    assert.equal(decide('auto', [4, 6], ['0.0.0.0 7000', ':: 7001']).plan.tcp, 'dnat-map');
  });

  test('a family without frontends needs no socket', () => {
    assert.deepEqual(decide('tproxy', [4], ['0.0.0.0 7000']).plan.descriptors, { 4: 3 });
  });

  test('dnat-map is dnat-map whatever was handed in', () => {
    assert.equal(decide('dnat-map', [4], ['0.0.0.0 7000']).plan.tcp, 'dnat-map');
  });

  test('tproxy without its sockets is refused with the way to get them', () => {
    assert.throws(() => decide('tproxy', [4], []), {
      code: 'LB_USAGE',
      message: /no listening TCP socket was handed in for IPv4, must be: .*Transparent=yes.*LISTEN_FDS/,
    });
    assert.throws(() => decide('tproxy', [4, 6], ['0.0.0.0 7000', ':: 7001']), {
      code: 'LB_USAGE',
      message: /listen on ports 7000 and 7001, must be on one port/,
    });
  });
});
