import { SMALL } from '../backends/http-backend.js';
import type { Bench, BenchCase, Pass } from '../bench.js';
import { interleave } from '../interleave.js';
import { runTool } from '../load/load-tool.js';
import type { OpenLoopAnswer } from '../load/open-loop-main.js';
import { costOf, cpuPer } from '../measure.js';
import { spreadOf } from '../statistics.js';
import { messageOf, startTarget } from '../target.js';
import { HTTP_PORTS, HttpLoad } from './http-load.js';

const CONNECTIONS = 64;
const SHARES: Readonly<Record<string, number>> = { '25 %': 0.25, '50 %': 0.5 };
/** Where there is no HAProxy: about what it does on one core of a small machine. */
const FALLBACK_MAXIMUM = 40_000;

/**
 * (d) Latency at fixed rates, 25 % and 50 % of the most requests a second that HAProxy does in this run: open loop,
 * each latency counted from the moment the request was due.
 */
export const latencyCase: BenchCase = { name: 'latency', run };

async function run(bench: Bench): Promise<void> {
  for (const pass of bench.passes().filter(({ workers }) => workers === 1)) {
    const load = await HttpLoad.start(bench, pass);
    const maximum = await haproxyMaximum(bench, pass, load);
    await interleave(bench, pass, {
      case: 'latency',
      variants: bench.options.quick ? ['50 %'] : Object.keys(SHARES),
      spec: load.spec,
      verify: async (target) => {
        await load.warmUp(target, { connections: CONNECTIONS, close: false });
      },
      measure: async (target, variant) => {
        const perSecond = Math.round(maximum * (SHARES[variant] ?? 0.5));
        const answerBytes = await load.answerBytes(target, SMALL, false);
        const { result, cost } = await costOf(target, pass.cores, () =>
          runTool<OpenLoopAnswer>(
            bench.processes,
            pass.cores.load,
            'open-loop-main',
            {
              ...{ host: target.host, port: HTTP_PORTS[0], connections: CONNECTIONS },
              ...{ perSecond, seconds: bench.options.seconds, answerBytes, ...SMALL },
            },
            (bench.options.seconds + 15) * 1000,
          ),
        );
        const { sent, ...latencies } = result;
        return {
          perSecond,
          ...latencies,
          ...cpuPer(cost, 'cpuMicrosPerRequest', sent + perSecond, 1e6),
          ...cost.busy,
        };
      },
    });
    await bench.processes.stopAll();
  }
}

/** HAProxy's requests a second as this run has measured them, or just now; rounded to hundreds. */
async function haproxyMaximum(bench: Bench, pass: Pass, load: HttpLoad): Promise<number> {
  const haproxy = pass.peers.find(({ name }) => name === 'haproxy');
  if (haproxy === undefined) return FALLBACK_MAXIMUM;
  const measured = spreadOf(
    bench.samples
      .filter((sample) => sample.peer === haproxy.label && sample.variant === `${CONNECTIONS} connections`)
      .flatMap((sample) => sample.numbers?.['requestsPerSecond'] ?? []),
  );
  if (measured !== undefined) return Math.round(measured.median / 100) * 100;
  try {
    const target = await startTarget(bench, pass, haproxy, load.spec);
    const options = { connections: CONNECTIONS, seconds: bench.options.seconds, close: false };
    const { result } = await load.run(target, options);
    await target.process?.stop();
    return Math.round(result.requests / result.seconds / 100) * 100;
  } catch (error) {
    bench.say(
      `latency: HAProxy's maximum could not be measured (${messageOf(error)}); ${FALLBACK_MAXIMUM} is taken`,
    );
    return FALLBACK_MAXIMUM;
  }
}
