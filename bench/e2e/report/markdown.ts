import type { Summary } from '../results.js';
import type { MachineFacts } from '../machine-facts.js';
import { METRICS, shown } from './metrics.js';
import { ratioOf, rowsOf, type Cell, type Row } from './rows.js';

/** The tables of a run, with where and when; GitHub's Markdown. */
export function markdownOf(facts: MachineFacts, summaries: readonly Summary[]): string {
  const one = ['direct', 'haports', 'haproxy', 'nginx'];
  const both = ['haports', 'haproxy', 'nginx', 'haports x2', 'haproxy x2', 'nginx x2'];
  return [
    factsLine(facts),
    ...tableOf(
      'One worker each; median (lowest - highest). The last column is how haports does against HAProxy, or ' +
        'against nginx for UDP: above 1 is better.',
      rowsOf('speed', summaries),
      { peers: one, withRatio: true },
    ),
    ...tableOf(
      'CPU time of all processes of the balancer for a unit of work; x2 with two workers, where balancer and load ' +
        'share two cores and only this says something.',
      rowsOf('cpu', summaries),
      { peers: both, withRatio: false },
    ),
    ...settings('growth', 'How it grows (haports alone, one thing changed at a time):', summaries),
    ...settings(
      'capture',
      'A socket a port against capture (haports alone, each port TCP and UDP, in network namespaces):',
      summaries,
    ),
  ].join('\n');
}

function factsLine(facts: MachineFacts): string {
  const peers = Object.entries(facts.peers).filter(([name]) => name !== 'direct');
  return (
    `Measured ${facts.date.slice(0, 10)} on ${facts.cores} cores of ${facts.cpu}, ${facts.memoryGib} GiB, ` +
    `${facts.kernel}; load average at the start ${facts.loadAverage}. ` +
    `${peers.map(([, version]) => version).join('; ')}; load: ${Object.values(facts.tools).join(', ')}.`
  );
}

/** Nothing when none of the peers was measured. */
function tableOf(
  caption: string,
  rows: readonly Row[],
  columns: { readonly peers: readonly string[]; readonly withRatio: boolean },
): readonly string[] {
  const peers = columns.peers.filter((peer) => rows.some((row) => row.cells.has(peer)));
  const own = rows.filter((row) => peers.some((peer) => row.cells.has(peer)));
  if (own.length === 0) return [];
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const last = (text: string): readonly string[] => (columns.withRatio ? [text] : []);
  return [
    '',
    caption,
    '',
    line(['', ...peers, ...last('haports : peer')]),
    line(['---', ...peers.map(() => '--:'), ...last('--:')]),
    ...own.map((row) =>
      line([row.title, ...peers.map((peer) => cellText(row.cells.get(peer))), ...last(ratioText(row))]),
    ),
  ];
}

function ratioText(row: Row): string {
  const ratio = ratioOf(row, 'haports');
  return ratio === undefined ? '' : ratio.toFixed(2);
}

function cellText(cell: Cell | undefined): string {
  if (cell?.failed !== undefined) return 'failed';
  if (cell?.spread === undefined) return '';
  const { median, min, max, samples } = cell.spread;
  return samples === 1 ? shown(median) : `${shown(median)} (${shown(min)} - ${shown(max)})`;
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
