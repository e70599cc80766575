import { startEchoBackend } from '../backends/echo-backend.js';
import { startIperfBackends } from '../backends/iperf-backend.js';
import type { Bench, BenchCase, Pass } from '../bench.js';
import { interleave } from '../interleave.js';
import { runIperf } from '../load/iperf.js';
import { runTool } from '../load/load-tool.js';
import { costOf, cpuPer } from '../measure.js';
import { bound } from '../target.js';

const IPERF_PORT = 5201;
const ECHO_PORT = 7000;
const VERIFY_MEBIBYTES = { quick: 8, full: 32 } as const;
const VARIANTS: Readonly<Record<string, { readonly streams: number; readonly download: boolean }>> = {
  '1 stream up': { streams: 1, download: false },
  '1 stream down': { streams: 1, download: true },
  '8 streams up': { streams: 8, download: false },
  '8 streams down': { streams: 8, download: true },
};
const QUICK = ['1 stream up', '8 streams down'];

/**
 * (c) Bulk: iperf3 through each peer, all connections of the client on one backend (source-ip). Up is from the client
 * to the backend. Before it, random bytes go to an echo and back and are compared by SHA-256.
 */
export const bulkCase: BenchCase = { name: 'bulk', run };

async function run(bench: Bench): Promise<void> {
  for (const pass of bench.passes()) {
    const backends = await startBackends(bench, pass);
    await interleave(bench, pass, {
      case: 'bulk',
      variants: bench.options.quick ? QUICK : Object.keys(VARIANTS),
      spec: {
        tcpPorts: [
          [IPERF_PORT, IPERF_PORT],
          [ECHO_PORT, ECHO_PORT],
        ],
        udpPorts: [],
        backends,
        distribution: 'source-ip',
      },
      verify: async ({ host }) => {
        const mebibytes = VERIFY_MEBIBYTES[bench.options.quick ? 'quick' : 'full'];
        const transfer = { host, port: ECHO_PORT, mebibytes };
        await runTool(bench.processes, pass.cores.load, 'transfer-main', transfer, 30_000);
      },
      measure: async (target, variant) => {
        const { streams, download } = VARIANTS[variant] ?? { streams: 1, download: false };
        const { result, cost } = await costOf(target, pass.cores, () =>
          runIperf(bench.processes, {
            cores: pass.cores.load,
            host: target.host,
            port: IPERF_PORT,
            from: bench.lab.client(1),
            seconds: bench.options.seconds,
            streams,
            download,
          }),
        );
        return {
          gigabitsPerSecond: (result.bytes * 8) / result.seconds / 1e9,
          ...cpuPer(cost, 'cpuSecondsPerGib', result.bytes / 2 ** 30, 1),
          ...cost.busy,
        };
      },
    });
    await bench.processes.stopAll();
  }
}

async function startBackends(bench: Bench, pass: Pass): Promise<readonly string[]> {
  const addresses = [1, 2, 3].map((number) => bench.lab.backend(number));
  const common = { cores: pass.cores.load, addresses };
  const echo = startEchoBackend(bench.processes, { ...common, port: ECHO_PORT });
  const servers = startIperfBackends(bench.processes, { ...common, port: IPERF_PORT });
  // One socket of the echo, one of iperf3.
  await Promise.all(
    [echo, ...servers].map((own, index) => bound(own, addresses[Math.max(0, index - 1)]!, { tcp: 2 })),
  );
  return addresses;
}
