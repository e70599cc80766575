import { PROTOCOL_NUMBER, type FiveTuple } from '../model/five-tuple.js';
import type { ExplainedKey, KeyField } from './explanation.js';
import type { HashedKey } from './picker.js';
import { destinationFirst, type KeyLayout } from './tuple-key.js';

/** Names the parts of a key that was written and hashed. The bytes shown are cut from those bytes, not made again. */
export function describeKey(
  tuple: FiveTuple,
  layout: KeyLayout,
  seed: number,
  hashed: HashedKey,
): ExplainedKey {
  const swapped = destinationFirst(tuple, layout);
  const addressLength = tuple.source.bytes.length;
  const source = { name: 'source address', length: addressLength, value: tuple.source.text } as const;
  const destination = {
    name: 'destination address',
    length: addressLength,
    value: tuple.destination.text,
  } as const;
  const sourcePort = { name: 'source port', length: 2, value: String(tuple.sourcePort) } as const;
  const destinationPort = {
    name: 'destination port',
    length: 2,
    value: String(tuple.destinationPort),
  } as const;

  const parts: { readonly name: KeyField['name']; readonly length: number; readonly value: string }[] = [
    { name: 'family', length: 1, value: `IPv${tuple.source.family}` },
  ];
  if (layout.distribution !== 'source-ip') {
    const value = `${tuple.protocol} (${PROTOCOL_NUMBER[tuple.protocol]})`;
    parts.push({ name: 'protocol', length: 1, value });
  }
  parts.push(...(swapped ? [destination, source] : [source, destination]));
  if (layout.distribution === 'five-tuple') {
    parts.push(...(swapped ? [destinationPort, sourcePort] : [sourcePort, destinationPort]));
  }

  const hex = Buffer.from(hashed.bytes).toString('hex');
  let offset = 0;
  const fields = parts.map(({ name, length, value }): KeyField => {
    const start = offset;
    offset += length * 2;
    return { name, hex: hex.slice(start, offset), value };
  });
  return {
    distribution: layout.distribution,
    symmetric: layout.symmetric,
    destinationFirst: swapped,
    fields,
    hex,
    seed,
    hash: hashed.hash,
  };
}
