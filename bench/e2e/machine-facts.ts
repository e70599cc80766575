import { arch, cpus, loadavg, release, totalmem, type } from 'node:os';
import { versionOf } from './peers/installed.js';
import type { FoundPeer } from './peers/all-peers.js';

/** What numbers depend on besides the code. */
export interface MachineFacts {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly node: string;
  /** Of the last minute, before the run. Well below 1 on a quiet machine. */
  readonly loadAverage: number;
  readonly peers: Readonly<Record<string, string>>;
  readonly tools: Readonly<Record<string, string>>;
}

export async function machineFacts(peers: readonly FoundPeer[]): Promise<MachineFacts> {
  const tools = {
    wrk: await versionOf('wrk', ['-v'], /wrk \S+/),
    iperf3: await versionOf('iperf3', ['-v'], /iperf \S+/),
    nginx: await versionOf('nginx', ['-v'], /nginx\/\S+/),
  };
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: `${type()} ${release()} ${arch()}`,
    node: process.version,
    loadAverage: Number(loadavg()[0]?.toFixed(2)),
    peers: Object.fromEntries(
      peers
        .filter(({ peer }) => peer.workers === 1 || peer.name !== 'direct')
        .map((found) => [found.peer.name, found.version]),
    ),
    tools: Object.fromEntries(
      Object.entries(tools).map(([name, version]) => [name, version ?? 'not installed']),
    ),
  };
}
