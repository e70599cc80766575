import { Lab as Namespaces, type Topology } from '../../test/support/lab.js';
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

type HostName = Role | 'router';

export interface KernelLab extends Lab {
  readonly hosts: Namespaces<HostName>['hosts'];
  /** The router, as the client reaches it. */
  readonly clientGateway: string;
}

/** Four network namespaces in which all peers can be measured side by side. Needs root. */
export async function openKernelLab(): Promise<KernelLab> {
  const namespaces = new Namespaces(TOPOLOGY);
  await namespaces.open();
  return {
    hosts: namespaces.hosts,
    clientGateway: CLIENT_GATEWAY,
    kind: 'netns',
    frontend: (number) => `${NET}.0.${number}`,
    client: (number) => `${NET}.1.${number}`,
    backend: (number) => `${NET}.2.${10 + number}`,
    prefix: (role: Role) => namespaces.host(role).prefix,
    close: () => namespaces.close(),
  };
}

const TOPOLOGY: Topology<HostName> = {
  client: {
    links: { router: ['10.78.1.1/30'] },
    ip: [`route add local ${NET}.1.0/24 dev lo`, `route add default via ${CLIENT_GATEWAY} src ${NET}.1.1`],
  },
  router: {
    links: { client: [`${CLIENT_GATEWAY}/30`], balancer: [], backend: [] },
    bridge: { over: ['balancer', 'backend'], addresses: [`${ROUTER}/24`] },
    forwards: true,
    ip: [
      `route add ${NET}.1.0/24 via 10.78.1.1`,
      ...[0, 8, 9].map((third) => `route add ${NET}.${third}.0/24 via ${BALANCER}`),
    ],
  },
  balancer: {
    links: { router: [`${BALANCER}/24`] },
    loopback: Array.from({ length: FRONTENDS }, (_, index) => `${NET}.0.${index + 1}/32`),
    forwards: true,
    ip: [`route add default via ${ROUTER}`],
  },
  backend: {
    links: { router: ['11', '12', '13', '20'].map((host) => `${NET}.2.${host}/24`) },
    loopback: [`${FLOATING_FRONTEND}/32`],
    sysctls: { 'net.ipv4.conf.all.arp_ignore': 1, 'net.ipv4.conf.all.arp_announce': 2 },
    // NATed flows go back through the balancer, those of no other or of a floating frontend straight to the client.
    ip: [
      `route add default via ${BALANCER}`,
      `route add default via ${ROUTER} table 100`,
      ...[DIRECT, FLOATING_FRONTEND].map((from) => `rule add from ${from}/32 to ${NET}.1.0/24 lookup 100`),
    ],
  },
};
