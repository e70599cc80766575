import { cpus } from 'node:os';
import { startHttpBackend } from '../backends/http-backend.js';
import { startIperfBackends } from '../backends/iperf-backend.js';
import type { Bench, BenchCase, Pass } from '../bench.js';
import { corePlan } from '../core-plan.js';
import { DIRECT, FLOATING_FRONTEND, openKernelLab, type KernelLab } from '../kernel-lab.js';
import { runIperf, type IperfResult } from '../load/iperf.js';
import { cpuPer } from '../measure.js';
import { machineCpuSeconds } from '../process-facts.js';
import type { Numbers } from '../results.js';
import { inPrivateLab } from '../private-lab.js';
import { bound, messageOf, type Target } from '../target.js';
import { HTTP_PORTS, HttpLoad } from './http-load.js';
import { CHURN_PORTS, CHURN_VARIANTS, churn } from './kernel-churn.js';
import { IPERF_PORT, openContestants, type Contestant, type Serving } from './kernel-contestants.js';

/** So that the whole case stays below four minutes. */
const [MOST_ROUNDS, MOST_SECONDS] = [3, 2];
const WARM_UP_SECONDS = 2;
const CONNECTIONS = 64;
const DATAGRAM_BYTES = 64;
const WILDCARD = '0.0.0.0';

interface Measurement {
  readonly variant: string;
  readonly applies: (contestant: Contestant) => boolean;
  readonly measure: (serving: Serving) => Promise<Numbers>;
}

/**
 * (k) The kernel's data plane, non-floating and floating, beside haports in user space, HAProxy, nginx and none at all, in
 * the same namespaces: bulk, new connections, requests, datagrams; then churn. All share all cores. Each
 * contestant does everything in a row; what it has put into the kernel is there for as long.
 */
export const kernelCase: BenchCase = {
  name: 'kernel',
  run: (bench) => inPrivateLab(bench, 'kernel', openKernelLab, runInside(bench)),
};

function runInside(bench: Bench): (inside: Bench, lab: KernelLab) => Promise<void> {
  return async (inside, lab) => {
    const all = cpus().length;
    const pass: Pass = { workers: 1, cores: corePlan(all, all), peers: [] };
    const backends = [1, 2, 3].map((number) => lab.backend(number));
    await startBackends(inside, pass, backends);
    const load = HttpLoad.over(inside, pass, backends);
    const contestants = await openContestants(inside, pass, backends);
    const measurements = measurementsOf(inside, pass, { lab, load });
    if (!bench.options.quick) {
      for (const contestant of contestants) await warmUp(contestant, load);
    }
    for (let round = 0; round < Math.min(MOST_ROUNDS, bench.options.rounds); round++) {
      for (let index = 0; index < contestants.length; index++) {
        const contestant = contestants[(index + round) % contestants.length]!;
        await takeTurn(bench, contestant, round, measurements);
      }
    }
  };
}

async function takeTurn(
  bench: Bench,
  contestant: Contestant,
  round: number,
  measurements: readonly Measurement[],
): Promise<void> {
  const own = measurements.filter(({ applies }) => applies(contestant));
  const base = { case: 'kernel', peer: contestant.label, round } as const;
  try {
    const serving = await contestant.up();
    for (const { variant, measure } of own) {
      try {
        bench.record({ ...base, variant, numbers: await measure(serving) });
      } catch (error) {
        bench.record({ ...base, variant, error: messageOf(error) });
      }
    }
  } catch (error) {
    for (const { variant } of own) bench.record({ ...base, variant, error: messageOf(error) });
  } finally {
    await contestant.down().catch((error: unknown) => {
      bench.record({ ...base, variant: 'stop', error: messageOf(error) });
    });
  }
}

