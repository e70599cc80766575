import { isIPv6 } from 'node:net';
import type { HostPlan, Topology } from './lab.js';

/* The networks of the tests, as data, and the configurations that fit them. A device has the name of its neighbour. */

export type Family = 4 | 6;
export const FAMILIES = [4, 6] as const;
type Addresses = Readonly<Record<Family, string>>;

/** What a configuration has to know of a network. */
export interface Site {
  readonly frontends: Addresses;
  readonly backends: Readonly<Record<string, Addresses>>;
}

const range = (family: Family, net: string, first: number, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${net}${family === 4 ? '.' : '::'}${first + index}`);
const masked = (addresses: readonly string[], masks: Readonly<Record<Family, number>> = { 4: 24, 6: 64 }) =>
  addresses.map((address) => `${address}/${masks[isIPv6(address) ? 6 : 4]}`);
const alone = (addresses: readonly string[]) => masked(addresses, { 4: 32, 6: 128 });
const defaultVia = (via: Addresses): string[] =>
  FAMILIES.map((family) => `-${family} route add default via ${via[family]}`);

/*
 * The hub: a balancer with one arm and its backends, all on the bridge of a router. The router sends the frontends to
 * the balancer, which does not have them itself.
 *
 *   client 10.1.0.2-5 -- 10.1.0.1 router 10.2.0.254 === 10.2.0.1 lb
 *                                                   === 10.2.0.11-13 b1 b2 b3
 *
 * IPv6 the same: fd01::2-5, fd02::1, fd02::11-13, router fd02::254.
 */

export const FRONTENDS = { 4: ['10.9.0.10', '10.9.0.11'], 6: ['fd09::10', 'fd09::11'] } as const;
export const FRONTEND = { 4: FRONTENDS[4][0], 6: FRONTENDS[6][0] } as const;
export const CLIENTS = { 4: range(4, '10.1.0', 2, 4), 6: range(6, 'fd01', 2, 4) } as const;
export const BALANCER = { 4: '10.2.0.1', 6: 'fd02::1' } as const;
export const BACKENDS = ['b1', 'b2', 'b3'] as const;
export const HUB: Site = {
  frontends: FRONTEND,
  backends: Object.fromEntries(BACKENDS.map((name, index) => [name, besideBalancer(11 + index)])),
};
/** The device of the balancer's one arm. */
export const ARM = 'router';

const ROUTER = besideBalancer(254);

function besideBalancer(host: number): Addresses {
  return { 4: `10.2.0.${host}`, 6: `fd02::${host}` };
}

function onBridge(host: number, gateway: Addresses, more: HostPlan = {}): HostPlan {
  return { links: { router: masked(Object.values(besideBalancer(host))) }, ...more, ip: defaultVia(gateway) };
}

/**
 * @param answers how answers go back. `through`: backends send everything to the balancer, for NAT. `direct`: past it;
 *   backends have the frontends on their loopback
 */
export function hub(
  answers: 'through' | 'direct',
): Topology<'client' | 'router' | 'lb' | (typeof BACKENDS)[number]> {
  const frontends = FAMILIES.flatMap((family) => FRONTENDS[family]);
  const lb = onBridge(1, ROUTER, { forwards: true });
  const backend = (host: number): HostPlan =>
    answers === 'through'
      ? onBridge(host, BALANCER)
      : onBridge(host, ROUTER, {
          loopback: alone(frontends),
          // Else they would answer ARP for the frontends, and take them from the balancer.
          sysctls: { 'net.ipv4.conf.all.arp_ignore': 1, 'net.ipv4.conf.all.arp_announce': 2 },
        });
  return {
    client: {
      links: { router: masked([...CLIENTS[4], ...CLIENTS[6]]) },
      ip: defaultVia({ 4: '10.1.0.1', 6: 'fd01::1' }),
    },
    router: {
      links: { client: masked(['10.1.0.1', 'fd01::1']), lb: [], b1: [], b2: [], b3: [] },
      bridge: { over: ['lb', ...BACKENDS], addresses: masked(Object.values(ROUTER)) },
      forwards: true,
      ip: [`-4 route add 10.9.0.0/24 via ${BALANCER[4]}`, `-6 route add fd09::/64 via ${BALANCER[6]}`],
    },
    // While there is no table, packets would run between the router and the balancer.
    lb:
      answers === 'through'
        ? lb
        : {
            ...lb,
            ip: [...lb.ip!, '-4 route add blackhole 10.9.0.0/24', '-6 route add blackhole fd09::/64'],
          },
    b1: backend(11),
    b2: backend(12),
    b3: backend(13),
  };
}

/*
 * Two spokes whose traffic the router sends through the balancer, as user-defined routes do, and three NVAs beside it.
 *
 *   spoke-a 10.10.0.2-5 -- router 10.2.0.254 === 10.2.0.1 lb
 *   spoke-z 10.20.0.2-5 --                   === 10.2.0.11-13 n1 n2 n3
 */

export const SPOKE_NAMES = ['spoke-a', 'spoke-z'] as const;
export type Spoke = (typeof SPOKE_NAMES)[number];
export const SPOKES = {
  'spoke-a': { 4: range(4, '10.10.0', 2, 4), 6: range(6, 'fd10', 2, 4) },
  'spoke-z': { 4: range(4, '10.20.0', 2, 4), 6: range(6, 'fd20', 2, 4) },
} as const;
/** The address that the kernel chooses for answers from a wildcard UDP socket: the first of IPv4, the last of IPv6. */
export const SERVERS = {
  'spoke-a': { 4: '10.10.0.2', 6: 'fd10::5' },
  'spoke-z': { 4: '10.20.0.2', 6: 'fd20::5' },
} as const;
export const SPOKE_BLOCKS = ['10.10.0.0/16', '10.20.0.0/16', 'fd10::/64', 'fd20::/64'] as const;
export const NVAS = ['n1', 'n2', 'n3'] as const;
/** All that goes anywhere, by way of the NVAs. */
export const BEYOND: Site = {
  frontends: { 4: '0.0.0.0', 6: '::' },
  backends: Object.fromEntries(NVAS.map((name, index) => [name, besideBalancer(11 + index)])),
};

/** @param onward where NVAs send packets on: past the balancer, or back through it */
export function spokes(
  onward: 'past' | 'through',
): Topology<Spoke | 'router' | 'lb' | (typeof NVAS)[number]> {
  const nva = (host: number): HostPlan =>
    onBridge(host, onward === 'past' ? ROUTER : BALANCER, {
      forwards: true,
      sysctls: { 'net.netfilter.nf_conntrack_tcp_loose': 0 },
    });
  const spoke = (name: Spoke, net: number): HostPlan => ({
    links: { router: masked([...SPOKES[name][4], ...SPOKES[name][6]]) },
    ip: defaultVia({ 4: `10.${net}.0.1`, 6: `fd${net}::1` }),
  });
  return {
    'spoke-a': spoke('spoke-a', 10),
    'spoke-z': spoke('spoke-z', 20),
    router: {
      links: {
        'spoke-a': masked(['10.10.0.1', 'fd10::1']),
        'spoke-z': masked(['10.20.0.1', 'fd20::1']),
        ...{ lb: [], n1: [], n2: [], n3: [] },
      },
      bridge: { over: ['lb', ...NVAS], addresses: masked(Object.values(ROUTER)) },
      forwards: true,
      // What comes from a spoke goes to the balancer, local traffic of the hub does not.
      ip: FAMILIES.flatMap((family) => [
        ...SPOKE_NAMES.map((name) => `-${family} rule add pref 100 iif ${name} lookup 100`),
        `-${family} route add default via ${BALANCER[family]} table 100`,
      ]),
    },
    lb: onBridge(1, ROUTER, { forwards: true }),
    n1: nva(11),
    n2: nva(12),
    n3: nva(13),
  };
}

/*
 * The edge: frontends are addresses of the balancer's own loopback, to which clients have a route.
 *
 *   c1 (10.50.1.2) --+
 *                    +-- lb (10.50.0.9, 10.50.0.10, fd00:50::9) -- be (10.50.3.11-13, fd00:50:3::11-13)
 *   c2 (10.50.2.2) --+
 */

export const EDGE_CLIENTS = ['c1', 'c2'] as const;
export const EDGE_CLIENT = {
  c1: { 4: '10.50.1.2', 6: 'fd00:50:1::2' },
  c2: { 4: '10.50.2.2', 6: 'fd00:50:2::2' },
} as const;
export const EDGE_FRONTEND = { 4: '10.50.0.9', 6: 'fd00:50::9' } as const;
export const EDGE_SPARE_FRONTEND = '10.50.0.10';
export const EDGE_METRICS = `${EDGE_FRONTEND[4]}:9902`;
export const EDGE_BACKENDS = {
  4: range(4, '10.50.3', 11, 3),
  6: range(6, 'fd00:50:3', 11, 3),
} as const;
export const EDGE: Site = {
  frontends: EDGE_FRONTEND,
  backends: Object.fromEntries(
    EDGE_BACKENDS[4].map((address, index) => [`v${index + 1}`, { 4: address, 6: EDGE_BACKENDS[6][index]! }]),
  ),
};

export function edge(): Topology<(typeof EDGE_CLIENTS)[number] | 'lb' | 'be'> {
  const gateway = (net: number): Addresses => ({ 4: `10.50.${net}.1`, 6: `fd00:50:${net}::1` });
  const client = (name: (typeof EDGE_CLIENTS)[number], net: number): HostPlan => ({
    links: { lb: masked(Object.values(EDGE_CLIENT[name])) },
    ip: defaultVia(gateway(net)),
  });
  return {
    c1: client('c1', 1),
    c2: client('c2', 2),
    lb: {
      links: {
        c1: masked(Object.values(gateway(1))),
        c2: masked(Object.values(gateway(2))),
        be: masked(Object.values(gateway(3))),
      },
      loopback: alone([...Object.values(EDGE_FRONTEND), EDGE_SPARE_FRONTEND]),
    },
    be: {
      links: { lb: masked([...EDGE_BACKENDS[4], ...EDGE_BACKENDS[6]]) },
      ip: defaultVia(gateway(3)),
    },
  };
}

export interface ConfigurationPlan {
  /** @default IPv4 alone */
  readonly families?: readonly Family[];
  readonly dataPlane?: object;
  /** Names of the backends of the pool. @default all of the site */
  readonly backends?: readonly string[];
  /** By name, what a backend has besides name and address. */
  readonly backend?: Readonly<Record<string, object>>;
  /** What each frontend, and each rule, has besides. */
  readonly frontend?: object;
  readonly rule?: object;
  /** Of the probe `alive`, which all rules have then. */
  readonly probe?: object;
  readonly top?: object;
}

/** A rule for all ports of each family: `all4` from frontend `hub4` to pool `v4`. */
export function configurationFor(site: Site, plan: ConfigurationPlan = {}) {
  const { families = [4], backends = Object.keys(site.backends), probe } = plan;
  return {
    dataPlane: plan.dataPlane,
    frontends: families.map((family) => ({
      name: `hub${family}`,
      address: site.frontends[family],
      ...plan.frontend,
    })),
    probes: probe === undefined ? [] : [{ name: 'alive', ...probe }],
    backendPools: families.map((family) => ({
      name: `v${family}`,
      backends: backends.map((name) => ({
        name,
        address: site.backends[name]?.[family] ?? besideBalancer(10 + Number(name.slice(1)))[family],
        ...plan.backend?.[name],
      })),
    })),
    rules: families.map((family) => ({
      name: `all${family}`,
      frontend: `hub${family}`,
      backendPool: `v${family}`,
      haPorts: true,
      ...(probe === undefined ? {} : { probe: 'alive' }),
      ...plan.rule,
    })),
    ...plan.top,
  };
}

/** The edge with capture. Metrics are on the frontend's own address, which must stay reachable. */
export function captureConfiguration(capture: object = {}, plan: ConfigurationPlan = {}) {
  return configurationFor(EDGE, {
    ...plan,
    dataPlane: { kind: 'userspace', workers: 1, capture, ...plan.dataPlane },
    top: { metrics: { listen: EDGE_METRICS }, shutdown: { deadline: '1s' }, ...plan.top },
  });
}
