import type { Distribution } from '../../../model/rule.js';
import { hex32, ipWord } from './table-text.js';

export interface HashTextOptions {
  readonly family: 4 | 6;
  readonly distribution: Distribution;
  /** Packets of a protocol without ports have the 3-tuple hashed where the distribution asks for five. */
  readonly ports: boolean;
  /** Slots of the table. */
  readonly size: number;
  readonly seed: number;
  /** Whether the destination endpoint is hashed first. @default false */
  readonly reversed?: boolean;
}

/**
 * The slot of a packet as nft computes it; selection/flow-hash.ts computes the same. The seed is always there: without
 * one the kernel takes a random one.
 */
export function hashText({
  family,
  distribution,
  ports,
  size,
  seed,
  reversed = false,
}: HashTextOptions): string {
  const ip = ipWord(family);
  const ends = reversed ? ['daddr', 'saddr'] : ['saddr', 'daddr'];
  const sides = reversed ? ['dport', 'sport'] : ['sport', 'dport'];
  const fields = [
    ...ends.map((end) => `${ip} ${end}`),
    ...(distribution === 'source-ip' ? [] : ['meta l4proto']),
    ...(distribution === 'five-tuple' && ports ? sides.map((side) => `th ${side}`) : []),
  ];
  return `jhash ${fields.join(' . ')} mod ${size} seed ${hex32(seed >>> 0)}`;
}

/** Protocols whose packets have ports that are hashed. SCTP and the like are not: rules have ports of TCP and UDP only. */
export const WITH_PORTS = 'meta l4proto { tcp, udp }';
export const WITHOUT_PORTS = 'meta l4proto != { tcp, udp }';
