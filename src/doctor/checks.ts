import { formatEndpoint, isWildcard, type IpAddress } from '../model/address.js';
import type { Backend, BackendPool, Configuration, Frontend, Probe } from '../model/configuration.js';
import {
  OUT_OF_TIME,
  examineHost,
  fine,
  ipRecords,
  isAlive,
  mayAdminister,
  note,
  problem,
  warning,
  withinTime,
  type DoctorFinding,
  type DoctorMachine,
  type DoctorSection,
  type ConnectOutcome,
} from './machine.js';
import {
  withForeignAddress,
  connectFromForeignAddress,
  connectThrough,
  pathMtuFinding,
  removeLeftovers,
} from './paths.js';

export interface DoctorReport {
  /** No problem was found. */
  readonly healthy: boolean;
  readonly sections: readonly DoctorSection[];
}

/** For all backends together: each takes some six seconds at most, all at a time. */
const LIMIT_MS = 20_000;

/** Examines this machine and the paths to all backends, side by side. Never rejects. */
export async function examine(
  unbounded: DoctorMachine,
  configuration: Configuration,
  options: BackendOptions,
): Promise<DoctorReport> {
  const machine = withinTime(unbounded, LIMIT_MS);
  const isKernel = configuration.kernel !== undefined;
  const paths =
    isKernel && options.paths === 'tried' && (await mayAdminister(machine)) ? 'tried' : 'not-tried';
  const [host, frontends, backends, needed] = await Promise.all([
    examineHost(machine, configuration),
    examineFrontends(machine, configuration),
    backendSections(machine, configuration, { ...options, paths }),
    needs(machine, configuration),
  ]);
  const missing =
    isKernel && paths === 'not-tried'
      ? [note('Paths were not tried: that changes routes for a moment and needs CAP_NET_ADMIN')]
      : [];
  const sections = [
    { title: 'This machine', findings: [...host, ...missing] },
    ...frontends,
    ...backends,
    ...needed,
  ];
  const healthy = !sections.some(({ findings }) => findings.some(({ level }) => level === 'problem'));
  return { healthy, sections };
}

async function backendSections(
  machine: DoctorMachine,
  configuration: Configuration,
  options: BackendOptions,
): Promise<readonly DoctorSection[]> {
  const look = (): Promise<readonly DoctorSection[]> => examineBackends(machine, configuration, options);
  if (options.paths === 'not-tried') return look();
  await removeLeftovers(machine);
  if (configuration.kernel?.mode !== 'nat') return look();
  return withForeignAddress(machine, 4, () => withForeignAddress(machine, 6, look));
}

/** What backends must have, whether they have it or not. */
async function needs(machine: DoctorMachine, configuration: Configuration): Promise<DoctorSection[]> {
  const sections = configuration.backendPools.map(async (pool): Promise<DoctorSection> => {
    const findings = [
      ...floatingNeeds(configuration, pool),
      ...(await probeNeeds(machine, configuration, pool)),
    ];
    return { title: `What each backend of pool ${pool.name} needs`, findings };
  });
  return (await Promise.all(sections)).filter(({ findings }) => findings.length > 0);
}

function floatingNeeds(configuration: Configuration, pool: BackendPool): DoctorFinding[] {
  const mode = configuration.kernel?.mode;
  if (mode !== 'floating-l2' && mode !== 'floating-routed') return [];
  const addresses = frontendsOf(configuration, pool).map(({ address }) => address);
  if (addresses.length === 0) return [];
  return [
    note(
      "The frontend's address on its loopback, not announced, and no reverse path filter",
      ...floatingAdvice(addresses),
    ),
  ];
}

async function probeNeeds(
  machine: DoctorMachine,
  configuration: Configuration,
  pool: BackendPool,
): Promise<DoctorFinding[]> {
  const probes = probesOf(configuration, pool);
  const [backend] = pool.backends;
  if (backend === undefined || probes.length === 0) return [];
  const route = await routeTo(machine, backend.address);
  const source = probeSource(probes, route?.source);
  if (source === undefined) return [];
  const device = route?.device === undefined ? '' : ` on ${route.device}`;
  const text = `Probes come from ${source}${device}: its firewall must let them in, and its answers must leave by the interface they came in`;
  return [note(text, ...probeAdvice(backend, probes, source))];
}

export interface BackendOptions {
  /** TCP port that is tried. @default the probe's, or the rule's first, or 80 */
  readonly port?: number;
  /** Whether routes may be changed for a moment. */
  readonly paths: 'tried' | 'not-tried';
}

