import { readFile, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { adminApi } from '../../../test/support/admin-api.js';
import { isServing } from '../../../test/support/haports-process.js';
import { runCommand } from '../../../test/support/commands.js';
import { eventually, within } from '../../../test/support/deadline.js';
import { startEchoBackend } from '../backends/echo-backend.js';
import type { Bench, BenchCase, Pass } from '../bench.js';
import { corePlan } from '../core-plan.js';
import type { Lab } from '../lab.js';
import type { FirstDatagramAnswer } from '../load/first-datagram-main.js';
import { runTool } from '../load/load-tool.js';
import { cpuPer } from '../measure.js';
import { openNetnsLab } from '../netns-lab.js';
import { tail, type OwnProcess } from '../own-processes.js';
import { allPortsConfig, type AllPortsWay } from '../peers/haports-all-ports.js';
import { haportsPeer } from '../peers/haports.js';
import { inPrivateLab } from '../private-lab.js';
import { treeResidentBytes } from '../process-facts.js';
import type { Numbers } from '../results.js';
import { bound, messageOf, type Target } from '../target.js';
import { HttpLoad } from './http-load.js';

/** In all port sets, as the ports of the HTTP load are. */
const ECHO_PORT = 8100;
const CONNECTIONS = 64;
const FIRST_DATAGRAMS = 1000;
const READY_MS = 60_000;

const BIND: AllPortsWay = { name: 'bind', workers: 1 };
const CAPTURE: AllPortsWay = { name: 'capture, dnat-map', capture: true, workers: 1 };

/** Each port is one of TCP and one of UDP. A descriptor limit of 20,000 takes eight processes to bind them all. */
const PORT_SETS: readonly {
  readonly ports: number;
  readonly listenPorts?: string;
  readonly bind: AllPortsWay;
}[] = [
  { ports: 1000, listenPorts: '7500-8499', bind: BIND },
  { ports: 9000, listenPorts: '2000-10999', bind: BIND },
  { ports: 65_535, bind: { name: 'bind, 8 workers', workers: 8 } },
];

/**
 * (j) A socket a port against capture by the kernel, haports alone, TCP and UDP ports alike: from the start of the
 * process until it tells that it serves; memory then; new connections; the first datagram of a flow.
 * Always in network namespaces. A fresh process for every row and round.
 */
export const captureCase: BenchCase = { name: 'capture', run };

async function run(bench: Bench): Promise<void> {
  await inPrivateLab(bench, 'capture', openNetnsLab, (inside, lab) => runInside(bench, inside, lab));
}

async function runInside(bench: Bench, inside: Bench, lab: Lab): Promise<void> {
  const pass: Pass = { workers: 1, cores: corePlan(cpus().length, 1), peers: [] };
  const load = await HttpLoad.start(inside, pass);
  const { backends } = load.spec;
  const echo = startEchoBackend(inside.processes, {
    cores: pass.cores.load,
    addresses: backends,
    port: ECHO_PORT,
  });
  await bound(echo, backends.at(-1)!, { udp: 1 });
  const sets = PORT_SETS.filter(({ ports }) => !bench.options.quick || ports !== 9000);
  for (let round = 0; round < bench.options.rounds; round++) {
    for (const { ports, listenPorts, bind } of sets) {
      for (const way of [bind, CAPTURE]) {
        const variant = `${ports} ports: ${way.name}`;
        const base = { case: 'capture' as const, variant, peer: 'haports', round };
        try {
          await runCommand('ip', [...lab.prefix('balancer').slice(1), 'conntrack', '-F']);
          const spec = { way, backends, ...(listenPorts !== undefined && { listenPorts }) };
          bench.record({ ...base, numbers: await measure(inside, pass, { load, spec }) });
        } catch (error) {
          bench.record({ ...base, error: messageOf(error) });
        }
      }
    }
  }
}

interface Spec {
  readonly way: AllPortsWay;
  readonly backends: readonly string[];
  readonly listenPorts?: string;
}

async function measure(
  bench: Bench,
  pass: Pass,
  run: { readonly load: HttpLoad; readonly spec: Spec },
): Promise<Numbers> {
  const kernelBefore = await kernelBytes();
  const { target, own } = await start(bench, pass, run.spec);
  try {
    const numbers = {
      startMs: target.startMs,
      residentMebibytes: (await treeResidentBytes(own.pid)) / 2 ** 20,
      kernelMebibytes: ((await kernelBytes()) - kernelBefore) / 2 ** 20,
    };
    const udp = await firstDatagrams(bench, pass, target);
    await run.load.warmUp(target, { connections: CONNECTIONS, close: true });
    const { seconds } = bench.options;
    const tcp = await run.load.run(target, { connections: CONNECTIONS, seconds, close: true });
    return {
      ...numbers,
      connectionsPerSecond: tcp.result.requests / tcp.result.seconds,
      ...cpuPer(tcp.cost, 'cpuSecondsPer10kConnections', tcp.result.requests, 1e4),
      ...udp,
    };
  } finally {
    await stop(own);
  }
}

/** Resolves once it tells that it serves. */
async function start(
  bench: Bench,
  pass: Pass,
  spec: Spec,
): Promise<{ readonly target: Target; readonly own: OwnProcess }> {
  const frontend = bench.lab.frontend(bench.nextNumber());
  const folder = await bench.folder('haports');
  const [path, adminSocket] = [join(folder, 'config.json'), join(folder, 'admin.sock')];
  await writeFile(path, JSON.stringify(allPortsConfig(spec.way, { ...spec, frontend, adminSocket })));
  const startedAtMs = performance.now();
  const own = bench.processes.start({ role: 'balancer', cores: pass.cores.balancer }, spec.way.name, [
    ...[process.execPath, bench.options.main, 'run', '-c', path],
  ]);
  try {
    await eventually(
      async () => own.ended || isServing(await adminApi(adminSocket, 'GET', '/v1/status')),
      READY_MS,
      `${spec.way.name} to be ready: ${tail(own)}`,
    );
    if (own.ended) throw new Error(`${spec.way.name} ended at once: ${tail(own)}`);
  } catch (error) {
    await own.stop();
    throw error;
  }
  const startMs = performance.now() - startedAtMs;
  const peer = haportsPeer(spec.way.workers, bench.options.main);
  return { target: { peer, host: frontend, process: own, startMs }, own };
}

/** Orderly, so that nothing of it stays in the kernel for the next. */
async function stop(own: OwnProcess): Promise<void> {
  try {
    if (!own.ended) process.kill(own.pid, 'SIGTERM');
    await within(own.exit, READY_MS, `${own.name} to stop`);
  } finally {
    await own.stop();
  }
}

async function firstDatagrams(bench: Bench, pass: Pass, target: Target): Promise<Numbers> {
  const answer = await runTool<FirstDatagramAnswer>(
    bench.processes,
    pass.cores.load,
    'first-datagram-main',
    {
      ...{ host: target.host, port: ECHO_PORT, from: bench.lab.client(1), firstSourcePort: 20_000 },
      flows: bench.options.quick ? FIRST_DATAGRAMS / 5 : FIRST_DATAGRAMS,
    },
    READY_MS,
  );
  const { lost, ...times } = answer;
  if (lost > 0) throw new Error(`${lost} UDP flows had no answer`);
  return { ...times };
}

/** The kernel's objects, sockets and tables among them, of the whole machine: other work on it shows here too. */
async function kernelBytes(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  return Number(/^Slab:\s+(\d+) kB$/m.exec(text)?.[1] ?? Number.NaN) * 1024;
}
