import { hasCommand } from '../../test/support/commands.js';
import type { CaseName } from './options.js';

const REQUIRED: Readonly<Record<CaseName, readonly string[]>> = {
  requests: ['taskset', 'wrk', 'nginx'],
  connections: ['taskset', 'wrk', 'nginx'],
  bulk: ['taskset', 'iperf3'],
  latency: ['taskset', 'wrk', 'nginx'],
  udp: ['taskset', 'iperf3'],
  memory: ['taskset'],
  start: ['taskset'],
  capture: ['taskset', 'ip', 'nft', 'conntrack', 'perl', 'wrk', 'nginx'],
  kernel: ['taskset', 'ip', 'nft', 'conntrack', 'wrk', 'nginx', 'iperf3'],
  growth: ['taskset', 'wrk', 'nginx', 'iperf3'],
};

/** Programs that a case needs and that are not installed. */
export async function missingTools(name: CaseName): Promise<readonly string[]> {
  const there = await Promise.all(
    REQUIRED[name].map(async (tool) => ({ tool, found: await hasCommand(tool) })),
  );
  return there.filter(({ found }) => !found).map(({ tool }) => tool);
}
