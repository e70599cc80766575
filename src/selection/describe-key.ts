import { PROTOCOL_NUMBER, type FiveTuple } from '../model/five-tuple.js';
import type { ExplainedKey, KeyField } from './explanation.js';
import type { FlowHash, HashedField } from './flow-hash.js';
import type { HashedKey } from './picker.js';
import type { KeyLayout } from './tuple-key.js';

/** Names the parts of a key that was written and hashed. The bytes shown are cut from those bytes, not made again. */
export function describeKey(
  tuple: FiveTuple,
  layout: KeyLayout,
  seed: number,
  hashed: HashedKey,
  flowHash: FlowHash,
): ExplainedKey {
  const values: Readonly<Record<HashedField, string>> = {
    family: `IPv${tuple.source.family}`,
    protocol: `${tuple.protocol} (${PROTOCOL_NUMBER[tuple.protocol]})`,
    'source address': tuple.source.text,
    'destination address': tuple.destination.text,
    'source port': String(tuple.sourcePort),
    'destination port': String(tuple.destinationPort),
  };
  const hex = Buffer.from(hashed.bytes).toString('hex');
  let offset = 0;
  const fields = flowHash.fields(tuple, layout).map(([name, length]): KeyField => {
    const start = offset;
    offset += length * 2;
    return { name, hex: hex.slice(start, offset), value: values[name] };
  });
  return {
    distribution: layout.distribution,
    symmetric: layout.symmetric,
    destinationFirst: flowHash.swaps(tuple, layout),
    algorithm: flowHash.name,
    fields,
    hex,
    seed,
    hash: hashed.hash,
  };
}
