import { NamespaceLab } from '../../test/support/namespaces.js';
import type { Lab, Role } from './lab.js';

/*
 * client 10.77.1.0/24 -- router 10.77.2.254 === bridge 10.77.2.0/24 === balancer 10.77.2.1, one arm
 *                                                                   === backend 10.77.2.11-13, .20
 *
 * Frontends: 10.77.0.0/24 are addresses of the balancer, for peers with sockets; 10.77.8.0/24 of nobody, for NAT;
 * 10.77.9.0/24 of the backend's loopback, for floating IP. The router sends all three to the balancer.
 */

const NET = '10.77';
const CLIENT_GATEWAY = '10.78.1.2';
const ROUTER = `${NET}.2.254`;
const BALANCER = `${NET}.2.1`;
const FRONTENDS = 200;

/** The device of the balancer's one arm. */
export const ARM = 'router';
/** Of the backend too, but its answers do not come back through the balancer. */
export const DIRECT = `${NET}.2.20`;
export const NAT_FRONTEND = `${NET}.8.1`;
export const FLOATING_FRONTEND = `${NET}.9.1`;

export interface KernelLab extends Lab {
  readonly spaces: NamespaceLab;
  /** The router, as the client reaches it. */
  readonly clientGateway: string;
}

/** Four network namespaces in which all peers can be measured side by side. Needs root. */
export async function openKernelLab(): Promise<KernelLab> {
  const spaces = await NamespaceLab.create('client', 'router', 'balancer', 'backend');
  try {
    await forward(spaces);
    await wire(spaces);
    await addFrontends(spaces);
    await routeAnswers(spaces);
  } catch (error) {
    await spaces.close();
    throw error;
  }
  return {
    spaces,
    clientGateway: CLIENT_GATEWAY,
    kind: 'netns',
    frontend: (number) => `${NET}.0.${number}`,
    client: (number) => `${NET}.1.${number}`,
    backend: (number) => `${NET}.2.${10 + number}`,
    prefix: (role: Role) => spaces.prefix(role),
    close: () => spaces.close(),
  };
}

async function forward(spaces: NamespaceLab): Promise<void> {
  for (const name of ['router', 'balancer', 'backend']) {
    for (const scope of ['all', 'default']) await spaces.sysctl(name, `net.ipv4.conf.${scope}.rp_filter`, 0);
  }
  for (const name of ['router', 'balancer']) {
    await spaces.sysctl(name, 'net.ipv4.ip_forward', 1);
    for (const scope of ['all', 'default']) {
      await spaces.sysctl(name, `net.ipv4.conf.${scope}.send_redirects`, 0);
    }
  }
}

async function wire(spaces: NamespaceLab): Promise<void> {
  await spaces.link(
    { in: 'client', addresses: ['10.78.1.1/30'] },
    { in: 'router', addresses: [`${CLIENT_GATEWAY}/30`] },
  );
  await spaces.ip('client', `route add local ${NET}.1.0/24 dev lo`);
  await spaces.ip('client', `route add default via ${CLIENT_GATEWAY} src ${NET}.1.1`);
  await spaces.ip('router', `route add ${NET}.1.0/24 via 10.78.1.1`);
  await spaces.ip('router', 'link add br0 type bridge');
  await spaces.ip('router', 'link set br0 up');
  await spaces.address('router', 'br0', `${ROUTER}/24`);
  const backends = ['11', '12', '13', '20'].map((host) => `${NET}.2.${host}/24`);
  for (const [name, addresses] of [
    ['balancer', [`${BALANCER}/24`]],
    ['backend', backends],
  ] as const) {
    await spaces.link({ in: name, addresses }, { in: 'router', addresses: [] });
    await spaces.ip('router', `link set ${name} master br0`);
  }
  await spaces.ip('balancer', `route add default via ${ROUTER}`);
  for (const third of [0, 8, 9]) await spaces.ip('router', `route add ${NET}.${third}.0/24 via ${BALANCER}`);
}

async function addFrontends(spaces: NamespaceLab): Promise<void> {
  const lines = Array.from(
    { length: FRONTENDS },
    (_, index) => `address add ${NET}.0.${index + 1}/32 dev lo`,
  );
  await spaces.must('balancer', 'ip', ['-batch', '-'], { input: lines.join('\n') });
  await spaces.sysctl('backend', 'net.ipv4.conf.all.arp_ignore', 1);
  await spaces.sysctl('backend', 'net.ipv4.conf.all.arp_announce', 2);
  await spaces.address('backend', 'lo', `${FLOATING_FRONTEND}/32`);
}

/** NATed flows go back through the balancer, those of nobody or of a floating frontend straight to the client. */
async function routeAnswers(spaces: NamespaceLab): Promise<void> {
  await spaces.ip('backend', `route add default via ${BALANCER}`);
  await spaces.ip('backend', `route add default via ${ROUTER} table 100`);
  for (const from of [`${DIRECT}/32`, `${FLOATING_FRONTEND}/32`]) {
    await spaces.ip('backend', `rule add from ${from} to ${NET}.1.0/24 lookup 100`);
  }
}
