import type { Distribution } from '../../../model/configuration.js';
import { KERNEL_REHASHES } from '../../../selection/flow-hash.js';
import { hex32, ipWord, type Elements } from '../../netfilter/setup.js';
import type { KernelProgram, KernelRule, KernelTable } from '../program.js';

/** What one concern adds to a table: declarations of sets, maps and objects, and elements by set or map. */
export interface TablePart {
  readonly declarations: readonly string[];
  readonly elements: ReadonlyMap<string, Elements>;
}

export function mergeParts(...parts: readonly TablePart[]): TablePart {
  return {
    declarations: parts.flatMap(({ declarations }) => declarations),
    elements: new Map(parts.flatMap(({ elements }) => [...elements])),
  };
}

/** Elements of a set of marks. */
export function markElements(marks: Iterable<number>): Elements {
  return new Map([...new Set(marks)].sort((a, b) => a - b).map((mark) => [hex32(mark), '']));
}

/** Where nft finds the five-tuple: in the packet itself, or in the packet inside an ICMP error. */
export interface PacketFields {
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly sourcePort: string;
  readonly destinationPort: string;
  /** Matches packets whose ports are hashed: SCTP's and the like are not, since rules have ports of TCP and UDP only. */
  readonly withPorts: string;
  readonly withoutPorts: string;
}

const WITH_PORTS = 'meta l4proto { tcp, udp }';
export const WITHOUT_PORTS = 'meta l4proto != { tcp, udp }';

export function packetFields(family: 4 | 6): PacketFields {
  const ip = ipWord(family);
  return {
    ...{ source: `${ip} saddr`, destination: `${ip} daddr`, protocol: 'meta l4proto' },
    ...{ sourcePort: 'th sport', destinationPort: 'th dport' },
    ...{ withPorts: WITH_PORTS, withoutPorts: WITHOUT_PORTS },
  };
}

/** ICMP messages about another packet: they contain its beginning. */
export const ICMP_ERRORS = {
  4: 'icmp type { destination-unreachable, time-exceeded, parameter-problem }',
  6: 'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }',
} as const;

/** Bits from the start of the ICMP header: 8 bytes, then the IP header of the packet inside, without options. */
const EMBEDDED = {
  4: { source: '@th,160,32', destination: '@th,192,32', protocol: '@th,136,8', ports: 64 + 160 },
  6: { source: '@th,128,128', destination: '@th,256,128', protocol: '@th,112,8', ports: 64 + 320 },
} as const;

/** The packet that an ICMP error is about. */
export function embeddedFields(family: 4 | 6): PacketFields {
  const { ports, ...fields } = EMBEDDED[family];
  return {
    ...fields,
    ...{ sourcePort: `@th,${ports},16`, destinationPort: `@th,${ports + 16},16` },
    ...{ withPorts: `${fields.protocol} { 6, 17 }`, withoutPorts: `${fields.protocol} != { 6, 17 }` },
  };
}

/** The same packet as its receiver would answer it. */
export function reversed(fields: PacketFields): PacketFields {
  const { source, destination, sourcePort, destinationPort } = fields;
  return {
    ...fields,
    ...{ source: destination, destination: source },
    ...{ sourcePort: destinationPort, destinationPort: sourcePort },
  };
}

export interface HashOptions {
  readonly distribution: Distribution;
  /** Packets of a protocol without ports have the 3-tuple hashed where the distribution asks for five. */
  readonly ports: boolean;
  /** Slots of the table. */
  readonly size: number;
  readonly seed: number;
}

/**
 * The slot of a packet as nft computes it; selection/flow-hash.ts computes the same. The seed is always there: without
 * one the kernel takes a random one.
 */
export function hashText(packet: PacketFields, { distribution, ports, size, seed }: HashOptions): string {
  const fields = [
    ...[packet.source, packet.destination],
    ...(distribution === 'source-ip' ? [] : [packet.protocol]),
    ...(distribution === 'five-tuple' && ports ? [packet.sourcePort, packet.destinationPort] : []),
  ];
  return `jhash ${fields.join(' . ')} mod ${size} seed ${hex32(seed >>> 0)}`;
}