function measurementsOf(
  bench: Bench,
  pass: Pass,
  deps: { readonly lab: KernelLab; readonly load: HttpLoad },
): readonly Measurement[] {
  const long = Math.min(MOST_SECONDS, bench.options.seconds);
  const everybody = (): boolean => true;
  const http = (close: boolean, seconds: number) => async (serving: Serving) => {
    const { load } = deps;
    return costed(async () => {
      const { result, cost } = await load.run(serving.http, { connections: CONNECTIONS, seconds, close });
      const rate = result.requests / result.seconds;
      return {
        units: result.requests,
        ...(close ? { connectionsPerSecond: rate } : { requestsPerSecond: rate }),
        // Of the balancer's own processes: with the kernel's plane they only look on.
        ...cpuPer(cost, 'processMicrosPerUnit', result.requests, 1e6),
      };
    });
  };
  return [
    {
      variant: '1 stream up',
      applies: everybody,
      measure: ({ iperf }) =>
        costed(async () => {
          const { bytes, seconds } = await flow(bench, pass, iperf, { seconds: long });
          return { units: bytes / 2 ** 20, gigabitsPerSecond: (bytes * 8) / seconds / 1e9 };
        }),
    },
    { variant: `${CONNECTIONS} at a time`, applies: everybody, measure: http(true, long) },
    { variant: `${CONNECTIONS} connections`, applies: everybody, measure: http(false, 1) },
    {
      variant: `${DATAGRAM_BYTES} bytes, 1 flow`,
      applies: ({ udp }) => udp,
      measure: ({ iperf }) =>
        costed(async () => {
          const { datagrams, lost, seconds } = await flow(bench, pass, iperf, { seconds: 1, udp: true });
          const delivered = datagrams - lost;
          if (delivered <= 0) throw new Error(`none of ${datagrams} datagrams arrived`);
          const lostPercent = (100 * lost) / datagrams;
          return { units: delivered, deliveredPerSecond: delivered / seconds, lostPercent };
        }),
    },
    ...CHURN_VARIANTS.map((variant): Measurement => ({
      variant,
      applies: ({ churns }) => churns,
      measure: ({ http: target }) => churn(bench, pass, target, variant, { ...deps, seconds: long }),
    })),
  ];
}

/** CPU time of the whole machine for a unit of work: the kernel's work is nobody's. The load's own is in it, for all alike. */
async function costed(work: () => Promise<Numbers & { readonly units: number }>): Promise<Numbers> {
  const before = await machineCpuSeconds();
  const { units, ...numbers } = await work();
  return { ...numbers, machineMicrosPerUnit: (((await machineCpuSeconds()) - before) * 1e6) / units };
}

async function flow(
  bench: Bench,
  pass: Pass,
  target: Target,
  run: { readonly seconds: number; readonly udp?: true },
): Promise<IperfResult> {
  return runIperf(bench.processes, {
    ...{ cores: pass.cores.load, host: target.host, port: IPERF_PORT, from: bench.lab.client(1) },
    ...{ streams: 1, seconds: run.seconds, download: false },
    // 0: as many as it can.
    ...(run.udp === true && { udp: { bytes: DATAGRAM_BYTES, perSecond: 0 } }),
  });
}

/** Compiles the code of haports in user space; the others are as fast at once. */
async function warmUp(contestant: Contestant, load: HttpLoad): Promise<void> {
  if (contestant.label !== 'haports') return;
  const { http } = await contestant.up();
  for (const close of [true, false]) {
    await load.run(http, { connections: CONNECTIONS, seconds: WARM_UP_SECONDS, close });
  }
  await contestant.down();
}

async function startBackends(bench: Bench, pass: Pass, backends: readonly string[]): Promise<void> {
  const cores = pass.cores.load;
  const ports = [...HTTP_PORTS, ...CHURN_PORTS];
  const folder = await bench.folder('http');
  const http = await startHttpBackend(bench.processes, { cores, folder, addresses: [WILDCARD], ports });
  await bound(http, WILDCARD, { tcp: ports.length });
  // No wildcard: datagrams would be answered from another address.
  const addresses = [...backends, DIRECT, FLOATING_FRONTEND];
  const servers = startIperfBackends(bench.processes, { cores, addresses, port: IPERF_PORT });
  await Promise.all(servers.map((own, index) => bound(own, addresses[index]!, { tcp: 1 })));
}
