import { formatEndpoint, type IpAddress } from '../model/address.js';
import type { Backend, BackendPool, Configuration, Frontend } from '../model/configuration.js';
import { floatingAdvice, frontendsOf, probeAdvice, probesOf } from './doctor-advice.js';
import { neighbourOf, routeTo, type RouteFacts } from './doctor-frontends.js';
import {
  fine,
  ipRecords,
  isAlive,
  note,
  OUT_OF_TIME,
  problem,
  warning,
  type DoctorFinding,
  type DoctorMachine,
  type DoctorSection,
  type KnockAnswer,
} from './doctor-machine.js';
import { pathMtuFinding } from './doctor-mtu.js';
import { knockAsStranger, knockThrough } from './doctor-path.js';

export interface BackendOptions {
  /** TCP port that is tried. @default the probe's, or the rule's first, or 80 */
  readonly port?: number;
  /** Whether routes may be changed for a moment. */
  readonly paths: 'tried' | 'not-tried';
}

/** A backend, whether it is there, and whether flows reach it and their answers come back. */
export async function examineBackends(
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
  const direct = machine.knock({ to: address, port });
  const probes = probesOf(configuration, pool);
  const firewall = probeAdvice(backend, probes, route?.source);
  const [answer, path, ways] = await Promise.all([
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
    ...ways,
  ];
}

/** Of the way that packets take once they have left this machine. */
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
  const rule = configuration.rules.find(({ backendPool, haPorts }) => backendPool === pool.name && !haPorts);
  const [range] = rule?.ports ?? [];
  return options.port ?? probe?.port ?? (range === undefined ? 80 : range.first + (rule?.portOffset ?? 0));
}

function directFinding(one: OneBackend, direct: KnockAnswer, firewall: readonly string[]): DoctorFinding {
  const at = formatEndpoint(one.backend.address, portOf(one));
  if (direct === 'connected') return fine(`Alive: ${at} accepts connections`);
  if (direct === 'refused') return note(`Alive, but nobody listens on ${at}`);
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
          `Nobody on ${device} has its address (${backend.address.family === 4 ? 'ARP' : 'neighbour discovery'} gets no answer)`,
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
        `The way to it takes packets of ${out} bytes, and up to ${mtu} bytes arrive: large ones are lost or cut up`,
        `ip link set dev ${device} mtu ${mtu}`,
      ),
    );
  }
  return findings;
}

/** What only shows on the very way that flows take. */
async function pathFindings(
  machine: DoctorMachine,
  one: OneBackend,
  seen: {
    readonly direct: Promise<KnockAnswer>;
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
  { direct, port }: { readonly direct: Promise<KnockAnswer>; readonly port: number },
): Promise<DoctorFinding> {
  const at = formatEndpoint(address, port);
  if ((await routeTo(machine, address))?.type === 'local') {
    return note(`The way through ${address.text} cannot be tried from here, where that address is local`);
  }
  const { backend, index } = one;
  const answer = await knockThrough(machine, { frontend: address, backend: backend.address, port, index });
  if (isAlive(answer)) return fine(`It answers as ${at} (${answer}): floating IP works`);
  if (answer === OUT_OF_TIME) return note(`Whether it answers as ${at} was not tried: ${answer}`);
  if (!isAlive(await direct)) return note(`Nor does it answer as ${at} (${answer})`);
  return problem(
    `It is alive, but does not answer as ${at} (${answer}): it has no loopback alias for frontend "${name}", or drops the packets by its reverse path filter or firewall`,
    ...linuxLines([address]),
  );
}

async function returnFindings(
  machine: DoctorMachine,
  { backend }: OneBackend,
  { direct, port }: { readonly direct: Promise<KnockAnswer>; readonly port: number },
): Promise<DoctorFinding[]> {
  const [answer, own] = await Promise.all([
    knockAsStranger(machine, { backend: backend.address, port }),
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

/** The others are below, with what all backends need. */
function linuxLines(addresses: readonly IpAddress[]): readonly string[] {
  return floatingAdvice(addresses)
    .filter(({ system }) => system === 'Linux')
    .flatMap(({ commands }) => commands);
}

async function arrivingMtu(machine: DoctorMachine, { kernel }: Configuration): Promise<number | undefined> {
  return kernel?.interface === undefined ? undefined : mtuOf(machine, kernel.interface);
}

async function mtuOf(machine: DoctorMachine, device: string): Promise<number | undefined> {
  const [link] = ipRecords(await machine.run('ip', ['-j', 'link', 'show', 'dev', device]));
  const mtu = link?.['mtu'];
  return typeof mtu === 'number' ? mtu : undefined;
}
