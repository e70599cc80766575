import xxhash from 'xxhash-wasm';
import { PROTOCOL_NUMBER, ipv6Bytes, type FiveTuple, type IpAddress } from '../model/address.js';
import type { Configuration, KernelOptions, Rule } from '../model/configuration.js';
import { spokeOf } from './rule-ports.js';

/**
 * XXH32 of raw bytes: an unsigned 32-bit integer. The seed is 0 to 2^32-1. Synchronous, keeps nothing of the bytes,
 * never touches BigInt.
 */
export type Hash32 = (bytes: Uint8Array, seed: number) => number;

/** Loads the WebAssembly module once; call it at start-up and hand the function around. */
export async function createHasher(): Promise<Hash32> {
  const api = await xxhash();
  return (bytes, seed) => api.h32Raw(bytes, seed);
}

/** A field of what is hashed, in the order hashed. */
export type HashedField =
  'family' | 'protocol' | 'source address' | 'destination address' | 'source port' | 'destination port';

/** With its length in bytes. */
type KeyField = readonly [HashedField, number];

/** How a data plane gets from a tuple to a slot of a table. */
export interface FlowHash {
  readonly name: 'xxh32' | 'jhash';
  /** What is hashed. The view is good until the next call. The kernel's throws TypeError on a tuple of two families. */
  write(tuple: FiveTuple, layout: KeyLayout): Uint8Array;
  hash(key: Uint8Array, seed: number): number;
  /** 0 to `size` - 1. */
  slotOf(hash: number, size: number): number;
  /**
   * Where the slot's backend may not take a flow: how often its key is hashed again, with the seed one higher each time. 0:
   * the next slots are asked instead, one after the other.
   */
  readonly rehashes: number;
  /** Whether the destination endpoint is hashed first. */
  swaps(tuple: FiveTuple, layout: KeyLayout): boolean;
  /** Of which a key is made, in order. */
  fields(tuple: FiveTuple, layout: KeyLayout): readonly KeyField[];
}

/** That of the plane which a configuration asks for: it is the same for everything that reads that configuration. */
export function flowHashOf({ kernel }: Pick<Configuration, 'kernel'>, hash: Hash32): FlowHash {
  return kernel === undefined ? new UserspaceHash(hash) : new KernelHash(kernel);
}

/** A ruleset cannot repeat forever: with 1 of 10 backends out, 1 of 10,000 first packets finds none, and comes again. */
export const KERNEL_REHASHES = 3;

/** Which fields are in the key, and whether both directions give the same one. A Rule is one. */
export type KeyLayout = Pick<Rule, 'distribution' | 'symmetric'>;

/**
 * xxh32 over the canonical bytes of docs/hash.md: family (1: 4 or 6), protocol (1: IANA number), source address (4 or
 * 16), destination address, source port (2, big-endian), destination port (2). `source-ip-protocol` leaves out the ports,
 * `source-ip` the ports and the protocol. For the data path: one buffer, nothing allocated per call.
 */
class UserspaceHash implements FlowHash {
  readonly name = 'xxh32';
  readonly rehashes = 0;
  readonly hash: Hash32;
  readonly #bytes = new Uint8Array(1 + 1 + 16 + 16 + 2 + 2);
  /** By length. */
  readonly #views = Array.from(this.#bytes, (_, length) => this.#bytes.subarray(0, length));

  constructor(hash: Hash32) {
    this.hash = hash;
    this.#views.push(this.#bytes);
  }

  write(tuple: FiveTuple, layout: KeyLayout): Uint8Array {
    const source = hashedBytes(tuple.source, tuple.destination);
    const destination = hashedBytes(tuple.destination, tuple.source);
    const swaps = this.swaps(tuple, layout);
    const bytes = this.#bytes;
    let length = 0;
    bytes[length++] = source.length === 4 ? 4 : 6;
    if (layout.distribution !== 'source-ip') bytes[length++] = PROTOCOL_NUMBER[tuple.protocol];
    length = copy(swaps ? destination : source, bytes, length);
    length = copy(swaps ? source : destination, bytes, length);
    if (layout.distribution === 'five-tuple') {
      const first = swaps ? tuple.destinationPort : tuple.sourcePort;
      const second = swaps ? tuple.sourcePort : tuple.destinationPort;
      bytes[length++] = first >> 8;
      bytes[length++] = first & 0xff;
      bytes[length++] = second >> 8;
      bytes[length++] = second & 0xff;
    }
    // No key is longer than the buffer.
    return this.#views[length]!;
  }

