import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parseCidr } from '../../../src/model/address.js';
import type { Distribution, KernelOptions } from '../../../src/model/configuration.js';
import { flowHashOf, type FlowHash } from '../../../src/selection/flow-hash.js';
import { aTuple, reversed } from './fixtures.js';

const guide = readFileSync(join(process.cwd(), 'docs/hash.md'), 'utf8');
const block = (language: string) => new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(guide)?.[1] ?? '';
const lines = block('kernel-vectors')
  .split('\n')
  .filter((line) => line !== '');

const vectors = lines.map((line) => {
  const [
    key = '',
    seed = '',
    hash = '',
    slot = '',
    distribution = '',
    direction = '',
    protocol,
    from = '',
    ,
    to = '',
  ] = line.split(' ');
  return {
    ...{ line, key, direction, slot: Number(slot), distribution: distribution as Distribution },
    ...{ seed: Number.parseInt(seed, 16), hash: Number.parseInt(hash, 16) },
    tuple: aTuple(from, to, protocol === 'udp' ? 'udp' : 'tcp'),
  };
});

function kernelHash(options: Partial<KernelOptions> = {}): FlowHash {
  const kernel: KernelOptions = {
    ...{ mode: 'nat', returnPath: 'route', flowState: 'pinned', spokes: [] },
    ...{ onStop: 'keep', manageSysctls: false },
    ...options,
  };
  return flowHashOf({ kernel }, () => assert.fail('xxh32 is not asked'));
}
const cidr = (text: string) => parseCidr(text) ?? assert.fail(text);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** The server's side comes first, so that what goes to it goes backward. */
const STATELESS = kernelHash({
  ...{ mode: 'next-hop', flowState: 'stateless' },
  spokes: ['198.51.100.0/24', '203.0.113.0/24'].map(cidr),
});

describe('flowHashOf() for the kernel data plane', () => {
  test('docs/hash.md has a vector for every distribution, family, protocol and direction', () => {
    const kinds = new Set(
      vectors.map(({ distribution, tuple }) => `${distribution} ${tuple.source.family} ${tuple.protocol}`),
    );
    assert.equal(kinds.size, 12);
    assert.equal(new Set(vectors.map(({ seed }) => seed)).size, 3);
    assert.ok(vectors.some(({ direction }) => direction === 'backward'));
  });

  for (const { line, key, seed, hash, slot, distribution, direction, tuple } of vectors) {
    test(`gives what a kernel chose: ${line.slice(line.indexOf(distribution))}, seed ${seed}`, () => {
      const flowHash = direction === 'backward' ? STATELESS : kernelHash();
      const bytes = flowHash.write(tuple, { distribution, symmetric: true });
      assert.equal(hex(bytes), key);
      assert.equal(flowHash.hash(bytes, seed), hash);
      assert.equal(flowHash.slotOf(hash, 4093), slot);
    });
  }

  test('the Python of docs/hash.md gives what the kernel chose', (t) => {
    const run = spawnSync('python3', ['-c', block('python')], {
      input: `${lines.join('\n')}\n`,
      encoding: 'utf8',
    });
    if (run.error !== undefined) {
      t.skip(`python3 is not here: ${run.error.message}`);
      return;
    }
    assert.equal(run.stderr, '');
    const expected = vectors.map(({ hash, slot }) => `${hash.toString(16).padStart(8, '0')} ${slot}`);
    assert.deepEqual(run.stdout.trimEnd().split('\n'), expected);
  });

  test('names fields that make up the key', () => {
    for (const { distribution, tuple, key } of vectors) {
      const layout = { distribution, symmetric: false };
      const lengths = kernelHash()
        .fields(tuple, layout)
        .map(([, length]) => length);
      assert.equal(lengths.reduce((sum, length) => sum + length, 0) * 2, key.length);
    }
    const layout = { distribution: 'five-tuple', symmetric: false } as const;
    const there = aTuple('203.0.113.9:40000', '198.51.100.1:443');
    assert.deepEqual(STATELESS.fields(there, layout), [
      ['destination address', 4],
      ['source address', 4],
      ['protocol', 4],
      ['destination port', 4],
      ['source port', 4],
    ]);
  });

  test('exchanges endpoints without flow state, from a later spoke to an earlier one only', () => {
    const layout = { distribution: 'five-tuple', symmetric: false } as const;
    const there = aTuple('203.0.113.9:40000', '198.51.100.1:443');
    assert.deepEqual(
      [STATELESS.swaps(there, layout), STATELESS.swaps(reversed(there), layout)],
      [true, false],
    );
    for (const [from, to] of [
      ['192.0.2.1:1', '198.51.100.1:443'],
      ['203.0.113.9:1', '192.0.2.1:443'],
      ['203.0.113.9:1', '203.0.113.1:443'],
    ] as const) {
      assert.equal(STATELESS.swaps(aTuple(from, to), layout), false, `${from} ${to}`);
    }
    assert.equal(
      kernelHash({ spokes: ['198.51.100.0/24', '203.0.113.0/24'].map(cidr) }).swaps(there, layout),
      false,
    );
  });

  test('gives both directions between spokes one key without flow state, in every distribution', () => {
    const host = fc.integer({ min: 1, max: 254 });
    const port = fc.integer({ min: 1, max: 65_535 });
    const distribution = fc.constantFrom<Distribution>('five-tuple', 'source-ip-protocol', 'source-ip');
    fc.assert(
      fc.property(host, port, host, port, distribution, (a, from, b, to, fields) => {
        const tuple = aTuple(`198.51.100.${a}:${from}`, `203.0.113.${b}:${to}`, 'udp');
        const layout = { distribution: fields, symmetric: false };
        assert.equal(hex(STATELESS.write(tuple, layout)), hex(STATELESS.write(reversed(tuple), layout)));
      }),
    );
  });

  test('refuses a tuple of two families', () => {
    const mixed = {
      ...aTuple('203.0.113.9:1', '198.51.100.1:2'),
      destination: aTuple('[::1]:1', '[::1]:2').source,
    };
    const layout = { distribution: 'five-tuple', symmetric: false } as const;
    assert.throws(() => kernelHash().write(mixed, layout), TypeError);
  });
});
