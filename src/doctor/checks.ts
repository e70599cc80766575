import { formatEndpoint, isWildcard, type IpAddress } from '../model/address.js';
import type {
  Backend,
  BackendPool,
  Configuration,
  Frontend,
  KernelOptions,
  Probe,
} from '../model/configuration.js';
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
  type ConnectOutcome,
  type DoctorFinding,
  type DoctorMachine,
  type DoctorSection,
} from './machine.js';
import {
  connectFromForeignAddress,
  connectThrough,
  pathMtuFinding,
  removeLeftovers,
  withForeignAddress,
} from './paths.js';

export interface DoctorReport {
  /** No problem was found. */
  readonly healthy: boolean;
  readonly sections: readonly DoctorSection[];
}

export interface DoctorOptions {
  /** TCP port that is tried. @default the probe's, or the rule's first, or 80 */
  readonly port?: number;
  /** Whether routes may be changed for a moment. */
  readonly paths: 'tried' | 'not-tried';
}

/** What all checks work with. */
interface Scope extends DoctorOptions {
  readonly machine: DoctorMachine;
  readonly configuration: Configuration;
}

/** For all backends together: each takes some six seconds at most, all at a time. */
const LIMIT_MS = 20_000;

/** Examines this machine and the paths to all backends, side by side. Never rejects. */
export async function examine(
  unbounded: DoctorMachine,
  configuration: Configuration,
  options: DoctorOptions,
): Promise<DoctorReport> {
  const machine = withinTime(unbounded, LIMIT_MS);
  const isKernel = configuration.kernel !== undefined;
  const mayTry = isKernel && options.paths === 'tried' && (await mayAdminister(machine));
  const scope: Scope = { ...options, machine, configuration, paths: mayTry ? 'tried' : 'not-tried' };
  const [host, frontends, backends, needs] = await Promise.all([
    examineHost(machine, configuration),
    frontendSections(scope),
    backendSections(scope),
    needSections(scope),
  ]);
  const missing =
    isKernel && !mayTry
      ? [note('Paths were not tried: that changes routes for a moment and needs CAP_NET_ADMIN')]
      : [];
  const sections = [
    { title: 'This machine', findings: [...host, ...missing] },
    ...frontends,
    ...backends,
    ...needs,
  ];
  const healthy = !sections.some(({ findings }) => findings.some(({ level }) => level === 'problem'));
  return { healthy, sections };
}

async function backendSections(scope: Scope): Promise<readonly DoctorSection[]> {
  const { machine, configuration, paths } = scope;
  if (paths === 'not-tried') return examineBackends(scope);
  await removeLeftovers(machine);
  if (configuration.kernel?.mode !== 'nat') return examineBackends(scope);
  return withForeignAddress(machine, 4, () => withForeignAddress(machine, 6, () => examineBackends(scope)));
}

/** What backends must have, whether they have it or not. */
async function needSections(scope: Scope): Promise<readonly DoctorSection[]> {
  const sections = await Promise.all(
    scope.configuration.backendPools.map(async (pool) => ({
      title: `What each backend of pool ${pool.name} needs`,
      findings: [...floatingNeeds(scope, pool), ...(await probeNeeds(scope, pool))],
    })),
  );
  return sections.filter(({ findings }) => findings.length > 0);
}

function floatingNeeds({ configuration }: Scope, pool: BackendPool): readonly DoctorFinding[] {
  const addresses = frontendsOf(configuration, pool).map(({ address }) => address);
  if (!answersPastUs(configuration) || addresses.length === 0) return [];
  const text = "The frontend's address on its loopback, not announced, and no reverse path filter";
  return [note(text, ...floatingAdvice(addresses))];
}

