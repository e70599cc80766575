import { readFile } from 'node:fs/promises';
import { childrenOf, residentBytes } from '../../test/support/haports-process.js';

/** USER_HZ, which /proc counts in; 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** A process and all its descendants. */
export async function treeOf(pid: number): Promise<readonly number[]> {
  const children = await childrenOf(pid).catch(() => []);
  const below = await Promise.all(children.map((child) => treeOf(child)));
  return [pid, ...below.flat()];
}

/** CPU seconds, user and system, of a process tree, from /proc/<pid>/stat. */
export async function treeCpuSeconds(pid: number): Promise<number> {
  const seconds = await Promise.all((await treeOf(pid)).map((each) => cpuSeconds(each).catch(() => 0)));
  return seconds.reduce((sum, each) => sum + each, 0);
}

/** Resident memory of a process tree, in bytes. */
export async function treeResidentBytes(pid: number): Promise<number> {
  // A tool that the process runs for a moment may be gone by now.
  const bytes = await Promise.all((await treeOf(pid)).map((each) => residentBytes(each).catch(() => 0)));
  return bytes.reduce((sum, each) => sum + each, 0);
}

async function cpuSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The name in parentheses may hold spaces; utime and stime are fields 14 and 15 of proc(5), state is field 3.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Busy and total ticks of every core since boot. */
export async function coreTicks(): Promise<readonly { readonly busy: number; readonly total: number }[]> {
  const text = await readFile('/proc/stat', 'utf8');
  return [...text.matchAll(/^cpu\d+ (.*)$/gm)].map((line) => {
    // user nice system idle iowait irq softirq steal; guest time is part of user.
    const ticks = (line[1] ?? '').split(' ').slice(0, 8).map(Number);
    const total = ticks.reduce((sum, each) => sum + each, 0);
    return { busy: total - (ticks[3] ?? 0) - (ticks[4] ?? 0), total };
  });
}

/** CPU seconds of all cores since boot, whoever they were for. */
export async function machineCpuSeconds(): Promise<number> {
  return (await coreTicks()).reduce((sum, { busy }) => sum + busy, 0) / TICKS_PER_SECOND;
}

/**
 * Sockets bound to `address` in the network of `pid`: listening ones for TCP (state 0A), unconnected ones for UDP
 * (state 07). IPv4 only.
 */
export async function boundSockets(pid: number, protocol: 'tcp' | 'udp', address: string): Promise<number> {
  const hex = address
    .split('.')
    .reverse()
    .map((part) => Number(part).toString(16).padStart(2, '0').toUpperCase())
    .join('');
  const state = protocol === 'tcp' ? '0A' : '07';
  const line = new RegExp(`^[0-9A-F]{4} [0-9A-F]{8}:[0-9A-F]{4} ${state} `);
  const text = await readFile(`/proc/${pid}/net/${protocol}`, 'utf8');
  return text.split(`: ${hex}:`).filter((rest) => line.test(rest)).length;
}
