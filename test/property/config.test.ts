import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatDuration, parseDuration } from '../../src/model/duration.js';
import { canonicalJson } from '../../src/config/load.js';
import { formatFindings } from '../../src/config/findings.js';
import { parseConfiguration, type ParseResult } from '../../src/config/load.js';
import { editDistance } from '../../src/config/text.js';
import { example, haExample } from '../support/example.js';
import { campaign } from '../support/campaign.js';

/** What must hold of every result, whatever the text. */
function assertSane(text: string, result: ParseResult): void {
  const errors = result.findings.filter(({ severity }) => severity === 'error');
  assert.equal(result.ok, errors.length === 0);
  const lines = text.split('\n');
  for (const { line = 0, column = 0, message, code } of result.findings) {
    assert.ok(line >= 1 && line <= lines.length, `line ${line} of ${lines.length}`);
    assert.ok(column >= 1 && column <= (lines[line - 1] ?? '').length + 1);
    assert.match(code, /^(LB_[A-Z_]+|V\d+)$/);
    assert.doesNotMatch(message, /\.$|undefined|\[object|NaN/);
  }
  for (const line of formatFindings('c', result.findings)) assert.doesNotMatch(line, /\n/);
}

/** Every place in a JSON value. */
function places(value: unknown, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  if (typeof value !== 'object' || value === null) return [path];
  const members = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
  return [path, ...members.flatMap(([key, member]) => places(member, [...path, key]))];
}

type Json = Record<string | number, unknown>;

function replaceAt(value: unknown, path: readonly (string | number)[], by: unknown): unknown {
  const [step, ...rest] = path;
  if (step === undefined) return by;
  const copy = (Array.isArray(value) ? [...(value as unknown[])] : { ...(value as Json) }) as Json;
  copy[step] = replaceAt(copy[step], rest, by);
  return copy;
}

const strange = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.constantFrom<unknown>(...['0.0.0.0', '::', '127.0.0.1', '10.0.0.1', '::ffff:10.0.0.1', '1-65535']),
  fc.constantFrom<unknown>(
    ...['azure', 'hub', 'nvas', 'alive', 'all', 'udp', 'constructor', '__proto__', '4m'],
  ),
  fc.constantFrom<unknown>(0, -1, 1e308, 65535, '', null, true),
);