/** Each backend: whether it is alive, whether flows reach it, and whether their answers come back. */
async function examineBackends(
  machine: DoctorMachine,
  configuration: Configuration,
  options: BackendOptions,
): Promise<readonly DoctorSection[]> {
  const wanted = configuration.backendPools.flatMap((pool) =>
    pool.backends.map((backend) => ({ pool, backend })),
  );
  const mtu = await arrivingMtu(machine, configuration);
  return Promise.all(
    wanted.map(async ({ pool, backend }, index) => ({
      title: `Backend ${pool.name}/${backend.name}, ${backend.address.text}`,
      findings: await examineBackend(machine, { configuration, pool, backend, options, index, mtu }),
    })),
  );
}

interface OneBackend {
  readonly configuration: Configuration;
  readonly pool: BackendPool;
  readonly backend: Backend;
  readonly options: BackendOptions;
  /** Of all backends. */
  readonly index: number;
  /** Of the interface where flows arrive. */
  readonly mtu: number | undefined;
}

async function examineBackend(machine: DoctorMachine, one: OneBackend): Promise<DoctorFinding[]> {
  const { configuration, pool, backend } = one;
  const { address } = backend;
  const port = portOf(one);
  const route = await routeTo(machine, address);
  const direct = machine.connect({ to: address, port });
  const probes = probesOf(configuration, pool);
  const firewall = probeAdvice(backend, probes, route?.source);
  const [answer, path, flowPath] = await Promise.all([
    direct,
    mtuFindings(machine, one, route),
    pathFindings(machine, one, { direct, port, route }),
  ]);
  return [
    directFinding(one, answer, firewall),
    // Only now a neighbour has been asked for its address.
    ...(await routeFindings(machine, one, route)),
    // Of one that is down nothing can be measured.
    ...path.filter(({ level }) => isAlive(answer) || level !== 'note'),
    ...flowPath,
  ];
}

/** Of the path beyond this machine. */
async function mtuFindings(
  machine: DoctorMachine,
  { configuration: { kernel }, backend, mtu }: OneBackend,
  route: RouteFacts | undefined,
): Promise<DoctorFinding[]> {
  if (kernel === undefined || route?.device === undefined || route.type === 'local') return [];
  const out = await mtuOf(machine, route.device);
  if (out === undefined) return [];
  const answers = kernel.mode === 'floating-l2' || kernel.mode === 'floating-routed' ? 'past' : 'through';
  return [await pathMtuFinding(machine, { to: backend.address, mtu: Math.min(out, mtu ?? out), answers })];
}

function portOf({ configuration, pool, options }: OneBackend): number {
  const [probe] = probesOf(configuration, pool);
  const rule = configuration.rules.find((one) => one.pool.name === pool.name && !one.haPorts);
  const [range] = rule?.ports ?? [];
  return options.port ?? probe?.port ?? (range === undefined ? 80 : range.first + (rule?.portOffset ?? 0));
}

function directFinding(one: OneBackend, direct: ConnectOutcome, firewall: readonly string[]): DoctorFinding {
  const at = formatEndpoint(one.backend.address, portOf(one));
  if (direct === 'connected') return fine(`Alive: ${at} accepts connections`);
  if (direct === 'refused') return note(`Alive, but nothing listens on ${at}`);
  if (direct === OUT_OF_TIME) return note(`Not tried: ${direct}. Try fewer backends`);
  return problem(`No answer from ${at} (${direct}): it is down, or a firewall is in the way`, ...firewall);
}

async function routeFindings(
  machine: DoctorMachine,
  { configuration: { kernel }, backend, mtu }: OneBackend,
  route: RouteFacts | undefined,
): Promise<DoctorFinding[]> {
  if (kernel === undefined) return [];
  if (route === undefined) return [problem('This machine has no route to it')];
  const { device, gateway } = route;
  if (device === undefined || route.type === 'local') return [];
  const findings: DoctorFinding[] = [];
  if (kernel.mode !== 'nat') {
    if (gateway !== undefined) {
      findings.push(
        problem(
          `It is behind the gateway ${gateway}: with mode ${kernel.mode} it must be a neighbour of this machine`,
        ),
      );
    } else if ((await neighbourOf(machine, backend.address, device)) === undefined) {
      findings.push(
        problem(
          `No host on ${device} has its address (${backend.address.family === 4 ? 'ARP' : 'neighbour discovery'} gets no answer)`,
        ),
      );
    }
  }
  if (kernel.mode === 'floating-l2' && kernel.interface !== undefined && device !== kernel.interface) {
    findings.push(problem(`It is on ${device}, and packets are sent out of ${kernel.interface} only`));
  }
  const out = await mtuOf(machine, device);
  if (mtu !== undefined && out !== undefined && out < mtu) {
    findings.push(
      warning(
        `The path to it takes packets of ${out} bytes, and up to ${mtu} bytes arrive: larger ones are lost or fragmented`,
        `ip link set dev ${device} mtu ${mtu}`,
      ),
    );
  }
  return findings;
}

