import type { Bench, BenchCase } from '../bench.js';
import { interleave } from '../interleave.js';
import { cpuPer } from '../measure.js';
import { HttpLoad } from './http-load.js';

const CONNECTIONS = 64;

/**
 * (b) New connections a second: connect, request, answer, close. One wrk for each of eight ports, so that no pair of
 * addresses runs out of ports; the backend closes first, TIME_WAIT is its own.
 */
export const connectionsCase: BenchCase = { name: 'connections', run };

async function run(bench: Bench): Promise<void> {
  for (const pass of bench.passes()) {
    const load = await HttpLoad.start(bench, pass);
    await interleave(bench, pass, {
      case: 'connections',
      variants: ['64 at a time'],
      spec: load.spec,
      verify: async (target) => {
        await load.warmUp(target, { connections: CONNECTIONS, close: true });
      },
      measure: async (target) => {
        const { result, cost } = await load.run(target, {
          connections: CONNECTIONS,
          seconds: bench.options.seconds,
          close: true,
        });
        return {
          connectionsPerSecond: result.requests / result.seconds,
          ...cpuPer(cost, 'cpuSecondsPer10kConnections', result.requests, 1e4),
          ...cost.busy,
        };
      },
    });
    await bench.processes.stopAll();
  }
}
