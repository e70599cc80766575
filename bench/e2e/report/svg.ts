import type { Summary } from '../results.js';
import { ratioOf, rowsOf } from './rows.js';

const [WIDTH, LEFT, ROW, BAR] = [860, 300, 34, 11];
/** Ratios beyond this are cut off at the edge, their number beside it. */
const MOST = 2;
const COLOURS: Readonly<Record<string, string>> = {
  haports: '#2563eb',
  nginx: '#9ca3af',
  haproxy: '#d1d5db',
};

/** Bars of haports and of the other peers against the reference, one group for each row of the speed table. */
export function svgOf(title: string, summaries: readonly Summary[]): string {
  const rows = rowsOf('speed', summaries).filter((row) => ratioOf(row, 'haports') !== undefined);
  const height = 70 + rows.length * ROW + 30;
  const unit = (WIDTH - LEFT - 60) / MOST;
  const parts: string[] = [];
  rows.forEach((row, index) => {
    const top = 60 + index * ROW;
    parts.push(text(LEFT - 10, top + BAR + 4, row.title, 'end'));
    const peers = ['haports', row.metric.reference === 'haproxy' ? 'nginx' : 'haproxy'];
    peers.forEach((peer, place) => {
      const ratio = ratioOf(row, peer);
      if (ratio === undefined) return;
      const y = top + place * (BAR + 2);
      const width = Math.max(1, Math.min(ratio, MOST) * unit);
      parts.push(
        `<rect x="${LEFT}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" fill="${COLOURS[peer] ?? ''}"/>`,
      );
      parts.push(
        text(LEFT + width + 4, y + BAR - 1, `${ratio.toFixed(2)}${place === 0 ? '' : ` ${peer}`}`, 'start'),
      );
    });
  });
  const one = LEFT + unit;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="${LEFT}" y="22" font-size="15" font-weight="bold">${escaped(title)}</text>`,
    text(LEFT, 42, 'blue: haports; grey: nginx; the line: HAProxy (UDP: nginx). Longer is better.', 'start'),
    ...parts,
    `<line x1="${one}" y1="50" x2="${one}" y2="${height - 20}" stroke="#111827" stroke-dasharray="4 3"/>`,
    text(one, height - 6, '1.0', 'middle'),
    '</svg>',
    '',
  ].join('\n');
}

function text(x: number, y: number, content: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