/** What only shows on the path that flows take. */
async function pathFindings(
  machine: DoctorMachine,
  one: OneBackend,
  seen: {
    readonly direct: Promise<ConnectOutcome>;
    readonly port: number;
    readonly route: RouteFacts | undefined;
  },
): Promise<DoctorFinding[]> {
  const { kernel } = one.configuration;
  if (one.options.paths === 'not-tried' || kernel === undefined) return [];
  if (kernel.mode === 'nat') return kernel.returnPath === 'route' ? returnFindings(machine, one, seen) : [];
  if (kernel.mode === 'next-hop' || seen.route?.gateway !== undefined) return [];
  const frontends = frontendsOf(one.configuration, one.pool).filter(
    ({ address }) => address.family === one.backend.address.family,
  );
  return Promise.all(frontends.map((frontend) => throughFinding(machine, one, frontend, seen)));
}

async function throughFinding(
  machine: DoctorMachine,
  one: OneBackend,
  { address, name }: Frontend,
  { direct, port }: { readonly direct: Promise<ConnectOutcome>; readonly port: number },
): Promise<DoctorFinding> {
  const at = formatEndpoint(address, port);
  if ((await routeTo(machine, address))?.type === 'local') {
    return note(`The path through ${address.text} cannot be tried from here, where that address is local`);
  }
  const { backend, index } = one;
  const answer = await connectThrough(machine, { frontend: address, backend: backend.address, port, index });
  if (isAlive(answer)) return fine(`It answers as ${at} (${answer}): floating IP works`);
  if (answer === OUT_OF_TIME) return note(`Whether it answers as ${at} was not tried: ${answer}`);
  if (!isAlive(await direct)) return note(`Nor does it answer as ${at} (${answer})`);
  return problem(
    `It is alive, but does not answer as ${at} (${answer}): it has no loopback alias for frontend "${name}", or drops the packets by its reverse path filter or firewall`,
    ...floatingAdvice([address]),
  );
}

async function returnFindings(
  machine: DoctorMachine,
  { backend }: OneBackend,
  { direct, port }: { readonly direct: Promise<ConnectOutcome>; readonly port: number },
): Promise<DoctorFinding[]> {
  const [answer, own] = await Promise.all([
    connectFromForeignAddress(machine, { backend: backend.address, port }),
    direct,
  ]);
  if (!isAlive(own) || answer === OUT_OF_TIME) return [];
  if (isAlive(answer)) return [fine('It routes answers to clients elsewhere back through this machine')];
  return [
    problem(
      `It answers this machine, but its answers to clients elsewhere do not come back here (${answer})`,
      `on it: ip -${backend.address.family} route replace default via <this machine>, or a route to the clients' networks`,
      'or here: dataPlane.kernel.returnPath "masquerade", which hides the client',
    ),
  ];
}

async function arrivingMtu(machine: DoctorMachine, { kernel }: Configuration): Promise<number | undefined> {
  return kernel?.interface === undefined ? undefined : mtuOf(machine, kernel.interface);
}

async function mtuOf(machine: DoctorMachine, device: string): Promise<number | undefined> {
  const [link] = ipRecords(await machine.run('ip', ['-j', 'link', 'show', 'dev', device]));
  const mtu = link?.['mtu'];
  return typeof mtu === 'number' ? mtu : undefined;
}

/** How this machine would send a packet to an address; undefined: it has no route. */
interface RouteFacts {
  /** `local`, `unicast`, and so on. */
  readonly type: string;
  readonly device?: string;
  readonly gateway?: string;
  readonly source?: string;
}

