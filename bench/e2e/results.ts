import { spreadOf, type Spread } from './statistics.js';
import type { CaseName } from './options.js';

/** What one measured run gave, by the names of `report/metrics.ts`. */
export type Numbers = Readonly<Record<string, number>>;

/** One measured run of one peer, or why there is none. */
export interface Sample {
  readonly case: CaseName;
  readonly variant: string;
  readonly peer: string;
  readonly round: number;
  readonly numbers?: Numbers;
  readonly error?: string;
}

/** All runs of one peer in one variant. */
export interface Summary {
  readonly case: CaseName;
  readonly variant: string;
  readonly peer: string;
  readonly numbers: Readonly<Record<string, Spread>>;
  /** Of runs that failed. Numbers are then those of the others. */
  readonly errors: readonly string[];
}

/** Samples in the order of their first appearance, one summary for each case, variant and peer. */
export function summarise(samples: readonly Sample[]): readonly Summary[] {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) {
    const key = JSON.stringify([sample.case, sample.variant, sample.peer]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [sample]);
    else group.push(sample);
  }
  return [...groups.values()].map(summaryOf);
}

function summaryOf(group: readonly Sample[]): Summary {
  const [first] = group;
  if (first === undefined) throw new Error('A group of samples cannot be empty');
  const names = new Set(group.flatMap((sample) => Object.keys(sample.numbers ?? {})));
  const numbers: Record<string, Spread> = {};
  for (const name of names) {
    const values = group
      .map((sample) => sample.numbers?.[name])
      .filter((value) => value !== undefined && Number.isFinite(value));
    const spread = spreadOf(values as number[]);
    if (spread !== undefined) numbers[name] = spread;
  }
  return {
    case: first.case,
    variant: first.variant,
    peer: first.peer,
    numbers,
    errors: group.flatMap((sample) => (sample.error === undefined ? [] : [sample.error])),
  };
}
