import { PROTOCOL_NUMBER, type FiveTuple } from '../model/five-tuple.js';
import type { Distribution, Rule } from '../model/rule.js';

/** Which fields are in the key, and whether both directions give the same one. A Rule is one. */
export type KeyLayout = Pick<Rule, 'distribution' | 'symmetric'>;

const DISTRIBUTIONS: readonly Distribution[] = ['five-tuple', 'source-ip-protocol', 'source-ip'];

/**
 * Whether the destination endpoint comes first in the key. Only in a symmetric layout: the lower endpoint is first, by
 * address bytes and then, where ports are hashed, by port. The zone of a scoped address counts for nothing.
 */
export function destinationFirst(tuple: FiveTuple, layout: KeyLayout): boolean {
  if (!layout.symmetric) return false;
  const source = tuple.source.bytes;
  const destination = tuple.destination.bytes;
  for (let index = 0; index < source.length; index++) {
    // Both are of one family (write() checks) and so of one length.
    const difference = source[index]! - destination[index]!;
    if (difference !== 0) return difference > 0;
  }
  return layout.distribution === 'five-tuple' && tuple.sourcePort > tuple.destinationPort;
}

/**
 * Writes the canonical bytes that are hashed (docs/hash.md): family (1: 4 or 6), protocol (1: IANA number), source
 * address (4 or 16), destination address, source port (2, big-endian), destination port (2). `source-ip-protocol`
 * leaves out the ports, `source-ip` the ports and the protocol.
 *
 * For the data path: one buffer, nothing allocated per call. The view that write() returns is good until the next
 * call; copy it to keep it.
 */
export class TupleKeyWriter {
  readonly #bytes = new Uint8Array(1 + 1 + 16 + 16 + 2 + 2);
  /** By length: all layouts are told apart by it. */
  readonly #views: (Uint8Array | undefined)[] = [];

  constructor() {
    for (const addressLength of [4, 16] as const) {
      for (const distribution of DISTRIBUTIONS) {
        const length = keyLength(distribution, addressLength);
        this.#views[length] = this.#bytes.subarray(0, length);
      }
    }
  }

  /** Throws TypeError on a tuple of two families: nothing that arrives on a socket can be one, so it is a bug. */
  write(tuple: FiveTuple, layout: KeyLayout): Uint8Array {
    const { source, destination } = tuple;
    if (source.family !== destination.family) {
      throw new TypeError(`Cannot hash "${source.text}" and "${destination.text}": families must agree`);
    }
    const swap = destinationFirst(tuple, layout);
    const bytes = this.#bytes;
    let length = 0;
    bytes[length++] = source.family;
    if (layout.distribution !== 'source-ip') bytes[length++] = PROTOCOL_NUMBER[tuple.protocol];
    length = copy(swap ? destination.bytes : source.bytes, bytes, length);
    length = copy(swap ? source.bytes : destination.bytes, bytes, length);
    if (layout.distribution === 'five-tuple') {
      const first = swap ? tuple.destinationPort : tuple.sourcePort;
      const second = swap ? tuple.sourcePort : tuple.destinationPort;
      bytes[length++] = first >> 8;
      bytes[length++] = first & 0xff;
      bytes[length++] = second >> 8;
      bytes[length++] = second & 0xff;
    }
    // The constructor made a view for every length that a family and a distribution can give.
    return this.#views[length]!;
  }
}

/** Returns where the copy ends. A loop: for so few bytes `set` takes longer. */
function copy(from: readonly number[], to: Uint8Array, start: number): number {
  for (let index = 0; index < from.length; index++) to[start + index] = from[index]!;
  return start + from.length;
}

function keyLength(distribution: Distribution, addressLength: number): number {
  const fixed = distribution === 'five-tuple' ? 6 : distribution === 'source-ip-protocol' ? 2 : 1;
  return fixed + 2 * addressLength;
}
