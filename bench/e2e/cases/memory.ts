import { startEchoBackend } from '../backends/echo-backend.js';
import type { Bench, BenchCase, Pass } from '../bench.js';
import type { HoldAnswer } from '../load/hold-main.js';
import { firstAnswer, startTool } from '../load/load-tool.js';
import { cpuPer, costOf } from '../measure.js';
import type { Peer } from '../peers/peer.js';
import { treeResidentBytes } from '../process-facts.js';
import type { Numbers } from '../results.js';
import { bound, messageOf, startTarget, type Target } from '../target.js';

const ECHO_PORT = 7000;
const FLOWS = 8000;
/** Flows before the first reading: code and buffers that are needed once only are then there. */
const FIRST_FLOWS = 64;
/** Client addresses that the flows come from. */
const CLIENTS = 8;
const SETTLE_MS = 1500;

/**
 * (f) Memory a flow: resident memory of the balancer's processes with 8,000 idle flows, less that with 64, by the
 * difference. Kernel memory of the sockets is not in it. A fresh balancer for each run.
 */
export const memoryCase: BenchCase = { name: 'memory', run };

async function run(bench: Bench): Promise<void> {
  for (const pass of bench.passes((peer) => peer.name !== 'direct')) {
    const backends = [1, 2, 3].map((number) => bench.lab.backend(number));
    const echo = startEchoBackend(bench.processes, {
      cores: pass.cores.load,
      addresses: backends,
      port: ECHO_PORT,
    });
    await bound(echo, backends[2]!, { tcp: 1, udp: 1 });
    for (let round = 0; round < bench.options.rounds; round++) {
      for (const protocol of ['tcp', 'udp'] as const) {
        for (const peer of pass.peers.filter((each) => measured(bench, each, protocol))) {
          const base = {
            case: 'memory' as const,
            variant: `${FLOWS} idle ${protocol}`,
            peer: peer.label,
            round,
          };
          try {
            bench.record({ ...base, numbers: await measure(bench, pass, { peer, protocol, backends }) });
          } catch (error) {
            bench.record({ ...base, error: messageOf(error) });
          }
        }
      }
    }
    await bench.processes.stopAll();
  }
}

/** A quick run leaves out what nothing is compared with. */
function measured(bench: Bench, peer: Peer, protocol: 'tcp' | 'udp'): boolean {
  if (protocol === 'udp') return peer.udp;
  return !bench.options.quick || peer.name !== 'nginx';
}

async function measure(
  bench: Bench,
  pass: Pass,
  run: { readonly peer: Peer; readonly protocol: 'tcp' | 'udp'; readonly backends: readonly string[] },
): Promise<Numbers> {
  const ports: readonly [number, number] = [ECHO_PORT, ECHO_PORT];
  const target = await startTarget(bench, pass, run.peer, {
    tcpPorts: [ports],
    udpPorts: [ports],
    backends: run.backends,
    distribution: 'per-flow',
  });
  const pid = target.process?.pid ?? 0;
  const first = await hold(bench, pass, { target, protocol: run.protocol, flows: FIRST_FLOWS });
  await settle(bench);
  const before = await treeResidentBytes(pid);
  const { result: all, cost } = await costOf(target, pass.cores, () =>
    hold(bench, pass, { target, protocol: run.protocol, flows: FLOWS }),
  );
  await settle(bench);
  const after = await treeResidentBytes(pid);
  await Promise.all([first.stop(), all.stop(), target.process?.stop()]);
  return {
    bytesPerFlow: (after - before) / FLOWS,
    residentMebibytes: after / 2 ** 20,
    flowsPerSecond: FLOWS / all.seconds,
    ...cpuPer(cost, 'cpuMicrosPerFlow', FLOWS, 1e6),
  };
}

async function hold(
  bench: Bench,
  pass: Pass,
  run: { readonly target: Target; readonly protocol: 'tcp' | 'udp'; readonly flows: number },
): Promise<{ readonly seconds: number; readonly stop: () => Promise<void> }> {
  const tool = startTool(bench.processes, pass.cores.load, 'hold-main', {
    protocol: run.protocol,
    host: run.target.host,
    port: ECHO_PORT,
    flows: run.flows,
    from: Array.from({ length: CLIENTS }, (_, index) => bench.lab.client(index + 1)),
    concurrency: 32,
  });
  const answer = await firstAnswer<HoldAnswer>(tool, 60_000);
  if (answer.failed > 0) throw new Error(`${answer.failed} of ${run.flows} flows were not answered rightly`);
  return { seconds: answer.seconds, stop: () => tool.stop() };
}

/** Lets processes finish what they do after a burst: read ahead, collect garbage, free. */
function settle(bench: Bench): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, bench.options.quick ? SETTLE_MS / 3 : SETTLE_MS));
}
