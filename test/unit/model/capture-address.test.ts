import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { fromBytes, parseCidr, type Cidr, type IpAddress } from '../../../src/model/address.js';
import { captureAddress, capturedPort, captureRoom, captureSlots } from '../../../src/model/capture.js';

function cidr(text: string): Cidr {
  const block = parseCidr(text);
  assert.ok(block !== undefined, text);
  return block;
}

const DEFAULT = cidr('240.0.0.0/4');

/** FNV-1a as published, in whole numbers of any size, and not in 32-bit steps as the code under test. */
function fnv1a(bytes: readonly number[]): number {
  return Number(bytes.reduce((hash, byte) => ((hash ^ BigInt(byte)) * 16777619n) % 4294967296n, 2166136261n));
}

const anyAddress = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }).map((bytes) => fromBytes(bytes)),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => fromBytes(bytes)),
);
/** Blocks of /4 to /16 with room for something. */
const anyBlock = fc
  .tuple(fc.integer({ min: 4, max: 16 }), fc.nat(65_535))
  .map(([prefixLength, high]) => {
    const kept = high & (0xffff << (16 - prefixLength)) & 0xffff;
    return cidr(`${kept >> 8}.${kept & 255}.0.0/${prefixLength}`);
  })
  .filter((block) => captureRoom(block) > 0);

