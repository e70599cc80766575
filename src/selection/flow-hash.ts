import type { Configuration } from '../model/configuration.js';
import { PROTOCOL_NUMBER, type FiveTuple } from '../model/five-tuple.js';
import type { KernelOptions } from '../model/kernel-options.js';
import type { Hash32 } from './hasher.js';
import { jhash, reciprocalScale } from './jhash.js';
import { spokeOf } from './spokes.js';
import { destinationFirst, TupleKeyWriter, type KeyLayout } from './tuple-key.js';

/** A field of what is hashed, in the order hashed. */
export type HashedField =
  'family' | 'protocol' | 'source address' | 'destination address' | 'source port' | 'destination port';

/** How a data plane gets from a tuple to a slot of a table. */
export interface FlowHash {
  readonly name: 'xxh32' | 'jhash';
  /** What is hashed. The view is good until the next call. Throws TypeError on a tuple of two families. */
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
  /** The fields of a key and their lengths in bytes. */
  fields(tuple: FiveTuple, layout: KeyLayout): readonly (readonly [HashedField, number])[];
}

/** That of the plane which a configuration asks for: it is the same for all who look at that configuration. */
export function flowHashOf({ kernel }: Pick<Configuration, 'kernel'>, hash: Hash32): FlowHash {
  return kernel === undefined ? new UserspaceHash(hash) : new KernelHash(kernel);
}

/** A ruleset cannot go on for ever: with 1 of 10 backends out, 1 of 10,000 first packets finds nobody, and comes again. */
export const KERNEL_REHASHES = 3;

/** xxh32 over the canonical bytes of docs/hash.md. */
class UserspaceHash implements FlowHash {
  readonly name = 'xxh32';
  readonly rehashes = 0;
  readonly hash: Hash32;
  readonly #writer = new TupleKeyWriter();

  constructor(hash: Hash32) {
    this.hash = hash;
  }

  write(tuple: FiveTuple, layout: KeyLayout): Uint8Array {
    return this.#writer.write(tuple, layout);
  }

  slotOf(hash: number, size: number): number {
    return hash % size;
  }

  swaps(tuple: FiveTuple, layout: KeyLayout): boolean {
    return destinationFirst(tuple, layout);
  }

  fields(tuple: FiveTuple, layout: KeyLayout): readonly (readonly [HashedField, number])[] {
    const address = tuple.source.bytes.length;
    const swapped = this.swaps(tuple, layout);
    return [
      ['family', 1],
      ...(layout.distribution === 'source-ip' ? [] : ([['protocol', 1]] as const)),
      [swapped ? 'destination address' : 'source address', address],
      [swapped ? 'source address' : 'destination address', address],
      ...(layout.distribution === 'five-tuple' ? ports(swapped, 2) : []),
    ];
  }
}

/**
 * nftables' jhash over a concatenation: addresses, then the protocol and the ports, each in registers of 4 bytes, as
 * measured on nftables 1.0.6. A flow has the hash of its first packet. Between spokes, packets from a later one to an earlier
 * one are hashed the other way round: both directions lead to the same backend, whoever sees them first.
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
    const { source, destination } = tuple;
    if (source.family !== destination.family) {
      throw new TypeError(`Cannot hash "${source.text}" and "${destination.text}": families must agree`);
    }
    const swapped = this.swaps(tuple);
    const bytes = this.#bytes;
    let length = 0;
    const add = (part: readonly number[]): void => {
      for (const byte of part) bytes[length++] = byte;
      while (length % 4 !== 0) bytes[length++] = 0;
    };
    add(swapped ? destination.bytes : source.bytes);
    add(swapped ? source.bytes : destination.bytes);
    if (layout.distribution !== 'source-ip') add([PROTOCOL_NUMBER[tuple.protocol]]);
    if (layout.distribution === 'five-tuple') {
      const first = swapped ? tuple.destinationPort : tuple.sourcePort;
      const second = swapped ? tuple.sourcePort : tuple.destinationPort;
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

  fields(tuple: FiveTuple, layout: KeyLayout): readonly (readonly [HashedField, number])[] {
    const address = tuple.source.bytes.length;
    const swapped = this.swaps(tuple);
    return [
      [swapped ? 'destination address' : 'source address', address],
      [swapped ? 'source address' : 'destination address', address],
      ...(layout.distribution === 'source-ip' ? [] : ([['protocol', 4]] as const)),
      ...(layout.distribution === 'five-tuple' ? ports(swapped, 4) : []),
    ];
  }
}

function ports(swapped: boolean, length: number): readonly (readonly [HashedField, number])[] {
  return swapped
    ? [
        ['destination port', length],
        ['source port', length],
      ]
    : [
        ['source port', length],
        ['destination port', length],
      ];
}
