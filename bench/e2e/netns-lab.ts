import { runCommand } from '../../test/support/commands.js';
import { backendAddress, type Lab, type Role } from './lab.js';

const ROLES: readonly Role[] = ['client', 'balancer', 'backend'];
const NET = '10.77';
/** Frontends are addresses of the balancer's loopback: haports lists them; HAProxy and nginx just bind. */
const FRONTENDS = 200;

/**
 * Three network namespaces, client - balancer - backend, joined by two veth pairs; the balancer routes, so that direct
 * goes through its kernel. Needs root. Everything is in namespaces named by process id: addresses, routes and
 * forwarding of the machine itself are not touched.
 */
export async function openNetnsLab(pid: number = process.pid): Promise<Lab> {
  if (process.getuid?.() !== 0) throw new Error('--netns needs root');
  const space = (role: Role): string => `haports-bench-${pid}-${role}`;
  const close = async (): Promise<void> => {
    // A namespace takes its interfaces with it.
    for (const role of ROLES) await runCommand('ip', ['netns', 'delete', space(role)]).catch(() => undefined);
  };
  try {
    for (const role of ROLES) await ip(['netns', 'add', space(role)]);
    for (const line of setUp(space)) await ip(line.split(' '));
    await enableForwarding(space('balancer'));
    await addFrontends(space('balancer'));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    kind: 'netns',
    frontend: (number) => `${NET}.0.${number}`,
    client: (number) => `${NET}.1.${number}`,
    backend: (number) => backendAddress(NET, number),
    prefix: (role) => ['ip', 'netns', 'exec', space(role)],
    close,
  };
}

/** Client addresses are 10.77.1.0/24, backends 10.77.2.0/23 and 10.77.4.0/22, each local to its namespace as a whole. */
function setUp(space: (role: Role) => string): readonly string[] {
  const [client, balancer, backend] = ROLES.map(space);
  return [
    `link add c0 netns ${client} type veth peer name b0 netns ${balancer}`,
    `link add b1 netns ${balancer} type veth peer name s0 netns ${backend}`,
    ...ROLES.map((role) => `-n ${space(role)} link set lo up`),
    ...[`${client} address add 10.78.1.1/30 dev c0`, `${balancer} address add 10.78.1.2/30 dev b0`],
    ...[`${balancer} address add 10.78.2.2/30 dev b1`, `${backend} address add 10.78.2.1/30 dev s0`],
    ...[`${client} link set c0 up`, `${balancer} link set b0 up`],
    ...[`${balancer} link set b1 up`, `${backend} link set s0 up`],
    `${client} route add local ${NET}.1.0/24 dev lo`,
    `${client} route add default via 10.78.1.2`,
    `${balancer} route add ${NET}.1.0/24 via 10.78.1.1`,
    `${balancer} route add ${NET}.2.0/23 via 10.78.2.1`,
    `${balancer} route add ${NET}.4.0/22 via 10.78.2.1`,
    `${backend} route add local ${NET}.2.0/23 dev lo`,
    `${backend} route add local ${NET}.4.0/22 dev lo`,
    `${backend} route add default via 10.78.2.2`,
  ].map((line) => (/^(link add|-n)/.test(line) ? line : `-n ${line}`));
}

async function enableForwarding(space: string): Promise<void> {
  const script = 'echo 1 > /proc/sys/net/ipv4/ip_forward';
  const { code, stderr } = await runCommand('ip', ['netns', 'exec', space, 'sh', '-c', script]);
  if (code !== 0) throw new Error(`Cannot forward in ${space}: ${stderr.trim()}`);
}

async function addFrontends(space: string): Promise<void> {
  const lines = Array.from(
    { length: FRONTENDS },
    (_, index) => `address add ${NET}.0.${index + 1}/32 dev lo`,
  );
  const { code, stderr } = await runCommand('ip', ['-n', space, '-batch', '-'], { input: lines.join('\n') });
  if (code !== 0) throw new Error(`Cannot add frontends in ${space}: ${stderr.trim()}`);
}

async function ip(args: readonly string[]): Promise<void> {
  const { code, stderr } = await runCommand('ip', args);
  if (code !== 0) throw new Error(`ip ${args.join(' ')} failed: ${stderr.trim()}`);
}
