import { isIPv6 } from 'node:net';
import { NamespaceLab } from './namespaces.js';

/*
 * What a balancer in the middle of a network needs to be tried: a router as the fabric, a balancer with one arm, and three
 * backends beside it. Frontends are addresses of nobody: the router sends them to the balancer.
 *
 *   client 10.1.0.2-5 -- 10.1.0.1 router 10.2.0.254 === 10.2.0.1 lb
 *                                                   === 10.2.0.11-13 b1 b2 b3
 *
 * IPv6 the same: fd01::2-5, fd02::1, fd02::11-13, router fd02::254.
 * A device is named after the namespace at its other end: the balancer's one arm is `router`.
 */

export const LAB_FRONTENDS = { 4: ['10.9.0.10', '10.9.0.11'], 6: ['fd09::10', 'fd09::11'] } as const;
export const LAB_CLIENTS = {
  4: ['10.1.0.2', '10.1.0.3', '10.1.0.4', '10.1.0.5'],
  6: ['fd01::2', 'fd01::3', 'fd01::4', 'fd01::5'],
} as const;
export const LAB_BALANCER = { 4: '10.2.0.1', 6: 'fd02::1' } as const;
export const LAB_BACKENDS = {
  4: ['10.2.0.11', '10.2.0.12', '10.2.0.13'],
  6: ['fd02::11', 'fd02::12', 'fd02::13'],
} as const;

export const BACKEND_NAMES = ['b1', 'b2', 'b3'] as const;

const ROUTER = { 4: '10.2.0.254', 6: 'fd02::254' } as const;
const FRONTEND_NETS = { 4: '10.9.0.0/24', 6: 'fd09::/64' } as const;

export interface RouterLabOptions {
  /**
   * How answers come back. `through-balancer`: backends send everything there, for NAT. `direct`: by the router; backends
   * have the frontends on their loopback. @default 'through-balancer'
   */
  readonly answers?: 'through-balancer' | 'direct';
}

/** Makes the namespaces and all routes between them; the balancer's own ruleset is empty. Whoever opens it closes it. */
export async function openRouterLab(options: RouterLabOptions = {}): Promise<NamespaceLab> {
  const isDirect = options.answers === 'direct';
  const lab = await NamespaceLab.create('client', 'router', 'lb', ...BACKEND_NAMES);
  try {
    await forward(lab);
    await wireClient(lab);
    await wireBridge(lab, isDirect ? ROUTER : LAB_BALANCER);
    if (isDirect) await addFrontends(lab);
  } catch (error) {
    await lab.close();
    throw error;
  }
  return lab;
}

/** Before there are devices: they take over what `default` says. */
async function forward(lab: NamespaceLab): Promise<void> {
  for (const name of ['router', 'lb', ...BACKEND_NAMES]) {
    // Packets come and go by ways that a reverse path filter does not expect.
    for (const scope of ['all', 'default']) await lab.sysctl(name, `net.ipv4.conf.${scope}.rp_filter`, 0);
  }
  for (const name of ['router', 'lb']) {
    await lab.sysctl(name, 'net.ipv4.ip_forward', 1);
    await lab.sysctl(name, 'net.ipv6.conf.all.forwarding', 1);
    // With one arm everything leaves by where it came: nobody is to be told a shorter way.
    for (const scope of ['all', 'default'])
      await lab.sysctl(name, `net.ipv4.conf.${scope}.send_redirects`, 0);
  }
}

async function wireClient(lab: NamespaceLab): Promise<void> {
  await lab.link(
    {
      in: 'client',
      addresses: [
        ...LAB_CLIENTS[4].map((text) => `${text}/24`),
        ...LAB_CLIENTS[6].map((text) => `${text}/64`),
      ],
    },
    { in: 'router', addresses: ['10.1.0.1/24', 'fd01::1/64'] },
  );
  await lab.ip('client', 'route add default via 10.1.0.1');
  await lab.ip('client', '-6 route add default via fd01::1');
}

async function wireBridge(lab: NamespaceLab, ofBackends: typeof ROUTER | typeof LAB_BALANCER): Promise<void> {
  await lab.ip('router', 'link add br0 type bridge');
  await lab.ip('router', 'link set br0 up');
  await lab.address('router', 'br0', `${ROUTER[4]}/24`, `${ROUTER[6]}/64`);
  const hosts = [
    { name: 'lb', index: undefined, gateway: ROUTER },
    ...BACKEND_NAMES.map((name, index) => ({ name, index, gateway: ofBackends })),
  ];
  for (const { name, index, gateway: via } of hosts) {
    const own4 = index === undefined ? LAB_BALANCER[4] : LAB_BACKENDS[4][index];
    const own6 = index === undefined ? LAB_BALANCER[6] : LAB_BACKENDS[6][index];
    await lab.link({ in: name, addresses: [`${own4}/24`, `${own6}/64`] }, { in: 'router', addresses: [] });
    await lab.ip('router', `link set ${name} master br0`);
    await lab.ip(name, `route add default via ${via[4]}`);
    await lab.ip(name, `-6 route add default via ${via[6]}`);
  }
  await lab.ip('router', `route add ${FRONTEND_NETS[4]} via ${LAB_BALANCER[4]}`);
  await lab.ip('router', `-6 route add ${FRONTEND_NETS[6]} via ${LAB_BALANCER[6]}`);
}

async function addFrontends(lab: NamespaceLab): Promise<void> {
  for (const name of BACKEND_NAMES) {
    // Else they would answer ARP for the frontends, and take them from the balancer.
    await lab.sysctl(name, 'net.ipv4.conf.all.arp_ignore', 1);
    await lab.sysctl(name, 'net.ipv4.conf.all.arp_announce', 2);
    for (const address of [...LAB_FRONTENDS[4], ...LAB_FRONTENDS[6]]) {
      await lab.address(name, 'lo', `${address}/${isIPv6(address) ? 128 : 32}`);
    }
  }
}
