import type { Distribution } from '../../../model/rule.js';
import { hex32, ipWord } from './table-text.js';

/*
 * Keys of the maps that packets of floating modes fill. Each is two hashes of the same fields: nft 1.0.6 takes no longer
 * keys there than 16 bytes, which IPv6 exceeds, and only hashes can be made of a packet inside an ICMP error. Maps are
 * one for each frontend address, so that it need not be in the key.
 */

/** Any two, other than those of tables: with 64 bits, a million flows share a key once in 37 million times. */
const SEEDS = [0x68617031, 0x68617032] as const;
const HASHES = 4_294_967_295;

/** How a map is declared whose keys these are. */
export const KEYED_MARKS = `typeof numgen inc mod ${HASHES} . numgen inc mod ${HASHES} : meta mark`;

/** Of a packet with ports. */
export function flowKey(family: 4 | 6): string {
  return twoHashes([`${ipWord(family)} saddr`, 'meta l4proto', 'th sport', 'th dport']);
}

/** Of a packet of another protocol. */
export function pairKey(family: 4 | 6): string {
  return twoHashes([`${ipWord(family)} saddr`, 'meta l4proto']);
}

/** Of all fragments of a packet. */
export function fragmentKey(family: 4 | 6): string {
  return twoHashes(
    family === 4 ? ['ip saddr', 'ip daddr', 'ip id', 'ip protocol'] : ['ip6 saddr', 'ip6 daddr', 'frag id'],
  );
}

/** Where the fields of the packet are that an ICMP error is about: bits from the ICMP header on, and how many. */
const EMBEDDED = {
  4: { protocol: '@th,136,8', frontend: '@th,160,32', client: '@th,192,32', ports: 64 + 160 },
  6: { protocol: '@th,112,8', frontend: '@th,128,128', client: '@th,256,128', ports: 64 + 320 },
} as const;

/** What an ICMP error says about the packet that a backend has sent: it is read the other way round. */
export function embeddedFields(family: 4 | 6): {
  readonly protocol: string;
  readonly client: string;
  readonly frontend: string;
  readonly clientPort: string;
  readonly frontendPort: string;
} {
  const { ports, ...fields } = EMBEDDED[family];
  return { ...fields, frontendPort: `@th,${ports},16`, clientPort: `@th,${ports + 16},16` };
}

/** The key of the flow that an ICMP error is about. */
export function embeddedKey(family: 4 | 6, ports: 'with-ports' | 'without-ports'): string {
  const { client, protocol, clientPort, frontendPort } = embeddedFields(family);
  return twoHashes([client, protocol, ...(ports === 'with-ports' ? [clientPort, frontendPort] : [])]);
}

export interface EmbeddedHash {
  readonly family: 4 | 6;
  readonly distribution: Distribution;
  readonly ports: 'with-ports' | 'without-ports';
  readonly size: number;
  readonly seed: number;
}

/** The slot of the flow that an ICMP error is about: hashText of its first packet. */
export function embeddedHash({ family, distribution, ports, size, seed }: EmbeddedHash): string {
  const { client, frontend, protocol, clientPort, frontendPort } = embeddedFields(family);
  const fields = [
    ...[client, frontend],
    ...(distribution === 'source-ip' ? [] : [protocol]),
    ...(distribution === 'five-tuple' && ports === 'with-ports' ? [clientPort, frontendPort] : []),
  ];
  return `jhash ${fields.join(' . ')} mod ${size} seed ${hex32(seed >>> 0)}`;
}

function twoHashes(fields: readonly string[]): string {
  return SEEDS.map((seed) => `jhash ${fields.join(' . ')} mod ${HASHES} seed ${hex32(seed)}`).join(' . ');
}
