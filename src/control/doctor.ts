import type { BackendPool, Configuration } from '../model/configuration.js';
import { floatingAdvice, frontendsOf, probeAdvice, probesOf } from './doctor-advice.js';
import { examineBackends, type BackendOptions } from './doctor-backends.js';
import { examineFrontends, routeTo } from './doctor-frontends.js';
import { examineHost, mayAdminister } from './doctor-host.js';
import {
  note,
  withinTime,
  type DoctorFinding,
  type DoctorMachine,
  type DoctorSection,
} from './doctor-machine.js';
import { asStranger, removeLeftovers } from './doctor-path.js';

export interface DoctorReport {
  /** No problem was found. */
  readonly healthy: boolean;
  readonly sections: readonly DoctorSection[];
}

/** For all backends together: each takes some six seconds at most, all at a time. */
const LIMIT_MS = 20_000;

/** Examines this machine and the ways to all backends, side by side. Never rejects. */
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
    ways(machine, configuration, { ...options, paths }),
    needs(machine, configuration),
  ]);
  const missing =
    isKernel && paths === 'not-tried'
      ? [
          note(
            'The ways that flows take were not tried, which changes routes for a moment and needs CAP_NET_ADMIN',
          ),
        ]
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

async function ways(
  machine: DoctorMachine,
  configuration: Configuration,
  options: BackendOptions,
): Promise<readonly DoctorSection[]> {
  const look = (): Promise<readonly DoctorSection[]> => examineBackends(machine, configuration, options);
  if (options.paths === 'not-tried') return look();
  await removeLeftovers(machine);
  if (configuration.kernel?.mode !== 'nat') return look();
  return asStranger(machine, 4, () => asStranger(machine, 6, look));
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
  const lines = floatingAdvice(addresses).flatMap(({ system, commands }) =>
    commands.map((command) => `${system}: ${command}`),
  );
  return [
    note("The frontend's address on its loopback, told to nobody, and no reverse path filter", ...lines),
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
  const source =
    probes.find(({ sourceAddress }) => sourceAddress !== undefined)?.sourceAddress?.text ?? route?.source;
  if (source === undefined) return [];
  const device = route?.device === undefined ? '' : ` on ${route.device}`;
  const text = `Probes come from ${source}${device}: its firewall must let them in, and its answers must leave by the interface they came in`;
  return [note(text, ...probeAdvice(backend, probes, source))];
}
