import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../../test/support/commands.js';
import { summarise } from '../results.js';
import { markdownOf } from './markdown.js';
import { mergeRuns, parseRuns, runsText, runText, type MeasuredRun } from './measured-run.js';
import { withSections } from './readme-sections.js';
import { isIn, SECTION_NAMES } from './sections.js';
import { svgOf } from './svg.js';

const FOLDER = join('bench', 'results');
const LATEST = join(FOLDER, 'latest.json');
const PAGE = join('docs', 'benchmarks.md');

/**
 * Writes JSON, Markdown and plot under the date. With `publish`, what it has measured takes the place of the same cases in
 * `latest.json`, the plot and docs/benchmarks.md; other cases stay as they are.
 */
export async function writeReport(run: MeasuredRun, say: (line: string) => void): Promise<void> {
  await mkdir(FOLDER, { recursive: true });
  const markdown = markdownOf(run);
  const stem = run.facts.date.replaceAll(':', '-').slice(0, 19);
  await writeFile(join(FOLDER, `${stem}.json`), `${runText(run)}\n`);
  await writeFile(join(FOLDER, `${stem}.svg`), plotOf([run]));
  await writeFile(join(FOLDER, `${stem}.md`), `${markdown}\n`);
  if (run.options.publish) await publish(run);
  say(`\n${markdown}\n\nwritten: ${join(FOLDER, stem)}.json, .md, .svg`);
  for (const { case: name, variant, peer, errors } of summarise(run.samples)) {
    const [first] = errors;
    if (first !== undefined) say(`failed, ${errors.length} times: ${name} | ${variant} | ${peer} | ${first}`);
  }
}

async function publish(run: MeasuredRun): Promise<void> {
  const older = await readFile(LATEST, 'utf8').then(parseRuns);
  const runs = mergeRuns(older, run);
  const touched = SECTION_NAMES.filter((name) => run.samples.some((sample) => isIn(name, sample.case)));
  const page = withSections(await readFile(PAGE, 'utf8'), touched, runs);
  await writeFile(LATEST, runsText(runs));
  if (touched.includes('peers')) await writeFile(join(FOLDER, 'latest.svg'), plotOf(runs));
  await writeFile(PAGE, page);
  await runCommand('npx', ['prettier', '--write', PAGE], { timeoutMs: 60_000 });
}

/** Dated by the newest of the runs that it shows. */
function plotOf(runs: readonly MeasuredRun[]): string {
  const own = runs.filter(({ samples }) => samples.some((sample) => isIn('peers', sample.case)));
  const newest = own.at(-1) ?? runs.at(-1);
  const day = newest?.facts.date.slice(0, 10) ?? '';
  const summaries = summarise(own.flatMap(({ samples }) => samples));
  return svgOf(`haports beside HAProxy and nginx, ${day}, ${newest?.lab ?? ''}`, summaries);
}
