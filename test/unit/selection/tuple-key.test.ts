import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { Protocol } from '../../../src/model/address.js';
import type { Distribution } from '../../../src/model/configuration.js';
import { createHasher, flowHashOf, type FlowHash } from '../../../src/selection/flow-hash.js';
import { aTuple, reversed } from './fixtures.js';

const hash = await createHasher();
/** That of the userspace plane. */
function flowHash(): FlowHash {
  return flowHashOf({}, hash);
}

const guide = readFileSync(join(process.cwd(), 'docs/hash.md'), 'utf8');

interface Vector {
  readonly line: string;
  readonly bytes: string;
  readonly hash: string;
  readonly distribution: Distribution;
  readonly symmetric: boolean;
  readonly protocol: Protocol;
  readonly source: string;
  readonly destination: string;
}

/** The lines of the block that starts with ```vectors. */
function readVectors(): Vector[] {
  const block = /```vectors\n(.*?)```/s.exec(guide)?.[1] ?? '';
  const shape = /^([0-9a-f]+) ([0-9a-f]{8}) +(\S+) +(symmetric|plain) +(tcp|udp) (\S+) -> (\S+)$/;
  return block
    .trim()
    .split('\n')
    .map((line) => {
      const match = shape.exec(line);
      assert.ok(match, `Not a vector: ${line}`);
      const [, bytes = '', sum = '', distribution, layout, protocol, source = '', destination = ''] = match;
      return {
        line,
        bytes,
        hash: sum,
        distribution: distribution as Distribution,
        symmetric: layout === 'symmetric',
        protocol: protocol as Protocol,
        source,
        destination,
      };
    });
}

const vectors = readVectors();

test('docs/hash.md has a vector for every distribution, family and symmetry', () => {
  const kinds = new Set(
    vectors.map(({ bytes, distribution, symmetric }) => `${bytes.slice(0, 2)} ${distribution} ${symmetric}`),
  );
  assert.equal(kinds.size, 12);
  assert.ok(vectors.length >= 20);
});

test('FlowHash.write() and the hash give the vectors of docs/hash.md', () => {
  const writer = flowHash();
  for (const vector of vectors) {
    const bytes = writer.write(aTuple(vector.source, vector.destination, vector.protocol), vector);
    assert.equal(Buffer.from(bytes).toString('hex'), vector.bytes, vector.line);
    assert.equal(hash(bytes, 0).toString(16).padStart(8, '0'), vector.hash, vector.line);
  }
});

test('FlowHash.write() gives vectors fixed here as well', () => {
  const writer = flowHash();
  const v4 = aTuple('203.0.113.9:40000', '198.51.100.1:443');
  const v6 = aTuple('[2001:db8::9]:40000', '[2001:db8::1]:443');
  const hashes = [v4, v6].flatMap((tuple) =>
    (['five-tuple', 'source-ip-protocol', 'source-ip'] as const).flatMap((distribution) =>
      [false, true].map((symmetric) => hash(writer.write(tuple, { distribution, symmetric }), 0)),
    ),
  );
  assert.deepEqual(hashes, [
    0x14bb092e, 0x5ec5cad5, 0xabfd7671, 0x4007cab7, 0x12c24181, 0xd36fa9db,
    0x14facfe7, 0x9dd1938f, 0x15866a31, 0x1b8bab64, 0xd70bc451, 0x708d30f8,
  ]); // prettier-ignore
});

test('docs/hash.md vectors are what the xxhsum tool says', (t) => {
  for (const vector of vectors) {
    const run = spawnSync('xxhsum', ['-H0'], { input: Buffer.from(vector.bytes, 'hex'), encoding: 'utf8' });
    if (run.error !== undefined) {
      t.skip(`xxhsum is not here: ${run.error.message}`);
      return;
    }
    assert.equal(run.stdout.split(' ')[0], vector.hash, vector.line);
  }
});

test('docs/hash.md commands print what the page says they print', (t) => {
  if (spawnSync('xxhsum', ['--version']).error !== undefined) {
    t.skip('xxhsum is not here');
    return;
  }
  const commands = [...guide.matchAll(/^\$ (printf .*xxhsum.*)\n(.*)$/gm)];
  assert.ok(commands.length >= 2);
  for (const [, command = '', printed] of commands) {
    const run = spawnSync('bash', ['-c', command], { encoding: 'utf8' });
    assert.equal(run.stdout.trim(), printed, command);
  }
});

test('FlowHash.write() treats IPv4-mapped IPv6 as IPv4', () => {
  const layout = { distribution: 'five-tuple', symmetric: false } as const;
  const mapped = flowHash().write(aTuple('[::ffff:203.0.113.9]:1', '[::ffff:198.51.100.1]:2'), layout);
  const plain = flowHash().write(aTuple('203.0.113.9:1', '198.51.100.1:2'), layout);
  assert.deepEqual(mapped, plain);
});

test('FlowHash.write() leaves the zone out', () => {
  const layout = { distribution: 'five-tuple', symmetric: true } as const;
  const zoned = flowHash().write(aTuple('[fe80::1%eth1]:9', '[fe80::1%eth0]:7'), layout);
  const bare = flowHash().write(aTuple('[fe80::1]:9', '[fe80::1]:7'), layout);
  assert.deepEqual(zoned, bare);
});

test('FlowHash.write() leaves nothing of the call before', () => {
  const writer = flowHash();
  const v4 = aTuple('203.0.113.9:40000', '198.51.100.1:443');
  const v6 = aTuple('[2001:db8::9]:40000', '[2001:db8::1]:443');
  const layouts = (['five-tuple', 'source-ip-protocol', 'source-ip'] as const).map((distribution) => ({
    distribution,
    symmetric: true,
  }));
  for (const first of [v4, v6]) {
    for (const then of [v4, v6]) {
      for (const layout of layouts) {
        writer.write(first, { distribution: 'five-tuple', symmetric: false });
        assert.deepEqual(writer.write(then, layout).slice(), flowHash().write(then, layout).slice());
      }
    }
  }
});

test('FlowHash.write() hands out the same view again instead of allocating', () => {
  const writer = flowHash();
  const layout = { distribution: 'five-tuple', symmetric: false } as const;
  const first = writer.write(aTuple('10.0.0.1:1', '10.0.0.2:2'), layout);
  assert.equal(writer.write(aTuple('10.0.0.3:3', '10.0.0.4:4'), layout), first);
});

test('swaps() compares ports only where ports are hashed', () => {
  const tuple = aTuple('127.0.0.1:40000', '127.0.0.1:8000');
  assert.equal(flowHash().swaps(tuple, { distribution: 'five-tuple', symmetric: true }), true);
  assert.equal(flowHash().swaps(reversed(tuple), { distribution: 'five-tuple', symmetric: true }), false);
  assert.equal(flowHash().swaps(tuple, { distribution: 'source-ip', symmetric: true }), false);
  assert.equal(flowHash().swaps(tuple, { distribution: 'five-tuple', symmetric: false }), false);
});

test('swaps() compares bytes as unsigned numbers, most significant first', () => {
  const layout = { distribution: 'source-ip', symmetric: true } as const;
  assert.equal(flowHash().swaps(aTuple('9.255.0.0:1', '10.0.0.0:1'), layout), false);
  assert.equal(flowHash().swaps(aTuple('200.0.0.0:1', '100.0.0.0:1'), layout), true);
});
