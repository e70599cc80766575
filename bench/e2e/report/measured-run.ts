import type { Lab } from '../lab.js';
import type { MachineFacts } from '../machine-facts.js';
import type { BenchOptions } from '../options.js';
import type { Sample } from '../results.js';

/** What one run found out, or what is left of it after others have measured some of its cases again. */
export interface MeasuredRun {
  readonly lab: Lab['kind'];
  readonly facts: MachineFacts;
  readonly options: BenchOptions;
  readonly samples: readonly Sample[];
}

/** The older runs without the cases that the new one has measured, and the new one. */
export function mergeRuns(older: readonly MeasuredRun[], newest: MeasuredRun): readonly MeasuredRun[] {
  const measured = new Set(newest.samples.map((sample) => sample.case));
  const kept = older.map((run) => ({
    ...run,
    samples: run.samples.filter((sample) => !measured.has(sample.case)),
  }));
  return [...kept, newest].filter(({ samples }) => samples.length > 0);
}

/** What was published so far: `latest.json`. */
export function parseRuns(text: string): readonly MeasuredRun[] {
  return (JSON.parse(text) as { readonly runs: readonly MeasuredRun[] }).runs;
}

/** One line for each sample: the file is kept in the repository. */
export function runsText(runs: readonly MeasuredRun[]): string {
  return `{ "runs": [\n${runs.map(runText).join(',\n')}\n] }\n`;
}

export function runText({ lab, facts, options, samples }: MeasuredRun): string {
  const cases = options.cases.filter((name) => samples.some((sample) => sample.case === name));
  const head = JSON.stringify({ lab, facts, options: { ...options, cases } }, undefined, 2).slice(0, -2);
  return `${head},\n  "samples": [\n${samples.map((sample) => `    ${JSON.stringify(sample)}`).join(',\n')}\n  ]\n}`;
}
