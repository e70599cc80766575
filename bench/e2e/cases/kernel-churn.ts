import type { Bench, Pass } from '../bench.js';
import type { KernelLab } from '../kernel-lab.js';
import { SMALL } from '../backends/http-backend.js';
import { checkWrk, runWrk } from '../load/wrk.js';
import type { Numbers } from '../results.js';
import { HTTP_PORTS, type HttpLoad } from './http-load.js';
import type { Target } from '../target.js';

/** One for each client address of `many`, which is chosen by the port it goes to. */
export const CHURN_PORTS: readonly number[] = Array.from({ length: 32 }, (_, index) => 8200 + index);
const CONNECTIONS = 64;
const FIRST_CLIENT = 100;
/** Linux' own (ip-sysctl), and 1,024 of them: then each tuple comes back ten times a second or so. */
const [ALL_PORTS, FEW_PORTS] = ['32768 60999', '32768 33791'];
const PORT_RANGE = 'net.ipv4.ip_local_port_range';

export const CHURN_VARIANTS = ['one client address, 1,024 ports', '32 client addresses, all ports'] as const;

export interface Churn {
  readonly lab: KernelLab;
  readonly load: HttpLoad;
  readonly seconds: number;
}

/**
 * Connections that close at once. From one address with few ports tuples come back while the kernel still remembers them;
 * from many addresses each is used once, and what is remembered grows. `tableEntries`: of the balancer's conntrack, at
 * the end.
 */
export async function churn(
  bench: Bench,
  pass: Pass,
  target: Target,
  variant: (typeof CHURN_VARIANTS)[number],
  { lab, load, seconds }: Churn,
): Promise<Numbers> {
  const isMany = variant === CHURN_VARIANTS[1];
  const ports = isMany ? CHURN_PORTS : HTTP_PORTS.slice(0, 1);
  const answerBytes = await load.answerBytes(target, SMALL, true);
  await lab.hosts.balancer.run('conntrack -F');
  await prepareClient(lab, isMany ? 'many' : 'one');
  try {
    const result = await runWrk(bench.processes, {
      ...{ cores: pass.cores.load, folder: await bench.folder('wrk'), host: target.host, ports },
      ...{ path: SMALL.path, connections: CONNECTIONS, seconds, close: true },
    });
    checkWrk(result, answerBytes, CONNECTIONS);
    const tableEntries = Number(await lab.hosts.balancer.must('conntrack -C'));
    return { connectionsPerSecond: result.requests / result.seconds, tableEntries };
  } finally {
    await prepareClient(lab, 'as-before');
  }
}

async function prepareClient(lab: KernelLab, clients: 'one' | 'many' | 'as-before'): Promise<void> {
  await lab.hosts.client.sysctl(PORT_RANGE, clients === 'one' ? FEW_PORTS : ALL_PORTS);
  if (clients === 'one') return;
  const lines = CHURN_PORTS.flatMap((port, index) => {
    const source = lab.client(FIRST_CLIENT + index);
    return clients === 'many'
      ? [
          `route add default via ${lab.clientGateway} src ${source} table ${port}`,
          `rule add ipproto tcp dport ${port} lookup ${port}`,
        ]
      : [`rule delete ipproto tcp dport ${port} lookup ${port}`, `route flush table ${port}`];
  });
  // What is not there cannot be deleted: fine.
  await lab.hosts.client.run('ip -force -batch -', { input: lines.join('\n') });
}