/** Where the mark of the backend goes. */
export type MarkWord = 'ct mark' | 'meta mark';

/** By slot, the mark of the backend. */
export function slotMap(table: Pick<KernelTable, 'name'>): string {
  return `to-${table.name}`;
}

/** Marks that no new flow gets, although they may be in slots yet. */
export function outSet(table: Pick<KernelTable, 'name'>): string {
  return `out-${table.name}`;
}

/** The tables, and the backends that are not in them. */
export function placementPart(program: KernelProgram): TablePart {
  const elements = new Map<string, Elements>();
  for (const table of program.tables) {
    const slots = table.marks.flatMap((mark, slot) =>
      mark === 0 ? [] : [[String(slot), hex32(mark)] as const],
    );
    elements.set(slotMap(table), new Map(slots));
    elements.set(outSet(table), markElements(outOf(table, program)));
  }
  const declarations = program.tables.flatMap((table) => [
    // A map by slot cannot be declared but by an expression that gives such numbers.
    `  map ${slotMap(table)} { typeof numgen inc mod ${program.tableSize} : meta mark; }`,
    `  set ${outSet(table)} { type mark; }`,
  ]);
  return { declarations, elements };
}

function outOf(table: KernelTable, { rules, backends }: KernelProgram): number[] {
  const pool = rules.find((rule) => rule.table.name === table.name)?.rule.pool.name ?? '';
  const inUse = new Set(table.marks);
  return backends
    .filter(({ id, mark }) => id.startsWith(`${pool}/`) && !inUse.has(mark))
    .map(({ mark }) => mark);
}

export interface PlaceOptions {
  readonly program: Pick<KernelProgram, 'seed' | 'tableSize'>;
  readonly rule: KernelRule;
  readonly word: MarkWord;
  /** `others`: packets of other protocols than TCP and UDP may come here too. */
  readonly protocols: 'with-ports' | 'others';
  /** What is hashed. */
  readonly packet: PacketFields;
}

/**
 * Rules that give a packet the mark of its backend. It stays as it was where the table is empty. One that is in the out
 * set at the end has not found a backend.
 */
export function placeRules({ program, rule: one, word, protocols, packet }: PlaceOptions): string[] {
  const { rule, table } = one;
  const { distribution } = rule;
  const set = (round: number, ports: boolean): string => {
    const slot = hashText(packet, {
      distribution,
      ports,
      size: program.tableSize,
      seed: program.seed + round,
    });
    return `${word} set ${slot} map @${slotMap(table)}`;
  };
  const mixed = protocols === 'others' && distribution === 'five-tuple';
  // A first packet whose backend is out is hashed again, so many times.
  return Array.from({ length: 1 + KERNEL_REHASHES }, (_, round) => {
    const again = round === 0 ? '' : `${word} @${outSet(table)} `;
    if (!mixed) return [`${again}${set(round, distribution === 'five-tuple')}`];
    return [
      `${packet.withPorts} ${again}${set(round, true)}`,
      `${packet.withoutPorts} ${again}${set(round, false)}`,
    ];
  }).flat();
}

/** Packets and bytes by mark and direction. Packets fill it, so it needs no care when backends come and go. */
const TRAFFIC_SET = 'traffic';

/** Two directions of all marks that an instance can have. */
const TRAFFIC_SIZE = 131_072;

export function trafficDeclaration(): string {
  return `  set ${TRAFFIC_SET} { type mark . ct_dir; size ${TRAFFIC_SIZE}; flags dynamic; }`;
}

/** Counts a packet of a flow that conntrack knows. */
export function trafficRule(): string {
  return `update @${TRAFFIC_SET} { ct mark . ct direction counter }`;
}
