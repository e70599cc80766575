import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { floatingFlows } from '../../../../src/planes/kernel/ebpf/floating-flows.js';

/** As nftables 1.0.6 prints it. */
const LISTING = `table netdev haports {
	set flows-hub {
		type ipv4_addr . inet_proto . inet_service . inet_service . mark
		size 262144
		flags dynamic,timeout
		timeout 4m
		elements = { 10.1.0.2 . tcp . 40000 . 443 . 0x00a10001 timeout 4m expires 3m59s996ms counter packets 12 bytes 900,
			     10.1.0.3 . udp . 5353 . 53 . 0x00a10002 timeout 30s expires 20ms counter packets 1 bytes 60 }
	}
}
`;

describe('floatingFlows()', () => {
  test('reads every flow with its times and counts', () => {
    assert.deepEqual(floatingFlows(LISTING), [
      {
        ...{ client: '10.1.0.2', clientPort: 40000, frontendPort: 443, protocol: 'tcp', mark: 0x00a10001 },
        ...{ packets: 12, bytes: 900, expiresMs: 239_996, timeoutMs: 240_000 },
      },
      {
        ...{ client: '10.1.0.3', clientPort: 5353, frontendPort: 53, protocol: 'udp', mark: 0x00a10002 },
        ...{ packets: 1, bytes: 60, expiresMs: 20, timeoutMs: 30_000 },
      },
    ]);
  });

  test('reads IPv6, longer times, and elements in any order of what follows', () => {
    const line =
      'fd01::2 . udp . 20000 . 7000 . 0x00000001 counter packets 2 bytes 96 timeout 1h expires 59m1s';
    assert.deepEqual(floatingFlows(`elements = { ${line} }`), [
      {
        ...{ client: 'fd01::2', clientPort: 20000, frontendPort: 7000, protocol: 'udp', mark: 1 },
        ...{ packets: 2, bytes: 96, expiresMs: 3_541_000, timeoutMs: 3_600_000 },
      },
    ]);
  });

  test('finds nothing in a set without elements', () => {
    assert.deepEqual(floatingFlows('table inet haports {\n\tset flows-hub {\n\t}\n}\n'), []);
  });
});
