import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  PROXY_HEADER_MAX_BYTES,
  parseProxyHeader,
  writeProxyHeader,
  type ProxyIdentity,
} from '../../src/planes/userspace/tcp/proxy-protocol.js';
import { fromBytes, type IpAddress } from '../../src/model/address.js';

const port = fc.integer({ min: 0, max: 65535 });

function addresses(length: 4 | 16): fc.Arbitrary<IpAddress> {
  return fc
    .uint8Array({ minLength: length, maxLength: length })
    .map((bytes) => fromBytes(length === 16 ? [0x20, ...bytes.subarray(1)] : bytes));
}

/** Of one family or, where one is IPv4-mapped, of both. */
function identities(source: 4 | 16, destination: 4 | 16): fc.Arbitrary<ProxyIdentity> {
  return fc.record(
    {
      source: addresses(source),
      sourcePort: port,
      destination: addresses(destination),
      destinationPort: port,
    },
    { noNullPrototype: true },
  );
}

const anyIdentity = fc.oneof(identities(4, 4), identities(16, 16), identities(4, 16), identities(16, 4));
const anyVersion = fc.constantFrom('v1' as const, 'v2' as const);

test('parseProxyHeader() reads what writeProxyHeader() wrote, and nothing less', () => {
  fc.assert(
    fc.property(anyIdentity, anyVersion, fc.uint8Array(), fc.nat(), (identity, version, rest, cut) => {
      const header = writeProxyHeader(version, identity);
      const stream = Buffer.concat([header, rest]);
      const parsed = parseProxyHeader(stream, version);
      assert.ok(parsed.kind === 'complete');
      assert.equal(parsed.length, header.length);
      assert.deepEqual(parsed.identity, identity);
      const part = stream.subarray(0, cut % header.length);
      assert.equal(parseProxyHeader(part, 'any').kind, 'incomplete');
    }),
    { numRuns: 500 },
  );
});

test('parseProxyHeader() refuses what does not begin like a header, and never throws', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (bytes) => {
      const [first] = bytes;
      // 'P' of "PROXY", CR of the binary signature.
      const kind = parseProxyHeader(bytes, 'any').kind;
      if (first !== 0x50 && first !== 0x0d) assert.equal(kind, 'invalid');
      else if (bytes.length > 12) assert.equal(kind, 'invalid');
    }),
    { numRuns: 2000 },
  );
});

test('parseProxyHeader() decides about damaged headers within the most bytes it may need', () => {
  fc.assert(
    fc.property(
      anyIdentity,
      anyVersion,
      fc.nat(),
      fc.integer({ min: 0, max: 255 }),
      (identity, version, at, value) => {
        const header = writeProxyHeader(version, identity);
        header[at % header.length] = value;
        const padded = Buffer.concat([header, Buffer.alloc(PROXY_HEADER_MAX_BYTES, 'x')]);
        const parsed = parseProxyHeader(padded, 'any');
        assert.notEqual(parsed.kind, 'incomplete');
      },
    ),
    { numRuns: 1000 },
  );
});
