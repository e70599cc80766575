import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../../test/support/commands.js';
import type { Lab } from '../lab.js';
import type { MachineFacts } from '../machine-facts.js';
import type { BenchOptions } from '../options.js';
import { summarise, type Sample } from '../results.js';
import { markdownOf } from './markdown.js';
import { svgOf } from './svg.js';

const FOLDER = join('bench', 'results');
const README = 'README.md';
const [BEGIN, END] = ['<!-- bench: begin -->', '<!-- bench: end -->'];

/** All that a run found out. */
export interface Report {
  readonly options: BenchOptions;
  readonly facts: MachineFacts;
  readonly lab: Lab['kind'];
  readonly samples: readonly Sample[];
}

/** Writes JSON, Markdown and plot under the date; with `publish` also as `latest` and into the README. */
export async function writeReport(report: Report, say: (line: string) => void): Promise<void> {
  await mkdir(FOLDER, { recursive: true });
  const { facts, lab, options } = report;
  const summaries = summarise(report.samples);
  const markdown = markdownOf(facts, summaries);
  const svg = svgOf(`haports beside HAProxy and nginx, ${facts.date.slice(0, 10)}, ${lab}`, summaries);
  const stem = facts.date.replaceAll(':', '-').slice(0, 19);
  for (const name of options.publish ? [stem, 'latest'] : [stem]) {
    await writeFile(join(FOLDER, `${name}.json`), jsonOf(report));
    await writeFile(join(FOLDER, `${name}.svg`), svg);
  }
  await writeFile(join(FOLDER, `${stem}.md`), `${markdown}\n`);
  if (options.publish) await intoReadme(markdown);
  say(`\n${markdown}\n\nwritten: ${join(FOLDER, stem)}.json, .md, .svg`);
  for (const { case: name, variant, peer, errors } of summaries) {
    const [first] = errors;
    if (first !== undefined) say(`failed, ${errors.length} times: ${name} | ${variant} | ${peer} | ${first}`);
  }
}

/** One line for each sample: the file is kept in the repository. */
function jsonOf({ options, facts, lab, samples }: Report): string {
  const head = JSON.stringify({ lab, facts, options }, undefined, 2).slice(0, -2);
  return `${head},\n  "samples": [\n${samples.map((sample) => `    ${JSON.stringify(sample)}`).join(',\n')}\n  ]\n}\n`;
}

async function intoReadme(markdown: string): Promise<void> {
  const readme = await readFile(README, 'utf8');
  const [before, rest] = readme.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined)
    throw new Error(`README.md has no "${BEGIN}" and "${END}"`);
  await writeFile(README, `${before}${BEGIN}\n\n${markdown}\n\n${END}${after}`);
  await runCommand('npx', ['prettier', '--write', README], { timeoutMs: 60_000 });
}