async function probeNeeds({ machine, configuration }: Scope, pool: BackendPool): Promise<DoctorFinding[]> {
  const probes = probesOf(configuration, pool);
  const [backend] = pool.backends;
  if (backend === undefined || probes.length === 0) return [];
  const route = await routeTo(machine, backend.address);
  const source = probeSource(probes, route);
  if (source === undefined) return [];
  const device = route?.device === undefined ? '' : ` on ${route.device}`;
  const text = `Probes come from ${source}${device}: its firewall must let them in, and its answers must leave by the interface they came in`;
  return [note(text, ...probeAdvice(backend, probes, route))];
}

/** One backend, what is known of it, and where flows arrive for it. */
interface BackendScope extends Scope {
  readonly pool: BackendPool;
  readonly backend: Backend;
  /** Of all backends. */
  readonly index: number;
  /** Of the interface where flows arrive. */
  readonly mtu: number | undefined;
  readonly route: RouteFacts | undefined;
  readonly probes: readonly Probe[];
  /** That is tried. */
  readonly port: number;
  /** A connection to the backend itself. */
  readonly direct: Promise<ConnectOutcome>;
}

/** Each backend: whether it is alive, whether flows reach it, and whether their answers come back. */
async function examineBackends(scope: Scope): Promise<readonly DoctorSection[]> {
  const { machine, configuration } = scope;
  const arrival = configuration.kernel?.interface;
  const mtu = arrival === undefined ? undefined : await mtuOf(machine, arrival);
  const wanted = configuration.backendPools.flatMap((pool) =>
    pool.backends.map((backend) => ({ pool, backend })),
  );
  return Promise.all(
    wanted.map(async ({ pool, backend }, index) => {
      const probes = probesOf(configuration, pool);
      const port = scope.port ?? probes[0]?.port ?? firstPortOf(configuration, pool);
      const route = await routeTo(machine, backend.address);
      const direct = machine.connect({ to: backend.address, port });
      const one: BackendScope = { ...scope, pool, backend, index, mtu, route, probes, port, direct };
      return {
        title: `Backend ${pool.name}/${backend.name}, ${backend.address.text}`,
        findings: await examineBackend(one),
      };
    }),
  );
}

async function examineBackend(one: BackendScope): Promise<DoctorFinding[]> {
  const [answer, path, flowPath] = await Promise.all([one.direct, mtuFindings(one), pathFindings(one)]);
  return [
    directFinding(one, answer),
    // Only now a neighbour has been asked for its address.
    ...(await routeFindings(one)),
    // Of one that is down nothing can be measured.
    ...path.filter(({ level }) => isAlive(answer) || level !== 'note'),
    ...flowPath,
  ];
}

/** Of the path beyond this machine. */
async function mtuFindings({
  machine,
  configuration,
  backend,
  mtu,
  route,
}: BackendScope): Promise<DoctorFinding[]> {
  if (configuration.kernel === undefined || route?.device === undefined || route.type === 'local') return [];
  const out = await mtuOf(machine, route.device);
  if (out === undefined) return [];
  const answers = answersPastUs(configuration) ? 'past' : 'through';
  return [await pathMtuFinding(machine, { to: backend.address, mtu: Math.min(out, mtu ?? out), answers })];
}

/** That a rule sends to a pool by a port of its own; else 80. */
function firstPortOf({ rules }: Configuration, pool: BackendPool): number {
  const rule = rules.find((one) => one.pool.name === pool.name && !one.haPorts);
  const [range] = rule?.ports ?? [];
  return rule === undefined || range === undefined ? 80 : range.first + rule.portOffset;
}

function directFinding(
  { backend, port, probes, route }: BackendScope,
  direct: ConnectOutcome,
): DoctorFinding {
  const at = formatEndpoint(backend.address, port);
  if (direct === 'connected') return fine(`Alive: ${at} accepts connections`);
  if (direct === 'refused') return note(`Alive, but nothing listens on ${at}`);
  if (direct === OUT_OF_TIME) return note(`Not tried: ${direct}. Try fewer backends`);
  const text = `No answer from ${at} (${direct}): it is down, or a firewall is in the way`;
  return problem(text, ...probeAdvice(backend, probes, route));
}

