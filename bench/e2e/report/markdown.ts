import type { MachineFacts } from '../machine-facts.js';
import { summarise, type Summary } from '../results.js';
import type { MeasuredRun } from './measured-run.js';
import { METRICS, shown } from './metrics.js';
import { ratioOf, rowsOf, type Cell, type Row } from './rows.js';
import { isIn, SECTION_NAMES, type SectionName } from './sections.js';

const ONE_WORKER = ['direct', 'haports', 'before', 'haproxy', 'nginx'];
const BOTH = ['haports', 'before', 'haproxy', 'nginx', 'haports x2', 'before x2', 'haproxy x2', 'nginx x2'];
const WITH_KERNEL = ['direct', 'kernel', 'kernel floating', 'haports', 'haproxy', 'nginx'];

/** All tables of a run, with where and when; GitHub's Markdown. */
export function markdownOf(run: MeasuredRun): string {
  const summaries = summarise(run.samples);
  return [factsLine(run.facts), ...SECTION_NAMES.flatMap((section) => tablesOf(section, summaries))].join(
    '\n',
  );
}

/** The tables of one section, from all runs that have measured some of it, with where and when each. */
export function sectionMarkdown(section: SectionName, runs: readonly MeasuredRun[]): string {
  const own = runs.filter(({ samples }) => samples.some((sample) => isIn(section, sample.case)));
  const lines = own.map(({ facts, samples }) => {
    const cases = new Set(samples.map((sample) => sample.case).filter((name) => isIn(section, name)));
    return own.length === 1 ? factsLine(facts) : `${[...cases].join(', ')}: ${factsLine(facts)}`;
  });
  const samples = own.flatMap((run) => run.samples);
  return [lines.join('\n\n'), ...tablesOf(section, summarise(samples))].join('\n');
}

function tablesOf(section: SectionName, summaries: readonly Summary[]): readonly string[] {
  switch (section) {
    case 'peers':
      return [
        ...tableOf(
          'One worker each; median (lowest - highest). The last column is how haports does against HAProxy, or ' +
            'against nginx for UDP: above 1 is better.',
          rowsOf('speed', summaries),
          { peers: ONE_WORKER, last: { title: 'haports : peer', of: haportsRatio }, cell: spreadText },
        ),
        ...tableOf(
          'CPU time of all processes of the balancer for a unit of work; x2 with two workers, where balancer and load ' +
            'share two cores and only this says something.',
          rowsOf('cpu', summaries),
          { peers: BOTH, cell: spreadText },
        ),
      ];
    case 'growth':
      return settings('growth', 'How it grows (haports alone, one thing changed at a time):', summaries);
    case 'capture':
      return settings(
        'capture',
        'A socket a port against capture (haports alone, each port TCP and UDP, in network namespaces):',
        summaries,
      );
    case 'kernel':
      return tableOf(
        'The kernel data plane (`kernel`: non-floating, by NAT; `kernel floating`: layer 2, direct return) beside ' +
          'balancers with sockets, one worker each (`haports`: the userspace data plane), in the same network ' +
          'namespaces, load, backends and balancer on all cores together. Median, and in brackets against direct: ' +
          '1 is as fast, or costs as little, as no balancer at all.',
        rowsOf('kernel', summaries),
        { peers: WITH_KERNEL, cell: ratioText },
      );
  }
}

function factsLine(facts: MachineFacts): string {
  const peers = Object.entries(facts.peers).filter(([name]) => name !== 'direct');
  return (
    `Measured ${facts.date.slice(0, 10)} on ${facts.cores} cores of ${facts.cpu}, ${facts.memoryGib} GiB, ` +
    `${facts.kernel}; load average at the start ${facts.loadAverage}. ` +
    `${peers.map(([, version]) => version).join('; ')}; load: ${Object.values(facts.tools).join(', ')}.`
  );
}

interface Columns {
  readonly peers: readonly string[];
  readonly cell: (row: Row, peer: string) => string;
  /** A column after those of the peers. */
  readonly last?: { readonly title: string; readonly of: (row: Row) => string };
}

/** Nothing when none of the peers was measured. */
function tableOf(caption: string, rows: readonly Row[], columns: Columns): readonly string[] {
  const peers = columns.peers.filter((peer) => rows.some((row) => row.cells.has(peer)));
  const own = rows.filter((row) => peers.some((peer) => row.cells.has(peer)));
  if (own.length === 0) return [];
  const { cell, last } = columns;
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const more = last === undefined ? [] : [last];
  return [
    '',
    caption,
    '',
    line(['', ...peers, ...more.map(({ title }) => title)]),
    line(['---', ...peers.map(() => '--:'), ...more.map(() => '--:')]),
    ...own.map((row) =>
      line([row.title, ...peers.map((peer) => cell(row, peer)), ...more.map(({ of }) => of(row))]),
    ),
  ];
}

function haportsRatio(row: Row): string {
  return ratioOf(row, 'haports')?.toFixed(2) ?? '';
}

function spreadText(row: Row, peer: string): string {
  return textOf(row.cells.get(peer), ({ median, min, max, samples }) =>
    samples === 1 ? shown(median) : `${shown(median)} (${shown(min)} - ${shown(max)})`,
  );
}

/** Beside the number, how it is against the row's reference. */
function ratioText(row: Row, peer: string): string {
  const ratio = peer === row.metric.reference ? undefined : ratioOf(row, peer);
  return textOf(row.cells.get(peer), ({ median }) =>
    ratio === undefined ? shown(median) : `${shown(median)} (${ratio.toFixed(2)})`,
  );
}

function textOf(cell: Cell | undefined, text: (spread: NonNullable<Cell['spread']>) => string): string {
  if (cell?.failed !== undefined) return 'failed';
  return cell?.spread === undefined ? '' : text(cell.spread);
}

/** Metrics are columns here: each row is one setting of haports. */
function settings(
  name: 'growth' | 'capture',
  caption: string,
  summaries: readonly Summary[],
): readonly string[] {
  const own = summaries.filter((summary) => summary.case === name);
  if (own.length === 0) return [];
  const metrics = METRICS.filter(
    (metric) => metric.table === name && own.some((summary) => summary.numbers[metric.name] !== undefined),
  );
  return [
    '',
    caption,
    '',
    `| | ${metrics.map(({ title }) => title).join(' | ')} |`,
    `| --- | ${metrics.map(() => '--:').join(' | ')} |`,
    ...own.map((summary) => {
      const cells = metrics.map((metric) => {
        const median = summary.numbers[metric.name]?.median;
        return median === undefined ? 'failed' : shown(median);
      });
      return `| ${summary.variant} | ${cells.join(' | ')} |`;
    }),
  ];
}