async function routeTo(machine: DoctorMachine, address: IpAddress): Promise<RouteFacts | undefined> {
  const [family, text] = [`-${address.family}`, address.text.split('%', 1)[0] ?? ''];
  const [record] = ipRecords(await machine.run('ip', ['-j', family, 'route', 'get', text]));
  if (record === undefined) return undefined;
  const { type, dev, gateway, prefsrc } = record;
  return {
    type: typeof type === 'string' ? type : 'unicast',
    device: textOf(dev),
    gateway: textOf(gateway),
    source: textOf(prefsrc),
  };
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** Whether the addresses that flows arrive at are where the mode needs them. */
async function examineFrontends(
  machine: DoctorMachine,
  configuration: Configuration,
): Promise<readonly DoctorSection[]> {
  if (configuration.kernel === undefined) return [];
  return Promise.all(
    configuration.frontends.map(async (frontend) => ({
      title: `Frontend ${frontend.name}, ${frontend.address.text}`,
      findings: await examineFrontend(machine, configuration, frontend),
    })),
  );
}

async function examineFrontend(
  machine: DoctorMachine,
  { kernel }: Configuration,
  { address }: Frontend,
): Promise<DoctorFinding[]> {
  if (isWildcard(address)) {
    return [
      fine(kernel?.mode === 'next-hop' ? 'Stands for destinations beyond' : 'All addresses of this machine'),
    ];
  }
  const route = await routeTo(machine, address);
  if (route?.type === 'local') return local(kernel?.mode, address);
  const prefix = address.family === 4 ? 32 : 128;
  const unreachable = `ip -${address.family} route add unreachable ${address.text}/${prefix}`;
  const guard = note(
    'While haports is not in the kernel, packets to it would be routed on, perhaps in a loop',
    unreachable,
  );
  if (route === undefined) return [fine('Not an address of this machine, and routed nowhere else')];
  if (route.gateway === undefined && route.device !== undefined)
    return [...(await onLink(machine, address, route.device)), guard];
  return [fine(`Not an address of this machine: it must be routed here by the network`), guard];
}

function local(mode: string | undefined, address: IpAddress): DoctorFinding[] {
  if (mode !== 'floating-routed') return [fine('An address of this machine')];
  return [
    problem(
      'It is an address of this machine, which keeps its packets instead of routing them to a backend',
      `ip address del ${address.text}, and have it routed here`,
    ),
  ];
}

/** In a network of this machine it is not routed here: some host must answer ARP for it, and not a backend. */
async function onLink(machine: DoctorMachine, address: IpAddress, device: string): Promise<DoctorFinding[]> {
  const owner = await neighbourOf(machine, address, device);
  const text = `It is in a network of ${device}, and not this machine's`;
  if (owner === undefined) {
    return [
      note(`${text}: no client there finds it`, `route it here, or let ${device} have it (floating-l2, nat)`),
    ];
  }
  return [
    warning(
      `${text}: ${owner} answers for it, past the balancer`,
      'on a backend: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2',
    ),
  ];
}

/** The MAC address that a neighbour has told; undefined: none. */
async function neighbourOf(
  machine: DoctorMachine,
  address: IpAddress,
  device: string,
): Promise<string | undefined> {
  const text = address.text.split('%', 1)[0] ?? '';
  const args = ['-j', `-${address.family}`, 'neigh', 'show', 'to', text, 'dev', device];
  const found = ipRecords(await machine.run('ip', args)).find(({ lladdr }) => typeof lladdr === 'string');
  return found === undefined ? undefined : String(found['lladdr']);
}

/** The frontends whose flows a pool gets. */
function frontendsOf({ frontends, rules }: Configuration, pool: BackendPool): readonly Frontend[] {
  return frontends.filter((frontend) =>
    rules.some((rule) => rule.frontend === frontend && rule.pool === pool),
  );
}

/** The probes that ask backends of a pool. */
function probesOf({ probes, rules }: Configuration, pool: BackendPool): readonly Probe[] {
  return probes.filter((probe) => rules.some((rule) => rule.probe === probe && rule.pool === pool));
}

/** With floating IP a backend owns the frontend's address, does not announce it, and accepts packets that arrive for it. */
function floatingAdvice(addresses: readonly IpAddress[]): readonly string[] {
  const isIpv4 = addresses.some(({ family }) => family === 4);
  return [
    ...addresses.map(({ family, text }) =>
      family === 4 ? `ip address add ${text}/32 dev lo` : `ip address add ${text}/128 dev lo nodad`,
    ),
    ...(isIpv4
      ? [
          'sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2',
          'sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0    # eth0: where packets arrive',
        ]
      : []),
  ];
}

/** What a firewall on the backend must let in so that probes get an answer. */
function probeAdvice(
  { address }: Backend,
  probes: readonly Probe[],
  routeSource: string | undefined,
): readonly string[] {
  const ports = [...new Set(probes.map(({ port }) => port))];
  const source = probeSource(probes, routeSource);
  if (ports.length === 0 || source === undefined) return [];
  const family = address.family === 4 ? 'ip' : 'ip6';
  return [
    `nft add rule inet filter input ${family} saddr ${source} tcp dport { ${ports.join(', ')} } accept`,
  ];
}

function probeSource(probes: readonly Probe[], routeSource: string | undefined): string | undefined {
  return probes.find(({ sourceAddress }) => sourceAddress !== undefined)?.sourceAddress?.text ?? routeSource;
}
