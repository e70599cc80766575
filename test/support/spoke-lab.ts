import assert from 'node:assert/strict';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { deltaText, replaceTableText, type KernelSetup } from '../../src/planes/netfilter/setup.js';
import { addRouting, deleteRouting, without, type RoutingEntry } from '../../src/planes/netfilter/routing.js';
import { systemTools } from '../../src/planes/netfilter/tools.js';
import { within } from './deadline.js';
import { LabClient, type ClientFlow } from './nat-lab.js';
import { NamespaceLab } from './namespaces.js';

/*
 * Two spokes whose traffic the router sends through the balancer, as user-defined routes do, and three NVAs beside it.
 *
 *   spoke-a 10.10.0.2-5 -- router 10.2.0.254 == 10.2.0.1 lb
 *   spoke-z 10.20.0.2-5 --                   == 10.2.0.11-13 n1 n2 n3
 *
 * NVAs are firewalls with state: they pass only what belongs to a flow whose first packet they have seen.
 */

export const SPOKES = {
  'spoke-a': {
    4: ['10.10.0.2', '10.10.0.3', '10.10.0.4', '10.10.0.5'],
    6: ['fd10::2', 'fd10::3', 'fd10::4', 'fd10::5'],
  },
  'spoke-z': {
    4: ['10.20.0.2', '10.20.0.3', '10.20.0.4', '10.20.0.5'],
    6: ['fd20::2', 'fd20::3', 'fd20::4', 'fd20::5'],
  },
} as const;
/** The address that the kernel chooses for answers from a wildcard UDP socket: the first of IPv4, the last of IPv6. */
export const SERVERS = {
  'spoke-a': { 4: '10.10.0.2', 6: 'fd10::5' },
  'spoke-z': { 4: '10.20.0.2', 6: 'fd20::5' },
} as const;
export type Spoke = keyof typeof SPOKES;
export const SPOKE_NAMES: readonly Spoke[] = ['spoke-a', 'spoke-z'];
export const SPOKE_BLOCKS = ['10.10.0.0/16', '10.20.0.0/16', 'fd10::/64', 'fd20::/64'] as const;
export const NVAS = ['n1', 'n2', 'n3'] as const;
export const NVA_HOSTS = { 4: '10.2.0.1', 6: 'fd02::1' } as const;
export const SERVER_PORTS = [80, 443, 5060, 8080, 8443] as const;
/** NVAs let it pass, and no server is there. */
export const CLOSED_PORT = 9;
/** NVAs answer here, as to a probe. */
export const PROBE_PORT = 9000;

const BACKEND_MAIN = fileURLToPath(new URL('./nat-backend-main.js', import.meta.url));
const CLIENT_MAIN = fileURLToPath(new URL('./nat-client-main.js', import.meta.url));

const FIREWALL = `table inet firewall
delete table inet firewall
table inet firewall {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    tcp flags & (fin | syn | rst | ack) == syn accept
    udp dport { ${SERVER_PORTS.join(', ')}, ${CLOSED_PORT} } accept
    icmp type echo-request accept
    icmpv6 type echo-request accept
    ip saddr 10.10.0.0/16 meta l4proto { 47, 50 } accept
  }
}
`;

/** Where NVAs send packets on: past the balancer, or back through it. */
export type NvaRoute = 'past' | 'through';

/** Whoever creates it closes it. */
export class SpokeLab {
  readonly namespaces: NamespaceLab;
  #setup: KernelSetup | undefined;
  #routing: readonly RoutingEntry[] = [];

  private constructor(namespaces: NamespaceLab) {
    this.namespaces = namespaces;
  }

