import type { Elements } from '../../../nft/kernel-setup.js';
import { KERNEL_REHASHES } from '../../../selection/flow-hash.js';
import type { KernelInput, KernelRule, KernelTable } from '../kernel-input.js';
import { hashText, WITH_PORTS, WITHOUT_PORTS } from './flow-hash-text.js';
import { hex32, markElements, type TablePart } from './table-text.js';

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
  const pool = rules.find((rule) => rule.table.name === table.name)?.rule.backendPool ?? '';
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