async function routeFindings({
  machine,
  configuration: { kernel },
  backend: { address },
  mtu,
  route,
}: BackendScope): Promise<DoctorFinding[]> {
  if (kernel === undefined) return [];
  if (route === undefined) return [problem('This machine has no route to it')];
  const { device, gateway } = route;
  if (device === undefined || route.type === 'local') return [];
  const findings: DoctorFinding[] = [];
  if (kernel.mode !== 'nat' && gateway !== undefined) {
    const text = `It is behind the gateway ${gateway}: with mode ${kernel.mode} it must be a neighbour of this machine`;
    findings.push(problem(text));
  } else if (kernel.mode !== 'nat' && (await neighbourOf(machine, address, device)) === undefined) {
    const asked = address.family === 4 ? 'ARP' : 'neighbour discovery';
    findings.push(problem(`No host on ${device} has its address (${asked} gets no answer)`));
  }
  if (kernel.mode === 'floating-l2' && kernel.interface !== undefined && device !== kernel.interface) {
    findings.push(problem(`It is on ${device}, and packets are sent out of ${kernel.interface} only`));
  }
  const out = await mtuOf(machine, device);
  if (mtu !== undefined && out !== undefined && out < mtu) {
    const text = `The path to it takes packets of ${out} bytes, and up to ${mtu} bytes arrive: larger ones are lost or fragmented`;
    findings.push(warning(text, `ip link set dev ${device} mtu ${mtu}`));
  }
  return findings;
}

/** What only shows on the path that flows take. */
async function pathFindings(one: BackendScope): Promise<DoctorFinding[]> {
  const { configuration, paths, route, pool, backend } = one;
  const { kernel } = configuration;
  if (paths === 'not-tried' || kernel === undefined) return [];
  if (kernel.mode === 'nat') return kernel.returnPath === 'route' ? returnFindings(one) : [];
  if (kernel.mode === 'next-hop' || route?.gateway !== undefined) return [];
  const frontends = frontendsOf(configuration, pool).filter(
    ({ address }) => address.family === backend.address.family,
  );
  return Promise.all(frontends.map((frontend) => throughFinding(one, frontend)));
}

async function throughFinding(
  { machine, backend, index, port, direct }: BackendScope,
  { address, name }: Frontend,
): Promise<DoctorFinding> {
  const at = formatEndpoint(address, port);
  if ((await routeTo(machine, address))?.type === 'local') {
    return note(`The path through ${address.text} cannot be tried from here, where that address is local`);
  }
  const ends = { frontend: address, backend: backend.address };
  const answer = await connectThrough(machine, ends, { port, index });
  if (isAlive(answer)) return fine(`It answers as ${at} (${answer}): floating IP works`);
  if (answer === OUT_OF_TIME) return note(`Whether it answers as ${at} was not tried: ${answer}`);
  if (!isAlive(await direct)) return note(`Nor does it answer as ${at} (${answer})`);
  return problem(
    `It is alive, but does not answer as ${at} (${answer}): it has no loopback alias for frontend "${name}", or drops the packets by its reverse path filter or firewall`,
    ...floatingAdvice([address]),
  );
}

