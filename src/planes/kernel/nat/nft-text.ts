import type { IpAddress, Protocol } from '../../../model/address.js';
import type { Distribution } from '../../../model/configuration.js';
import { KERNEL_REHASHES } from '../../../selection/flow-hash.js';
import type { Elements, TableFamily } from '../../netfilter/nft.js';
import type { KernelInput, KernelRule, KernelTable } from '../program.js';

/*
 * Words of nft text, as nft 1.0.6 reads them. Names of sets and chains are a prefix and the name of a rule, a table or a
 * frontend, which may start with a digit: nft's own may not.
 */

/** What one concern adds to a table: declarations of sets, maps and objects, and elements by set or map. */
export interface TablePart {
  readonly declarations: readonly string[];
  readonly elements: ReadonlyMap<string, Elements>;
}

/** A chain of a table. `hook`: `type filter hook prerouting priority -90; policy accept;`; undefined: it is jumped to. */
export function chainText(name: string, hook: string | undefined, rules: readonly string[]): string[] {
  return [
    `  chain ${name} {`,
    ...(hook === undefined ? [] : [`    ${hook}`]),
    ...rules.map((rule) => `    ${rule}`),
    '  }',
  ];
}

/** The whole of a table, as KernelSetup.structure wants it. */
export function tableText(table: string, body: readonly string[], family: TableFamily = 'inet'): string {
  const comment = '  comment "All of it is haports\' own: changes by others are undone"';
  return [`table ${family} ${table} {`, comment, ...body, '}'].join('\n');
}

/** A mark, or any 32 bits, as nft lists it. */
export function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

export function ipWord(family: 4 | 6): 'ip' | 'ip6' {
  return family === 4 ? 'ip' : 'ip6';
}

/** What `ip daddr` is called where a protocol family is matched. */
export function nfprotoWord(family: 4 | 6): 'ipv4' | 'ipv6' {
  return family === 4 ? 'ipv4' : 'ipv6';
}

/** Tables have no place for a zone, `%eth0`. */
export function addressText({ text }: Pick<IpAddress, 'text'>): string {
  return text.split('%', 1)[0] ?? text;
}

/** Elements of a set of marks. */
export function markElements(marks: Iterable<number>): Elements {
  return new Map([...new Set(marks)].sort((a, b) => a - b).map((mark) => [hex32(mark), '']));
}

export function mergeParts(...parts: readonly TablePart[]): TablePart {
  return {
    declarations: parts.flatMap(({ declarations }) => declarations),
    elements: new Map(parts.flatMap(({ elements }) => [...elements])),
  };
}

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

/** Packets and bytes by mark and direction. Packets fill it, so it needs no care when backends come and go. */
export const TRAFFIC_SET = 'traffic';

/** Two directions of all marks that an instance can have. */
const SIZE = 131_072;

export function trafficDeclaration(): string {
  return `  set ${TRAFFIC_SET} { type mark . ct_dir; size ${SIZE}; flags dynamic; }`;
}

/** Counts a packet of a flow that conntrack knows. */
export function trafficRule(word: MarkWord = 'ct mark'): string {
  return `update @${TRAFFIC_SET} { ${word} . ct direction counter }`;
}

/**
 * What the ruleset does to packets of flows on a backend that may not keep them. `rebalance`: the flow is placed anew.
 * UDP's `reset` is that too: the flow ends, and its next datagram starts a new one.
 */
export type SetAction = 'reset' | 'drop' | 'rebalance';

/** `resets`: a TCP flow cannot be moved, since its backend is its end. `moves`: the backend is on its way. */
export type TcpRebalance = 'resets' | 'moves';

/** The marks with a rule whose flows of a protocol meet an action; UDP stands for all protocols but TCP. */
export function actionSet(protocol: Protocol, action: SetAction, rule: KernelRule): string {
  return `${protocol}-${action}-${rule.rule.name}`;
}

/** The marks in any action set: most packets meet only this one. */
export const ACTED = 'acted';

/** What there is of action sets: without `moves`, flows are placed anew by deleting them from conntrack. */
export function actionKinds(rebalance: TcpRebalance): readonly (readonly [Protocol, SetAction])[] {
  const always = [
    ['tcp', 'reset'],
    ['tcp', 'drop'],
    ['udp', 'drop'],
  ] as const;
  return rebalance === 'resets' ? always : [...always, ['tcp', 'rebalance'], ['udp', 'rebalance']];
}