  static async create(route: NvaRoute = 'past'): Promise<SpokeLab> {
    const lab = await NamespaceLab.create('spoke-a', 'spoke-z', 'router', 'lb', ...NVAS);
    try {
      await wire(lab, route);
      await Promise.all([
        ...SPOKE_NAMES.map((name) => serve(lab, name, SERVER_PORTS)),
        ...NVAS.map((name) => serve(lab, name, [PROBE_PORT])),
      ]);
      const made = new SpokeLab(lab);
      await made.firewalls('stateful');
      return made;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  client(where: Spoke | 'lb'): LabClient {
    return new LabClient(
      this.namespaces.spawn(where, process.execPath, [CLIENT_MAIN], { stdio: ['pipe', 'pipe', 'inherit'] }),
    );
  }

  /** Puts a setup in place, by the difference to the one before where that is possible. */
  async load(setup: KernelSetup): Promise<void> {
    const tools = systemTools({ namespace: this.namespaces.full('lb') });
    const delta = this.#setup === undefined ? undefined : deltaText(this.#setup, setup);
    await addRouting(tools, without(setup.routing, this.#routing));
    await this.namespaces.nft('lb', delta ?? replaceTableText(setup));
    const failure = await deleteRouting(tools, without(this.#routing, setup.routing));
    if (failure !== undefined) throw failure;
    this.#setup = setup;
    this.#routing = setup.routing;
  }

  async firewalls(kind: 'stateful' | 'stateless'): Promise<void> {
    for (const name of NVAS) {
      await this.namespaces.nft(name, kind === 'stateful' ? FIREWALL : 'flush ruleset');
    }
  }

  /** Forgets all flows, everywhere. */
  async forget(): Promise<void> {
    await Promise.all(['lb', ...NVAS].map((name) => this.namespaces.run(name, 'conntrack', ['-F'])));
  }

  /** By `protocol source sourcePort destination port` as its client has it: the NVAs that have seen both directions. */
  async crossed(): Promise<ReadonlyMap<string, readonly string[]>> {
    const seen = new Map<string, string[]>();
    for (const name of NVAS) {
      for (const family of ['ipv4', 'ipv6']) {
        const { stdout } = await this.namespaces.run(name, 'conntrack', ['-L', '-f', family]);
        for (const line of stdout.split('\n')) {
          const found = /^(tcp|udp) .*?src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/.exec(line);
          if (found === null || line.includes('[UNREPLIED]')) continue;
          const key = found.slice(1).join(' ');
          seen.set(key, [...(seen.get(key) ?? []), name]);
        }
      }
    }
    return seen;
  }

  async close(): Promise<void> {
    await this.namespaces.close();
  }
}

/** As `crossed` has it. */
export function crossingOf({ protocol, source = '', host, sourcePort = 0, port }: ClientFlow): string {
  return [protocol, source, host, sourcePort, port].join(' ');
}

async function wire(lab: NamespaceLab, route: NvaRoute): Promise<void> {
  for (const [spoke, net] of [
    ['spoke-a', '10'],
    ['spoke-z', '20'],
  ] as const) {
    const addresses = [
      ...SPOKES[spoke][4].map((text) => `${text}/24`),
      ...SPOKES[spoke][6].map((text) => `${text}/64`),
    ];
    await lab.link(
      { in: spoke, addresses },
      { in: 'router', addresses: [`10.${net}.0.1/24`, `fd${net}::1/64`] },
    );
    await lab.ip(spoke, `-4 route add default via 10.${net}.0.1`);
    await lab.ip(spoke, `-6 route add default via fd${net}::1`);
    await lab.sysctl(spoke, 'net.ipv4.icmp_ratelimit', 0);
    await lab.sysctl(spoke, 'net.ipv6.icmp.ratelimit', 0);
  }
  await lab.ip('router', 'link add br0 type bridge');
  await lab.ip('router', 'link set br0 up');
  await lab.address('router', 'br0', '10.2.0.254/24', 'fd02::254/64');
  const hosts = { lb: '1', n1: '11', n2: '12', n3: '13' };
  for (const [name, host] of Object.entries(hosts)) {
    await lab.link(
      { in: name, addresses: [`10.2.0.${host}/24`, `fd02::${host}/64`] },
      { in: 'router', addresses: [] },
    );
    await lab.ip('router', `link set ${name} master br0`);
    const gateway = name === 'lb' || route === 'past' ? '254' : '1';
    await lab.ip(name, `-4 route add default via 10.2.0.${gateway}`);
    await lab.ip(name, `-6 route add default via fd02::${gateway}`);
  }
  for (const name of ['router', 'lb', ...NVAS]) {
    await lab.sysctl(name, 'net.ipv4.ip_forward', 1);
    await lab.sysctl(name, 'net.ipv6.conf.all.forwarding', 1);
    for (const device of name === 'router'
      ? ['all', 'default', 'br0', 'spoke-a', 'spoke-z']
      : ['all', 'default', 'router']) {
      await lab.sysctl(name, `net.ipv4.conf.${device}.rp_filter`, 0);
      await lab.sysctl(name, `net.ipv4.conf.${device}.send_redirects`, 0);
    }
  }
  for (const name of NVAS) await lab.sysctl(name, 'net.netfilter.nf_conntrack_tcp_loose', 0);
  for (const family of ['4', '6']) {
    // The routes of the spokes: whatever comes from one goes to the balancer, local traffic of the hub does not.
    for (const spoke of SPOKE_NAMES)
      await lab.ip('router', `-${family} rule add pref 100 iif ${spoke} lookup 100`);
    await lab.ip(
      'router',
      `-${family} route add default via ${family === '4' ? '10.2.0.1' : 'fd02::1'} table 100`,
    );
  }
}

async function serve(lab: NamespaceLab, name: string, ports: readonly number[]): Promise<void> {
  const args = [BACKEND_MAIN, name, ...ports.map(String)];
  const child = lab.spawn(name, process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  assert.ok(child.stdout);
  await within(once(child.stdout, 'data'), 20_000, `${name} to listen`);
}
