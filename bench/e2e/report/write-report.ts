import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Lab } from '../lab.js';
import type { MachineFacts } from '../machine-facts.js';
import type { BenchOptions } from '../options.js';
import { summarise, type Sample } from '../results.js';

const FOLDER = join('bench', 'results');

/** All that a run found out. */
export interface Report {
  readonly options: BenchOptions;
  readonly facts: MachineFacts;
  readonly lab: Lab['kind'];
  readonly samples: readonly Sample[];
}

/** Writes the results as JSON. */
export async function writeReport(report: Report, say: (line: string) => void): Promise<void> {
  await mkdir(FOLDER, { recursive: true });
  const { options, facts, lab, samples } = report;
  const json = `${JSON.stringify({ lab, facts, options, summaries: summarise(samples), samples }, undefined, 2)}\n`;
  const path = join(FOLDER, `${facts.date.replaceAll(':', '-').slice(0, 19)}.json`);
  await writeFile(path, json);
  say(`written: ${path}`);
}
