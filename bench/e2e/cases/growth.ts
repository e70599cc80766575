import { startEchoBackend } from '../backends/echo-backend.js';
import type { Bench, BenchCase, Pass } from '../bench.js';
import type { HoldAnswer } from '../load/hold-main.js';
import { firstAnswer, startTool } from '../load/load-tool.js';
import { cpuPer } from '../measure.js';
import { haportsPeer } from '../peers/haports.js';
import type { Peer } from '../peers/peer.js';
import type { Numbers } from '../results.js';
import { bound, messageOf, startTarget, type Target } from '../target.js';
import { HttpLoad } from './http-load.js';

const ECHO_PORT = 7000;
const MOST_BACKENDS = 1000;
const CONNECTIONS = 64;
const BULK_CONNECTIONS = 8;

/** What one balancer has besides the load. */
interface Setting {
  readonly name: string;
  readonly flows: number;
  readonly backends: number;
  readonly rules: number;
}

const BASE = { flows: 1, backends: 3, rules: 1 };
const SETTINGS: readonly Setting[] = [
  { name: 'base: 1 live flow, 3 backends, 1 rule', ...BASE },
  { name: '100 live flows', ...BASE, flows: 100 },
  { name: '10000 live flows', ...BASE, flows: 10_000 },
  { name: '100 backends', ...BASE, backends: 100 },
  { name: '1000 backends', ...BASE, backends: 1000 },
  { name: '10 rules', ...BASE, rules: 10 },
  { name: '100 rules', ...BASE, rules: 100 },
];
/** All at once: enough to see that nothing grows. */
const QUICK: readonly Setting[] = [
  { name: 'base: 1 live flow, 3 backends, 1 rule', ...BASE },
  { name: '10000 live flows, 1000 backends, 100 rules', flows: 10_000, backends: 1000, rules: 100 },
];

/**
 * (i) How requests, new connections and bulk move with live flows (half TCP, half UDP, idle), backends and rules;
 * haports alone. Bulk is one mebibyte an answer over eight connections, since every backend can answer that.
 */
export const growthCase: BenchCase = { name: 'growth', run };

async function run(bench: Bench): Promise<void> {
  const only = ({ name, workers }: Peer): boolean => name === 'haports' && workers === 1;
  const settings = bench.options.quick ? QUICK : SETTINGS;
  for (const pass of bench.passes(only)) {
    const load = await HttpLoad.start(bench, pass, MOST_BACKENDS);
    const addresses = load.spec.backends;
    const echo = startEchoBackend(bench.processes, { cores: pass.cores.load, addresses, port: ECHO_PORT });
    await bound(echo, addresses.at(-1)!, { udp: 1 });
    const targets: { readonly setting: Setting; readonly target: Target }[] = [];
    for (const setting of settings) {
      try {
        targets.push({ setting, target: await start(bench, pass, { load, setting }) });
      } catch (error) {
        bench.record({
          case: 'growth',
          variant: setting.name,
          peer: 'haports',
          round: 0,
          error: messageOf(error),
        });
      }
    }
    for (let round = 0; round < bench.options.rounds; round++) {
      for (const { setting, target } of targets) {
        const base = { case: 'growth' as const, variant: setting.name, peer: 'haports', round };
        try {
          bench.record({ ...base, numbers: await measure(bench, load, target) });
        } catch (error) {
          bench.record({ ...base, error: messageOf(error) });
        }
      }
    }
    await bench.processes.stopAll();
  }
}

async function start(
  bench: Bench,
  pass: Pass,
  run: { readonly load: HttpLoad; readonly setting: Setting },
): Promise<Target> {
  const { load, setting } = run;
  const target = await startTarget(bench, pass, haportsPeer(1, bench.options.main), {
    ...load.spec,
    tcpPorts: [...load.spec.tcpPorts, [ECHO_PORT, ECHO_PORT]],
    udpPorts: [[ECHO_PORT, ECHO_PORT]],
    backends: load.spec.backends.slice(0, setting.backends),
    otherRules: setting.rules - 1,
  });
  for (const protocol of ['tcp', 'udp'] as const) {
    if (setting.flows < 2) continue;
    const tool = startTool(bench.processes, pass.cores.load, 'hold-main', {
      ...{ protocol, host: target.host, port: ECHO_PORT, flows: setting.flows / 2, concurrency: 32 },
      from: [1, 2, 3, 4, 5, 6, 7, 8].map((number) => bench.lab.client(number)),
    });
    const answer = await firstAnswer<HoldAnswer>(tool, 60_000);
    if (answer.failed > 0) throw new Error(`${answer.failed} live ${protocol} flows could not be opened`);
  }
  await load.warmUp(target, { connections: CONNECTIONS, close: false });
  await load.warmUp(target, { connections: CONNECTIONS, close: true });
  return target;
}

async function measure(bench: Bench, load: HttpLoad, target: Target): Promise<Numbers> {
  const { seconds } = bench.options;
  const a = await load.run(target, { connections: CONNECTIONS, seconds, close: false });
  const b = await load.run(target, { connections: CONNECTIONS, seconds, close: true });
  const speed = {
    requestsPerSecond: a.result.requests / a.result.seconds,
    ...cpuPer(a.cost, 'cpuMicrosPerRequest', a.result.requests, 1e6),
    connectionsPerSecond: b.result.requests / b.result.seconds,
    ...cpuPer(b.cost, 'cpuSecondsPer10kConnections', b.result.requests, 1e4),
  };
  if (bench.options.quick) return speed;
  const c = await load.run(target, { connections: BULK_CONNECTIONS, seconds, close: false, large: true });
  return {
    ...speed,
    gigabitsPerSecond: (c.result.bytes * 8) / c.result.seconds / 1e9,
    ...cpuPer(c.cost, 'cpuSecondsPerGib', c.result.bytes / 2 ** 30, 1),
  };
}
