import { sectionMarkdown } from './markdown.js';
import type { MeasuredRun } from './measured-run.js';
import type { SectionName } from './sections.js';

/**
 * The benchmark page with these sections written anew, all else as it is. Each stands between `<!-- bench capture: begin -->` and
 * `<!-- bench capture: end -->`. Throws an Error when a marker is missing.
 */
export function withSections(
  page: string,
  sections: readonly SectionName[],
  runs: readonly MeasuredRun[],
): string {
  let text = page;
  for (const section of sections) {
    const [begin, end] = [`<!-- bench ${section}: begin -->`, `<!-- bench ${section}: end -->`];
    const [first, last] = [text.indexOf(begin), text.indexOf(end)];
    if (first < 0 || last < first) throw new Error(`docs/benchmarks.md has no "${begin}" and "${end}"`);
    const own = sectionMarkdown(section, runs);
    text = `${text.slice(0, first + begin.length)}\n\n${own}\n\n${text.slice(last)}`;
  }
  return text;
}