describe('capture-address', () => {
  it('the oracle gives the published values of FNV-1a', () => {
    // http://www.isthe.com/chongo/src/fnv/test_fnv.c, also draft-eastlake-fnv, appendix C.
    const published = { '': 0x811c9dc5, a: 0xe40c292c, b: 0xe70c2de5, foobar: 0xbf9cf968 };
    for (const [text, hash] of Object.entries(published)) assert.equal(fnv1a([...Buffer.from(text)]), hash);
  });

  it('captureSlots() takes the slot that FNV-1a of the address gives', () => {
    fc.assert(
      fc.property(
        anyAddress,
        fc.constantFrom('240.0.0.0/8', '10.0.0.0/8', '240.0.0.0/5'),
        (address, text) => {
          const block = cidr(text);
          const expected = fnv1a(address.bytes) % 2 ** (16 - block.prefixLength);
          assert.equal(captureSlots([address], block).get(address.text), expected);
        },
      ),
    );
    // "foobar!\0…" would do as well; these bytes are "foob", whose hash is published: 0x3f5076ef.
    assert.equal(
      captureSlots([fromBytes(Buffer.from('foob'))], cidr('240.0.0.0/8')).get('102.111.111.98'),
      0xef,
    );
  });

  it('captureAddress() writes slot and port into the address', () => {
    const text = (family: 4 | 6, slot: number, port: number, block = DEFAULT) =>
      captureAddress(family, slot, port, block).text;
    assert.equal(text(4, 0, 1), '240.0.0.1');
    assert.equal(text(4, 0x0102, 8080), '241.2.31.144');
    assert.equal(text(4, 0xfff, 65_535), '255.255.255.255');
    assert.equal(text(4, 5, 0, cidr('10.64.0.0/10')), '10.69.0.0');
    assert.equal(text(6, 0, 1), 'fd68:6170:6f72:7473::1');
    assert.equal(text(6, 0x0102, 8080), 'fd68:6170:6f72:7473:102::1f90');
    assert.equal(text(6, 7, 0), 'fd68:6170:6f72:7473:7::');
  });

  it('capturedPort() undoes captureAddress() for every port that a flow can have', () => {
    const port = fc.integer({ min: 1, max: 65_535 });
    fc.assert(
      fc.property(
        anyBlock,
        fc.constantFrom(4 as const, 6 as const),
        fc.nat(),
        port,
        (block, family, any, port) => {
          const slot = any % 2 ** (16 - block.prefixLength);
          assert.equal(
            capturedPort(captureAddress(family, slot, port, block).text, block),
            slot * 65_536 + port,
          );
        },
      ),
    );
  });

  it('capturedPort() knows no other address', () => {
    for (const text of ['127.0.0.1', '0.0.0.0', '10.63.255.255', '10.128.0.0', '255.255.255.255']) {
      assert.equal(capturedPort(text, cidr('10.64.0.0/10')), -1, text);
    }
    assert.equal(capturedPort('240.1.0.1', cidr('240.0.0.0/16')), -1);
    for (const text of [
      '::',
      '::1',
      'fd68:6170:6f72:7474::1',
      'fd68:6170:6f72:74::1',
      '::ffff:240.64.0.1',
      'fe80::1',
    ]) {
      assert.equal(capturedPort(text, DEFAULT), -1, text);
    }
    // More than a slot and a port.
    for (const tail of [
      '1:2:3:4',
      '1:2::3',
      '1:100::1',
      '::1:2',
      '1::2:3',
      '1:0:100:1',
      ':',
      '12345::1',
      '1::',
    ]) {
      assert.equal(capturedPort(`fd68:6170:6f72:7473:${tail}`, DEFAULT), -1, tail);
    }
    fc.assert(
      fc.property(anyAddress, anyBlock, ({ family, text }, block) => {
        const found = capturedPort(text, block);
        if (found >= 0) assert.equal(captureAddress(family, found >>> 16, found & 0xffff, block).text, text);
      }),
    );
  });

  it('captureRoom() counts what may be used', () => {
    const rooms = { '240.0.0.0/4': 15 * 256, '10.0.0.0/8': 256, '240.0.0.0/16': 1, '240.0.0.0/12': 16 };
    const less = { '0.0.0.0/4': 15 * 256, '112.0.0.0/4': 15 * 256, '127.0.0.0/8': 0, '255.0.0.0/8': 0 };
    for (const [text, room] of Object.entries({ ...rooms, ...less })) {
      assert.equal(captureRoom(cidr(text)), room, text);
    }
  });

  const textsOf = (addresses: readonly IpAddress[]) => new Set(addresses.map(({ text }) => text));

  it('captureSlots() gives each address a slot of its own, none in 0/8, 127/8 or 255/8, in any order', () => {
    fc.assert(
      fc.property(fc.array(anyAddress, { maxLength: 40 }), anyBlock, (addresses, block) => {
        const texts = textsOf(addresses);
        if (texts.size > captureRoom(block)) {
          assert.throws(() => captureSlots(addresses, block), RangeError);
          return;
        }
        const slots = captureSlots(addresses, block);
        assert.deepEqual(new Set(slots.keys()), texts);
        assert.equal(new Set(slots.values()).size, texts.size);
        for (const slot of slots.values()) {
          assert.ok(slot >= 0 && slot < 2 ** (16 - block.prefixLength));
          const first = captureAddress(4, slot, 1, block).bytes[0] ?? -1;
          assert.ok(![-1, 0, 127, 255].includes(first), String(first));
        }
        const backwards = [...addresses, ...addresses].reverse();
        assert.deepEqual(new Map(captureSlots(backwards, block)), new Map(slots));
      }),
    );
  });

  it('captureSlots() fills a block to its last slot, and no further', () => {
    const many = (count: number) =>
      Array.from({ length: count }, (_, index) => fromBytes([10, 0, index >> 8, index & 255]));
    for (const text of ['240.0.0.0/4', '254.0.0.0/7', '240.0.0.0/12', '240.0.0.0/16']) {
      const block = cidr(text);
      const room = captureRoom(block);
      assert.equal(new Set(captureSlots(many(room), block).values()).size, room, text);
      assert.throws(() => captureSlots(many(room + 1), block), RangeError, text);
    }
    assert.throws(() => captureSlots(many(1), cidr('127.0.0.0/8')), RangeError);
    assert.equal(captureSlots([], cidr('127.0.0.0/8')).size, 0);
  });

  it('captureSlots() keeps the slots of those who stay, but where two would have the same', () => {
    fc.assert(
      fc.property(fc.array(anyAddress, { minLength: 1, maxLength: 8 }), fc.nat(), (addresses, which) => {
        const alone = addresses.map((address) => fnv1a(address.bytes) % 4096);
        const usable = alone.every((slot) => slot < 3840);
        fc.pre(usable && new Set(alone).size === textsOf(addresses).size);
        const gone = addresses[which % addresses.length];
        const before = captureSlots(addresses, DEFAULT);
        const stay = addresses.filter(({ text }) => text !== gone?.text);
        for (const [text, slot] of captureSlots(stay, DEFAULT)) assert.equal(slot, before.get(text));
      }),
    );
  });
});
