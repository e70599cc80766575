import type { MarkWord } from './placement.js';

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
