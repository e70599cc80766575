import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { adminApi } from '../../../test/support/admin-api.js';
import { isServing } from '../../../test/support/haports-process.js';
import { eventually, within } from '../../../test/support/deadline.js';
import { ARM, FLOATING_FRONTEND, NAT_FRONTEND } from '../kernel-lab.js';
import { tail, type OwnProcess, type OwnProcesses } from '../own-processes.js';

export type BenchedMode = 'nat' | 'floating-l2';

const READY_MS = 30_000;
/** iperf3's control and data connections must meet. */
const IPERF_PORT = 5201;

export function frontendOf(mode: BenchedMode): string {
  return mode === 'nat' ? NAT_FRONTEND : FLOATING_FRONTEND;
}

/** All ports and protocols by five-tuple, iperf3's by source. No probe; what it has put into the kernel goes with it. */
export function kernelConfig(
  mode: BenchedMode,
  serve: { readonly backends: readonly string[]; readonly adminSocket: string },
): object {
  const common = { frontend: 'bench', backendPool: 'backends', floatingIp: mode !== 'nat' };
  const iperf = { ...common, frontendPort: IPERF_PORT, backendPort: IPERF_PORT, distribution: 'source-ip' };
  return {
    dataPlane: {
      kind: 'kernel',
      kernel: { mode, manageSysctls: true, onStop: 'remove', ...(mode !== 'nat' && { interface: ARM }) },
    },
    frontends: [{ name: 'bench', address: frontendOf(mode) }],
    backendPools: [{ name: 'backends', backends: serve.backends.map((address) => ({ address })) }],
    rules: [
      { ...iperf, name: 'iperf-tcp', protocol: 'tcp' },
      { ...iperf, name: 'iperf-udp', protocol: 'udp' },
      { ...common, name: 'all', haPorts: true },
    ],
    admin: { socket: serve.adminSocket },
    logging: { level: 'warn', format: 'json' },
    // Nobody waits for flows to end.
    shutdown: { deadline: '1s' },
  };
}

/** Resolves once its rules are in the kernel. */
export async function startKernel(
  processes: OwnProcesses,
  run: {
    readonly mode: BenchedMode;
    readonly main: string;
    readonly cores: string;
    readonly folder: string;
    readonly backends: readonly string[];
  },
): Promise<OwnProcess> {
  const [path, adminSocket] = [join(run.folder, 'config.json'), join(run.folder, 'admin.sock')];
  await writeFile(path, JSON.stringify(kernelConfig(run.mode, { backends: run.backends, adminSocket })));
  const own = processes.start({ role: 'balancer', cores: run.cores }, `haports ${run.mode}`, [
    ...[process.execPath, run.main, 'run', '-c', path],
  ]);
  try {
    await eventually(
      async () => own.ended || isServing(await adminApi(adminSocket, 'GET', '/v1/status')),
      READY_MS,
      `${own.name} to be ready: ${tail(own)}`,
    );
    if (own.ended) throw new Error(`${own.name} ended at once: ${tail(own)}`);
  } catch (error) {
    await own.stop();
    throw error;
  }
  return own;
}

/** Orderly, so that nothing of it stays in the kernel for the next. */
export async function stopKernel(own: OwnProcess): Promise<void> {
  try {
    if (!own.ended) process.kill(own.pid, 'SIGTERM');
    await within(own.exit, READY_MS, `${own.name} to stop: ${tail(own)}`);
  } finally {
    await own.stop();
  }
}
