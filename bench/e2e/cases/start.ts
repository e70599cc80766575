import type { Bench, BenchCase, Pass } from '../bench.js';
import { portRanges, wildcardPorts } from '../free-ports.js';
import type { Peer } from '../peers/peer.js';
import { treeCpuSeconds, treeResidentBytes } from '../process-facts.js';
import type { Numbers } from '../results.js';
import { messageOf, startTarget } from '../target.js';

const FIRST_PORT = 1024;
/** One listening socket each. The limit is 20,000 descriptors, of which haports keeps a tenth for flows. */
const PORTS: Readonly<Record<string, number>> = { '1 port': 1, '1000 ports': 1000, '18000 ports': 18_000 };

/**
 * (h) Start: from the start of the process until the kernel lists all TCP ports as listening. nginx is given one
 * upstream for all ports, as it cannot keep the port; HAProxy and haports keep it.
 */
export const startCase: BenchCase = { name: 'start', run };

async function run(bench: Bench): Promise<void> {
  const variants = Object.entries(PORTS).filter(([, ports]) => !bench.options.quick || ports !== 1000);
  for (const pass of bench.passes(({ name }) => name !== 'direct').filter(({ workers }) => workers === 1)) {
    for (let round = 0; round < bench.options.rounds; round++) {
      for (const [variant, ports] of variants) {
        for (const peer of pass.peers) {
          const base = { case: 'start' as const, variant, peer: peer.label, round };
          try {
            bench.record({ ...base, numbers: await measure(bench, pass, { peer, ports }) });
          } catch (error) {
            bench.record({ ...base, error: messageOf(error) });
          }
        }
      }
    }
  }
}

async function measure(
  bench: Bench,
  pass: Pass,
  run: { readonly peer: Peer; readonly ports: number },
): Promise<Numbers> {
  const target = await startTarget(bench, pass, run.peer, {
    tcpPorts: portRanges(FIRST_PORT, run.ports, await wildcardPorts()),
    udpPorts: [],
    backends: [1, 2, 3].map((number) => bench.lab.backend(number)),
    distribution: 'per-flow',
  });
  const pid = target.process?.pid ?? 0;
  const numbers = {
    startMs: target.startMs,
    startCpuSeconds: await treeCpuSeconds(pid),
    residentMebibytes: (await treeResidentBytes(pid)) / 2 ** 20,
  };
  await target.process?.stop();
  return numbers;
}