describe('config, any input', () => {
  it('parseConfiguration() never throws on any text', () => {
    fc.assert(
      // Any UTF-16, lone surrogates too; fc.string({ unit: 'binary' }) takes a second to set up.
      fc.property(
        fc.oneof(
          fc.uint16Array().map((units) => String.fromCharCode(...units)),
          fc.string(),
        ),
        (text) => {
          assertSane(text, parseConfiguration(text));
        },
      ),
    );
  });

  it('parseConfiguration() never throws on any JSON value', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = JSON.stringify(value, null, 1);
        assertSane(text, parseConfiguration(text));
      }),
    );
  });

  it('parseConfiguration() never throws on a good configuration with strange values in it', () => {
    const rich = haExample({
      metrics: { listen: '[::]:9902' },
      dataPlane: { workers: 0 },
      limits: {},
      compat: 'none',
      pool: {
        backends: [{ address: '10.0.1.1', floatingAddresses: { hub: '10.7.0.1' }, weight: 3 }, '10.0.1.2'],
      },
      more: {
        frontends: [{ name: 'spoke', address: 'fd00::1', allow: ['fd00::/8'], idleTimeout: { udp: '9s' } }],
        rules: [
          {
            ...example().rules[0],
            idleTimeout: { tcp: '5m' },
            flowPolicy: { idle: 'drop' },
            udp: {},
            tcp: {},
          },
        ],
      },
    });
    const where = fc.constantFrom(...places(rich));
    fc.assert(
      fc.property(fc.array(fc.tuple(where, strange), { minLength: 1, maxLength: 3 }), (changes) => {
        let raw: unknown = rich;
        for (const [path, by] of changes) {
          try {
            raw = replaceAt(raw, path, by);
          } catch {
            // The place went with an earlier change.
          }
        }
        const text = JSON.stringify(raw, null, 1);
        assertSane(text, parseConfiguration(text));
      }),
      { numRuns: campaign({ share: 120, whole: 2000 }) },
    );
  });

  it('parseConfiguration() never throws on any capture, whatever else there is', () => {
    const options = fc.record(
      {
        udp: fc.constantFrom('redirect', 'bind'),
        excludedPorts: fc.oneof(fc.constantFrom<unknown>('22', '443', '1-65535', ''), fc.integer()),
        fallback: fc.constantFrom('none', 'bind'),
        port: fc.oneof(fc.integer({ min: 1000, max: 66_000 }), strange),
        block: fc.oneof(
          fc.constantFrom<unknown>(
            ...['0.0.0.0/0', '::/0', '10.0.0.0/8', '240.0.0.0/16', '127.0.0.0/8', '10.0.0.1'],
          ),
          fc
            .tuple(fc.nat(255), fc.nat(20))
            .map(([first, length]) => `${first & (0xff << Math.max(0, 8 - length)) & 0xff}.0.0.0/${length}`),
          strange,
        ),
      },
      { requiredKeys: [] },
    );
    const capture = fc.oneof(options, fc.dictionary(fc.string(), fc.jsonValue()), strange);
    const address = fc.oneof(
      fc.constantFrom('0.0.0.0', '::', '127.0.0.1', 'fe80::1%eth0', 'fd68:6170:6f72:7473::1', '10.0.0.1'),
      fc.ipV4(),
      fc.ipV6(),
    );
    const seen = new Set<string>();
    fc.assert(
      fc.property(
        capture,
        fc.integer({ min: 0, max: 64 }),
        address,
        fc.boolean(),
        (value, workers, at, ha) => {
          const raw = (ha ? haExample : example)({
            dataPlane: { workers, capture: value },
            frontend: { address: at },
            rule: ha ? { listenPorts: '1-65535' } : {},
          });
          const text = JSON.stringify(raw, null, 1);
          const result = parseConfiguration(text);
          assertSane(text, result);
          for (const { code } of result.findings) seen.add(code);
        },
      ),
      { numRuns: campaign({ share: 300, whole: 2000 }) },
    );
    for (const code of ['LB_CAPTURE_WILDCARD', 'LB_CAPTURE_ADDRESS', 'LB_CAPTURE_PORT', 'LB_VALUE']) {
      assert.ok(seen.has(code), `${code} was never met`);
    }
  });

  it('parseConfiguration() never throws on any kernel data plane, whatever else there is', () => {
    const mostly = (right: fc.Arbitrary<unknown>, wrong: fc.Arbitrary<unknown> = strange) =>
      fc.oneof({ weight: 19, arbitrary: right }, { weight: 1, arbitrary: wrong });
    const block = fc.constantFrom('10.0.0.0/8', '10.1.0.0/16', '192.168.0.0/16', 'fd00::/8', 'fc00::/7');
    const options = fc.record(
      {
        mode: mostly(fc.constantFrom('nat', 'floating-l2', 'floating-routed', 'next-hop')),
        returnPath: mostly(fc.constantFrom('route', 'masquerade')),
        interface: mostly(fc.constant('eth0')),
        tableSize: mostly(fc.constantFrom(251, 4093, 65_521), fc.constantFrom(250, 65_537)),
        flowState: mostly(fc.constantFrom('pinned', 'stateless')),
        spokes: mostly(fc.array(block, { maxLength: 4 })),
        manageSysctls: mostly(fc.boolean()),
        onStop: mostly(fc.constantFrom('keep', 'remove')),
      },
      { requiredKeys: [] },
    );
    const kernel = mostly(options, fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), strange));
    const rule = fc.record(
      {
        floatingIp: fc.boolean(),
        symmetric: fc.boolean(),
        distribution: fc.constantFrom('five-tuple', 'source-ip'),
        flowPolicy: fc.constantFrom('azure', 'firewall', 'gcp'),
        idleTimeout: fc.record(
          { tcp: mostly(fc.constant('2h'), fc.constant('1500ms')) },
          { requiredKeys: [] },
        ),
        udp: fc.record(
          {
            perPacket: mostly(fc.constant(false), fc.constant(true)),
            expectedResponses: mostly(fc.constant(undefined), fc.nat(3)),
            answersFrom: fc.constantFrom('endpoint', 'address'),
          },
          { requiredKeys: [] },
        ),
        tcpReset: fc.boolean(),
      },
      { requiredKeys: [] },
    );
    const address = fc.constantFrom('0.0.0.0', '::', '10.0.0.1', 'fd00::1', 'fe80::1%eth0', '10.0.1.1');
    const seen = new Set<string>();
    let usable = 0;
    fc.assert(
      fc.property(kernel, rule, address, fc.boolean(), fc.boolean(), (value, over, at, ha, more) => {
        const caps = { limits: { tcpFlowsPerSource: 1, tcpFlows: 2 }, tableSize: 251 };
        const raw = (ha ? haExample : example)({
          dataPlane: { kind: 'kernel', kernel: value },
          frontend: { address: at },
          rule: over,
          pool: more ? { maxConnections: 3, proxyProtocol: 'v1', sourcePorts: 1 } : {},
          ...(more ? caps : {}),
        });
        const text = JSON.stringify(raw, null, 1);
        const result = parseConfiguration(text);
        assertSane(text, result);
        for (const { code } of result.findings) seen.add(code);
        if (result.ok) {
          usable++;
          assert.ok(result.configuration.kernel !== undefined);
        }
      }),
      { numRuns: campaign({ share: 200, whole: 2000 }) },
    );
    assert.ok(usable > 0, 'none could be used');
    for (const code of [
      ...['MODE', 'SPOKES', 'ADDRESS', 'CANNOT', 'NO_EFFECT', 'RETURN', 'MASQUERADE', 'ANSWERS', 'LIMIT'],
    ]) {
      assert.ok(seen.has(`LB_KERNEL_${code}`), `LB_KERNEL_${code} was never met`);
    }
  });

  it('parseConfiguration() never throws on a configuration with bytes gone', () => {
    const text = JSON.stringify(example(), null, 2);
    fc.assert(
      fc.property(fc.nat(text.length), fc.nat(5), (from, count) => {
        const cut = text.slice(0, from) + text.slice(from + count);
        assertSane(cut, parseConfiguration(cut));
      }),
    );
  });

  it('parseDuration() undoes formatDuration()', () => {
    fc.assert(
      fc.property(fc.nat(999_999_999), (ms) => {
        assert.equal(parseDuration(formatDuration(ms)), ms);
      }),
    );
  });

  it('canonicalJson() is JSON of the same value, whatever the order of keys', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
        const text = canonicalJson(value);
        assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
        assert.equal(canonicalJson(Object.fromEntries(Object.entries(value).reverse())), text);
      }),
    );
  });

  it('editDistance() is a distance between words, one for each slip', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), fc.nat(12), (a, b, at) => {
        assert.equal(editDistance(a, a), 0);
        assert.equal(editDistance(a, b), editDistance(b, a));
        assert.ok(editDistance(a, b) <= Math.max(a.length, b.length));
        assert.ok(editDistance(a, b) >= Math.abs(a.length - b.length));
        assert.equal(editDistance(a, `${a.slice(0, at)}#${a.slice(at)}`), 1);
      }),
    );
  });
});