async function returnFindings({ machine, backend, port, direct }: BackendScope): Promise<DoctorFinding[]> {
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

async function mtuOf(machine: DoctorMachine, device: string): Promise<number | undefined> {
  const [link] = await ipRecords(machine, 'link', 'show', 'dev', device);
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
  const [text = ''] = address.text.split('%', 1);
  const [record] = await ipRecords(machine, `-${address.family}`, 'route', 'get', text);
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
async function frontendSections({ machine, configuration }: Scope): Promise<readonly DoctorSection[]> {
  const { kernel, frontends } = configuration;
  if (kernel === undefined) return [];
  return Promise.all(
    frontends.map(async ({ name, address }) => ({
      title: `Frontend ${name}, ${address.text}`,
      findings: await addressFindings(machine, kernel.mode, address),
    })),
  );
}

async function addressFindings(
  machine: DoctorMachine,
  mode: KernelOptions['mode'],
  address: IpAddress,
): Promise<DoctorFinding[]> {
  if (isWildcard(address)) {
    return [fine(mode === 'next-hop' ? 'Stands for destinations beyond' : 'All addresses of this machine')];
  }
  const route = await routeTo(machine, address);
  if (route === undefined) return [fine('Not an address of this machine, and routed nowhere else')];
  if (route.type === 'local') {
    if (mode !== 'floating-routed') return [fine('An address of this machine')];
    const text =
      'It is an address of this machine, which keeps its packets instead of routing them to a backend';
    return [problem(text, `ip address del ${address.text}, and have it routed here`)];
  }
  const found =
    route.gateway === undefined && route.device !== undefined
      ? await onLink(machine, address, route.device)
      : fine('Not an address of this machine: it must be routed here by the network');
  const guard = note(
    'While haports is not in the kernel, packets to it would be routed on, perhaps in a loop',
    `ip -${address.family} route add unreachable ${address.text}/${address.family === 4 ? 32 : 128}`,
  );
  return [found, guard];
}

/** In a network of this machine it is not routed here: some host must answer ARP for it, and not a backend. */
async function onLink(machine: DoctorMachine, address: IpAddress, device: string): Promise<DoctorFinding> {
  const owner = await neighbourOf(machine, address, device);
  const text = `It is in a network of ${device}, and not this machine's`;
  return owner === undefined
    ? note(`${text}: no client there finds it`, `route it here, or let ${device} have it (floating-l2, nat)`)
    : warning(`${text}: ${owner} answers for it, past the balancer`, `on a backend: ${KEEP_ARP_QUIET}`);
}

/** The MAC address that a neighbour has answered with; undefined: none. */
async function neighbourOf(
  machine: DoctorMachine,
  address: IpAddress,
  device: string,
): Promise<string | undefined> {
  const [text = ''] = address.text.split('%', 1);
  const found = await ipRecords(machine, `-${address.family}`, 'neigh', 'show', 'to', text, 'dev', device);
  return found.map(({ lladdr }) => textOf(lladdr)).find((lladdr) => lladdr !== undefined);
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

/** With floating IP backends answer clients past this machine. */
function answersPastUs({ kernel }: Configuration): boolean {
  return kernel?.mode === 'floating-l2' || kernel?.mode === 'floating-routed';
}

/** So that a backend does not announce the frontend's address. */
const KEEP_ARP_QUIET = 'sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2';
const NO_PATH_FILTER =
  'sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0    # eth0: where packets arrive';

/** With floating IP a backend owns the frontend's address, does not announce it, and accepts packets that arrive for it. */
function floatingAdvice(addresses: readonly IpAddress[]): readonly string[] {
  const aliases = addresses.map(({ family, text }) =>
    family === 4 ? `ip address add ${text}/32 dev lo` : `ip address add ${text}/128 dev lo nodad`,
  );
  return addresses.some(({ family }) => family === 4)
    ? [...aliases, KEEP_ARP_QUIET, NO_PATH_FILTER]
    : aliases;
}

/** What a firewall on the backend must let in so that probes get an answer. */
function probeAdvice(
  { address }: Backend,
  probes: readonly Probe[],
  route: RouteFacts | undefined,
): readonly string[] {
  const ports = [...new Set(probes.map(({ port }) => port))].join(', ');
  const source = probeSource(probes, route);
  if (ports === '' || source === undefined) return [];
  const family = address.family === 4 ? 'ip' : 'ip6';
  return [`nft add rule inet filter input ${family} saddr ${source} tcp dport { ${ports} } accept`];
}

function probeSource(probes: readonly Probe[], route: RouteFacts | undefined): string | undefined {
  const configured = probes.find(({ sourceAddress }) => sourceAddress !== undefined);
  return configured?.sourceAddress?.text ?? route?.source;
}
