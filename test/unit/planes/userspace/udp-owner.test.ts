import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { before, describe, test } from 'node:test';
import { rendezvousOwner, tcpOwner } from '../../../../src/planes/userspace/listen-plan.js';
import { ipAddress } from '../../../../src/model/address.js';
import { createHasher, type Hash32 } from '../../../../src/selection/flow-hash.js';

const ADDRESSES = ['127.0.0.1', '198.51.100.7', '::1', '2001:db8::5'].map(ipAddress);
const PORTS = Array.from({ length: 2000 }, (_, index) => 1 + index * 32);

void describe('rendezvousOwner()', () => {
  let hash: Hash32;

  before(async () => {
    hash = await createHasher();
  });

  test('rendezvousOwner() owns by the highest xxh32, as the xxhsum tool computes it', (t) => {
    const scoreOf = (hex: string): number =>
      Number.parseInt(
        execFileSync('xxhsum', ['-H32', '-'], { input: Buffer.from(hex, 'hex') })
          .toString()
          .slice(0, 8),
        16,
      );
    try {
      scoreOf('00');
    } catch {
      t.skip('xxhsum is not installed');
      return;
    }
    // 198.51.100.7 port 500 (0x01f4), workers 0 to 2.
    const scores = [0, 1, 2].map((worker) => scoreOf(`c633640701f40${worker}`));
    const expected = scores.indexOf(Math.max(...scores));
    assert.equal(rendezvousOwner(hash, 3)(ipAddress('198.51.100.7'), 500), expected);
  });

  test('rendezvousOwner() gives every worker an equal part of the ports, within a tenth', () => {
    for (const workers of [2, 3, 8]) {
      const owner = rendezvousOwner(hash, workers);
      const counts = new Array<number>(workers).fill(0);
      for (const address of ADDRESSES) for (const port of PORTS) counts[owner(address, port)]!++;
      const fair = (ADDRESSES.length * PORTS.length) / workers;
      for (const count of counts) assert.ok(Math.abs(count - fair) < fair / 10, counts.join(', '));
    }
  });

  test('rendezvousOwner() moves ports only to the worker that is new', () => {
    const [three, four] = [rendezvousOwner(hash, 3), rendezvousOwner(hash, 4)];
    for (const address of ADDRESSES) {
      for (const port of PORTS) {
        const now = four(address, port);
        assert.ok(now === 3 || now === three(address, port));
      }
    }
  });

  test('rendezvousOwner() says the same when asked again, and in another process', () => {
    const [one, other] = [rendezvousOwner(hash, 5), rendezvousOwner(hash, 5)];
    for (const port of PORTS) {
      const owner = one(ADDRESSES[0]!, port);
      assert.equal(one(ADDRESSES[0]!, port), owner);
      assert.equal(other(ipAddress('127.0.0.1'), port), owner);
    }
  });

  test('rendezvousOwner() of one worker is that worker', () => {
    const owner = rendezvousOwner(() => assert.fail('hashed'), 1);
    assert.equal(owner(ADDRESSES[0]!, 80), 0);
  });

  test('tcpOwner() gives a port to one worker whatever the address, so that no wildcard is in another`s way', () => {
    const owner = tcpOwner(rendezvousOwner(hash, 8));
    const [any4, any6] = ['0.0.0.0', '::'].map(ipAddress);
    for (const port of PORTS) {
      for (const address of ADDRESSES) {
        assert.equal(owner(address, port), owner(address.family === 4 ? any4! : any6!, port));
      }
    }
    assert.ok(new Set(PORTS.map((port) => owner(ADDRESSES[0]!, port))).size === 8);
  });
});