  slotOf(hash: number, size: number): number {
    return hash % size;
  }

  /**
   * Only in a symmetric layout: the lower endpoint is first, by address bytes and then, where ports are hashed, by port.
   * The zone of a scoped address counts for nothing.
   */
  swaps(tuple: FiveTuple, { symmetric, distribution }: KeyLayout): boolean {
    if (!symmetric) return false;
    const source = hashedBytes(tuple.source, tuple.destination);
    const destination = hashedBytes(tuple.destination, tuple.source);
    for (let index = 0; index < source.length; index++) {
      const difference = source[index]! - destination[index]!;
      if (difference !== 0) return difference > 0;
    }
    return distribution === 'five-tuple' && tuple.sourcePort > tuple.destinationPort;
  }

  fields(tuple: FiveTuple, layout: KeyLayout): readonly KeyField[] {
    const { addresses, protocol, ports } = keyFields(tuple, layout, this.swaps(tuple, layout), [1, 2]);
    return [['family', 1], ...protocol, ...addresses, ...ports];
  }
}

/**
 * nftables' jhash over a concatenation: addresses, then the protocol and the ports, each in registers of 4 bytes, as
 * measured on nftables 1.0.6. A flow has the hash of its first packet. Between spokes, packets from a later one to an
 * earlier one are hashed the other way round: both directions lead to the same backend, whichever comes first.
 */
class KernelHash implements FlowHash {
  readonly name = 'jhash';
  readonly rehashes = KERNEL_REHASHES;
  readonly hash = jhash;
  readonly #options: KernelOptions;
  readonly #bytes = new Uint8Array(16 + 16 + 4 + 4 + 4);

  constructor(options: KernelOptions) {
    this.#options = options;
  }

  write(tuple: FiveTuple, layout: KeyLayout): Uint8Array {
    assertOneFamily(tuple);
    const { source, destination } = tuple;
    const swaps = this.swaps(tuple);
    const bytes = this.#bytes;
    let length = 0;
    const add = (part: readonly number[]): void => {
      for (const byte of part) bytes[length++] = byte;
      while (length % 4 !== 0) bytes[length++] = 0;
    };
    add(swaps ? destination.bytes : source.bytes);
    add(swaps ? source.bytes : destination.bytes);
    if (layout.distribution !== 'source-ip') add([PROTOCOL_NUMBER[tuple.protocol]]);
    if (layout.distribution === 'five-tuple') {
      const first = swaps ? tuple.destinationPort : tuple.sourcePort;
      const second = swaps ? tuple.sourcePort : tuple.destinationPort;
      add([first >> 8, first & 0xff]);
      add([second >> 8, second & 0xff]);
    }
    return bytes.subarray(0, length);
  }

  slotOf(hash: number, size: number): number {
    return reciprocalScale(hash, size);
  }

  swaps({ source, destination }: FiveTuple): boolean {
    const { mode, spokes } = this.#options;
    if (mode !== 'next-hop') return false;
    const to = spokeOf(spokes, destination);
    return to >= 0 && spokeOf(spokes, source) > to;
  }

  fields(tuple: FiveTuple, layout: KeyLayout): readonly KeyField[] {
    const { addresses, protocol, ports } = keyFields(tuple, layout, this.swaps(tuple), [4, 4]);
    return [...addresses, ...protocol, ...ports];
  }
}

/**
 * An address's bytes, as many as those of the tuple's other address. Only a PROXY protocol header can name addresses of
 * two families, in the IPv4-mapped form of one: then both are taken as IPv6.
 */
function hashedBytes(address: IpAddress, other: IpAddress): readonly number[] {
  return address.family === other.family ? address.bytes : ipv6Bytes(address);
}

