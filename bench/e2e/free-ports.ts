import { readFile } from 'node:fs/promises';
import { portsOf } from './peers/peer.js';

/** Ports on which something listens on all addresses: nobody else can bind them on any. */
export async function wildcardPorts(): Promise<ReadonlySet<number>> {
  const tables = await Promise.all(
    ['tcp', 'tcp6'].map((name) => readFile(`/proc/net/${name}`, 'utf8').catch(() => '')),
  );
  const lines = tables.join('\n').matchAll(/: 0{8}(?:0{24})?:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 0A /g);
  return new Set([...lines].map((match) => Number.parseInt(match[1] ?? '', 16)));
}

/** The first `count` ports from `first` on that are not taken, as ranges. */
export function portRanges(
  first: number,
  count: number,
  taken: ReadonlySet<number>,
): readonly (readonly [number, number])[] {
  const ranges: [number, number][] = [];
  for (let port = first, found = 0; found < count && port <= 65_535; port++) {
    if (taken.has(port)) continue;
    const last = ranges.at(-1);
    if (last?.[1] === port - 1) last[1] = port;
    else ranges.push([port, port]);
    found++;
  }
  if (portsOf(ranges).length < count) throw new Error(`There are no ${count} free ports from ${first} on`);
  return ranges;
}
