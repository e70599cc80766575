import type { Bench, BenchCase } from '../bench.js';
import { interleave } from '../interleave.js';
import { cpuPer } from '../measure.js';
import { HttpLoad } from './http-load.js';

const CONNECTIONS: Readonly<Record<string, number>> = { '64 connections': 64, '512 connections': 512 };

/** (a) Requests a second over connections that stay open: wrk to nginx, 100 bytes or so each way. */
export const requestsCase: BenchCase = { name: 'requests', run };

async function run(bench: Bench): Promise<void> {
  for (const pass of bench.passes()) {
    const load = await HttpLoad.start(bench, pass);
    await interleave(bench, pass, {
      case: 'requests',
      variants: Object.keys(CONNECTIONS),
      spec: load.spec,
      verify: async (target) => {
        await load.warmUp(target, { connections: 64, close: false });
      },
      measure: async (target, variant) => {
        const connections = CONNECTIONS[variant] ?? 64;
        const { result, cost } = await load.run(target, {
          connections,
          seconds: bench.options.seconds,
          close: false,
        });
        return {
          requestsPerSecond: result.requests / result.seconds,
          ...cpuPer(cost, 'cpuMicrosPerRequest', result.requests, 1e6),
          ...cost.busy,
        };
      },
    });
    await bench.processes.stopAll();
  }
}
