import type { CaseName } from '../options.js';

/** Parts of the published tables that can be measured, and replaced, apart from each other. */
export const SECTIONS = {
  peers: ['requests', 'connections', 'bulk', 'latency', 'udp', 'memory', 'start'],
  growth: ['growth'],
  capture: ['capture'],
  kernel: ['kernel'],
} as const satisfies Readonly<Record<string, readonly CaseName[]>>;

export type SectionName = keyof typeof SECTIONS;

export const SECTION_NAMES = Object.keys(SECTIONS) as readonly SectionName[];

export function isIn(section: SectionName, name: CaseName): boolean {
  const cases: readonly CaseName[] = SECTIONS[section];
  return cases.includes(name);
}