/** The sets, which are empty while everybody may keep what he has. */
export function actionPart({ rules }: Pick<KernelInput, 'rules'>, rebalance: TcpRebalance): TablePart {
  const elements = new Map<string, Elements>();
  const acted: number[] = [];
  for (const rule of rules) {
    for (const [protocol, action] of actionKinds(rebalance)) {
      const marks = marksOf(rule, protocol, action, rebalance);
      elements.set(actionSet(protocol, action, rule), markElements(marks));
      acted.push(...marks);
    }
  }
  elements.set(ACTED, markElements(acted));
  return {
    declarations: Array.from(elements.keys(), (name) => `  set ${name} { type mark; }`),
    elements,
  };
}

function marksOf(
  { actions }: KernelRule,
  protocol: Protocol,
  action: SetAction,
  rebalance: TcpRebalance,
): readonly number[] {
  const of = actions[protocol];
  if (protocol === 'udp') return action === 'rebalance' ? [...of.rebalance, ...of.reset] : of[action];
  return action === 'reset' && rebalance === 'resets' ? [...of.reset, ...of.rebalance] : of[action];
}

/** Where the mark of the backend goes. */
export type MarkWord = 'ct mark' | 'meta mark';

/** Times a first packet whose backend is out is hashed again before it is given up. */
export const REHASHES = KERNEL_REHASHES;

/** By slot, the mark of the backend. */
export function slotMap(table: Pick<KernelTable, 'name'>): string {
  return `to-${table.name}`;
}

/** Marks that no new flow gets, although they may be in slots yet. */
export function outSet(table: Pick<KernelTable, 'name'>): string {
  return `out-${table.name}`;
}

/** The tables, and who is not in them. */
export function placementPart(input: KernelInput): TablePart {
  const elements = new Map<string, Elements>();
  for (const table of input.tables) {
    const slots = table.marks.flatMap((mark, slot) =>
      mark === 0 ? [] : [[String(slot), hex32(mark)] as const],
    );
    elements.set(slotMap(table), new Map(slots));
    elements.set(outSet(table), markElements(outOf(table, input)));
  }
  const declarations = input.tables.flatMap((table) => [
    // A map by slot cannot be declared but by an expression that gives such numbers.
    `  map ${slotMap(table)} { typeof numgen inc mod ${input.tableSize} : meta mark; }`,
    `  set ${outSet(table)} { type mark; }`,
  ]);
  return { declarations, elements };
}

function outOf(table: KernelTable, { rules, backends }: KernelInput): number[] {
  const pool = rules.find((rule) => rule.table.name === table.name)?.rule.pool.name ?? '';
  const inUse = new Set(table.marks);
  return backends
    .filter(({ id, mark }) => id.startsWith(`${pool}/`) && !inUse.has(mark))
    .map(({ mark }) => mark);
}

export interface PlaceOptions {
  readonly input: Pick<KernelInput, 'seed' | 'tableSize'>;
  readonly rule: KernelRule;
  readonly word: MarkWord;
  /** `others`: packets of other protocols than TCP and UDP may come here too. */
  readonly protocols: 'with-ports' | 'others';
  /** Whether the destination endpoint is hashed first. @default false */
  readonly reversed?: boolean;
}

/**
 * Rules that give a packet the mark of its backend. It stays as it was where nobody takes new flows. One that is in the
 * out set at the end has not found a backend.
 */
export function placeRules({ input, rule: one, word, protocols, reversed = false }: PlaceOptions): string[] {
  const { rule, frontend, table } = one;
  const { family } = frontend.address;
  const { distribution } = rule;
  const set = (round: number, ports: boolean): string => {
    const seed = input.seed + round;
    const slot = hashText({ family, distribution, ports, size: input.tableSize, seed, reversed });
    return `${word} set ${slot} map @${slotMap(table)}`;
  };
  const mixed = protocols === 'others' && distribution === 'five-tuple';
  return Array.from({ length: 1 + REHASHES }, (_, round) => {
    const again = round === 0 ? '' : `${word} @${outSet(table)} `;
    if (!mixed) return [`${again}${set(round, distribution === 'five-tuple')}`];
    return [`${WITH_PORTS} ${again}${set(round, true)}`, `${WITHOUT_PORTS} ${again}${set(round, false)}`];
  }).flat();
}