/** Nothing that arrives in a packet can be of two families, so it is a bug. */
function assertOneFamily({ source, destination }: FiveTuple): void {
  if (source.family === destination.family) return;
  throw new TypeError(`Cannot hash "${source.text}" and "${destination.text}": families must agree`);
}

function keyFields(
  { source, destination }: FiveTuple,
  { distribution }: KeyLayout,
  swaps: boolean,
  [protocolBytes, portBytes]: readonly [number, number],
): Readonly<Record<'addresses' | 'protocol' | 'ports', readonly KeyField[]>> {
  const [first, second] = swaps ? (['destination', 'source'] as const) : (['source', 'destination'] as const);
  const { length } = hashedBytes(source, destination);
  return {
    addresses: [
      [`${first} address`, length],
      [`${second} address`, length],
    ],
    protocol: distribution === 'source-ip' ? [] : [['protocol', protocolBytes]],
    ports:
      distribution === 'five-tuple'
        ? [
            [`${first} port`, portBytes],
            [`${second} port`, portBytes],
          ]
        : [],
  };
}

/** Returns where the copy ends. A loop: for so few bytes `set` takes longer. */
function copy(from: readonly number[], to: Uint8Array, start: number): number {
  for (let index = 0; index < from.length; index++) to[start + index] = from[index]!;
  return start + from.length;
}

/** JHASH_INITVAL of linux/include/linux/jhash.h: an arbitrary number. */
const INITIAL = 0xdeadbeef;

/**
 * The hash of Linux (include/linux/jhash.h, from Bob Jenkins' lookup3.c) as nftables' `jhash` applies it to the registers of
 * a concatenation on a little-endian machine: an unsigned 32-bit integer. The length must be a multiple of 4, as that of
 * registers is.
 */
export function jhash(key: Uint8Array, seed: number): number {
  let length = key.length;
  let offset = 0;
  let a = (INITIAL + length + seed) | 0;
  let b = a;
  let c = a;
  while (length > 12) {
    a = (a + word(key, offset)) | 0;
    b = (b + word(key, offset + 4)) | 0;
    c = (c + word(key, offset + 8)) | 0;
    // __jhash_mix
    a = (a - c) ^ rotate(c, 4);
    c = (c + b) | 0;
    b = (b - a) ^ rotate(a, 6);
    a = (a + c) | 0;
    c = (c - b) ^ rotate(b, 8);
    b = (b + a) | 0;
    a = (a - c) ^ rotate(c, 16);
    c = (c + b) | 0;
    b = (b - a) ^ rotate(a, 19);
    a = (a + c) | 0;
    c = (c - b) ^ rotate(b, 4);
    b = (b + a) | 0;
    length -= 12;
    offset += 12;
  }
  if (length === 0) return c >>> 0;
  a = (a + word(key, offset)) | 0;
  if (length > 4) b = (b + word(key, offset + 4)) | 0;
  if (length > 8) c = (c + word(key, offset + 8)) | 0;
  // __jhash_final
  c = ((c ^ b) - rotate(b, 14)) | 0;
  a = ((a ^ c) - rotate(c, 11)) | 0;
  b = ((b ^ a) - rotate(a, 25)) | 0;
  c = ((c ^ b) - rotate(b, 16)) | 0;
  a = ((a ^ c) - rotate(c, 4)) | 0;
  b = ((b ^ a) - rotate(a, 14)) | 0;
  c = ((c ^ b) - rotate(b, 24)) | 0;
  return c >>> 0;
}

/** The kernel's reciprocal_scale(): 0 to `size` - 1. It is not `hash % size`. */
export function reciprocalScale(hash: number, size: number): number {
  // In two halves: the product of both may have 64 bits, more than a double holds.
  const high = Math.floor(hash / 65536) * size;
  const low = (hash % 65536) * size;
  return Math.floor((high + Math.floor(low / 65536)) / 65536);
}

function word(key: Uint8Array, at: number): number {
  return key[at]! | (key[at + 1]! << 8) | (key[at + 2]! << 16) | (key[at + 3]! << 24);
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}
